"""`prepare` exports the network that it is given, whatever its modules do; what it reads wrongly is refused by name."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from dqtsim.errors import ModelError
from dqtsim.train import NestedConfig, floats, guard, networks, prepare, rewrite
from dqtsim.train.network import NestedNetwork
from dqtsim.train.reading import affine, layers, pads, pointwise, pools, transposed
from dqtsim.train.reading.reader import Reading
from dqtsim.train.steps import Activation, Layer, Norm, Step, converted
from dqtsim.train.tracing import trace

SHAPE = (3, 12, 12)
Odd = Callable[[torch.Tensor], torch.Tensor]
GIVEN = "prepare must export the network that it is given, but step "


class Net(nn.Module):
    """A convolution, something odd, and a classifier."""

    def __init__(self, odd: Odd | nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.odd: Any = odd
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.fc(self.odd(self.stem(x)).mean((2, 3))))


def net(odd: Odd | nn.Module) -> Net:
    torch.manual_seed(0)
    return Net(odd).eval()


def prepared(model: nn.Module) -> NestedNetwork:
    return prepare(model, NestedConfig(input_shape=SHAPE))


def refusal(model: nn.Module) -> str:
    with pytest.raises(ModelError) as raised:
        prepared(model)
    return str(raised.value)


def refused_at(model: nn.Module) -> str:
    """The step that a refusal by the guard names."""
    found = refusal(model)
    assert found.startswith(GIVEN)
    name, gives = found.removeprefix(GIVEN).split(" gives ", 1)
    assert " where the network gives " in gives
    assert not gives.endswith("(0 apart).")
    return name


def given(model: nn.Module) -> list[str]:
    """The names of the steps of a network that is exported as it is: its outputs are those of its steps."""
    network = prepared(model)
    pictures = guard._codes(SHAPE, 128)
    values = floats.evaluate(converted(network.steps, torch.float64), (pictures.double() - 128) / 64)
    with torch.no_grad():
        expected = copy.deepcopy(model).double().eval()((pictures.double() - 128) / 64)
    assert guard.agree(values[network.outputs[0]], expected)
    return [step.name for step in network.steps]


class Branch(nn.Module):
    """A residual branch that begins with a ReLU."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.ReLU(inplace), nn.Conv2d(4, 4, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.branch(x) + x)


class Alias(nn.Module):
    """`out += x`, where another name holds `out`."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.relu(x)
        before = out
        out += self.one(out)
        return cast(torch.Tensor, self.two(torch.relu(out)) + before)


class Standardized(nn.Conv2d):
    """Weight standardization: the shape is that of a convolution, the weights are not."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(input, weight, self.bias, self.stride, self.padding)


class AlwaysTraining(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> "AlwaysTraining":
        return super().train(True)


def test_a_shortcut_that_an_inplace_relu_changes_is_read_as_it_runs() -> None:
    network = prepared(net(Branch(True)))
    add = next(step for step in network.steps if step.name == "odd.add")
    # The ReLU is the stem's activation now, and both operands follow it.
    assert add.sources == ("odd.branch.1", "stem")
    assert cast(Layer, network.steps[0]).activation == Activation(True)
    assert given(net(Branch(True))) == ["stem", "odd.branch.1", "odd.add", "pool", "pool.flat", "fc"]
    assert given(net(Branch(False))) == ["stem", "odd.branch.0", "odd.branch.1", "odd.add", "pool", "pool.flat", "fc"]


def test_a_sum_in_place_that_another_name_reads_is_read_as_it_runs() -> None:
    assert given(net(Alias()))[:5] == ["stem", "odd.one", "odd.add", "odd.relu", "odd.two"]


def test_a_statement_whose_result_nobody_takes_is_read() -> None:
    def odd(x: torch.Tensor) -> torch.Tensor:
        x.relu_()
        return x

    assert given(net(odd)) == ["stem", "pool", "pool.flat", "fc"]


def test_an_inplace_relu_that_alone_reads_is_right() -> None:
    assert given(net(nn.ReLU(inplace=True))) == ["stem", "pool", "pool.flat", "fc"]


def test_a_forward_of_its_own_is_followed_into() -> None:
    assert given(net(Standardized(4, 4, 3, padding=1))) == ["stem", "odd", "pool", "pool.flat", "fc"]


def test_a_batch_norm_that_takes_the_statistics_of_the_batch_is_refused() -> None:
    assert refusal(net(nn.Sequential(nn.Conv2d(4, 4, 1), AlwaysTraining(4)))) == (
        "operation '_native_batch_norm_legit_functional' in 'odd.1' must normalise with its running statistics, but "
        "takes those of the batch; call eval() on it, and track_running_stats must be True."
    )


@pytest.mark.parametrize("odd", [
    (lambda x: functional.relu(x, True) + x),
    (lambda x: x.clone().relu_() + x),
    (lambda x: functional.relu6(x, True)),
    (lambda x: torch.relu(functional.max_pool2d(x, 3, 2, 1, 1))),
    (lambda x: functional.avg_pool2d(x, 3, 2, 1, False, True)),
    (lambda x: functional.avg_pool2d(input=x, kernel_size=3, stride=(2, 1))),
    (lambda x: functional.avg_pool2d(x, 2, 2, 0, False, True, 1)),
    (lambda x: functional.avg_pool2d(x, 2, divisor_override=3)),
    (lambda x: functional.max_pool2d(x, 5, 2, 0, 1, True)),
    (lambda x: torch.add(x, torch.relu(x), alpha=2)),
    (lambda x: functional.adaptive_avg_pool2d(x, (None, 4))),
])  # fmt: skip
def test_arguments_by_position_and_by_keyword_are_read(odd: Odd) -> None:
    assert given(net(odd))[-1] == "fc"


def test_hooks_of_modules_which_change_tensors_are_refused_or_read() -> None:
    model = net(nn.Conv2d(4, 4, 1))
    model.odd.register_forward_hook(lambda module, inputs, output: output + inputs[0])
    model.odd.register_forward_pre_hook(lambda module, inputs: (torch.relu(inputs[0]),))
    assert given(model) == ["stem", "odd", "odd.add", "pool", "pool.flat", "fc"]


def pruned(module: nn.Conv2d) -> None:
    prune.l1_unstructured(module, "weight", 0.5)  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("change", [
    weight_norm, spectral_norm, parametrizations.weight_norm, parametrizations.spectral_norm, pruned,
])  # fmt: skip
def test_weights_that_something_computes_are_those_in_eval_mode(change: Callable[[nn.Conv2d], object]) -> None:
    convolution = nn.Conv2d(4, 4, 3)
    model = net(nn.Sequential(convolution, nn.ReLU()))
    with torch.no_grad():
        convolution.weight.mul_(3)
    change(convolution)
    # A pass with gradients leaves weights that deepcopy refuses by itself, and a training pass moves spectral_norm.
    model.train()
    torch.autograd.backward(model(torch.randn((2, *SHAPE))).sum())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network = prepared(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    model.eval()
    with torch.no_grad():
        # The weights are computed in float64 and rounded once.
        convolution.double()(torch.zeros((1, 4, 5, 5), dtype=torch.float64))
        assert torch.equal(cast(torch.Tensor, network.layer("odd").weight), convolution.weight.float())


@pytest.mark.parametrize("function", [functional.dropout, functional.dropout2d])
def test_a_dropout_that_is_always_on_is_refused_by_name(function: Callable[..., torch.Tensor]) -> None:
    found = refusal(net(lambda x: function(x, 0.5, True)))
    assert found.startswith("operation '")
    assert found.endswith(
        " in 'root' must not draw random numbers in eval mode; a dropout takes training=self.training."
    )


def test_control_flow_that_changes_from_call_to_call_is_one_sentence() -> None:
    class Flip(nn.Module):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return torch.relu(x if self.calls % 2 else x + x)

    assert refusal(net(Flip())).startswith("a network in eval mode must always give the same for the same pictures, ")


def test_control_flow_that_a_flag_decides_is_right() -> None:
    class Flagged(nn.Module):
        flag = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.dropout(x + x if self.flag else torch.relu(x), training=self.training)

    model = net(Flagged())
    assert [step.name for step in prepared(model).steps] == ["stem", "pool", "pool.flat", "fc"]
    model.odd.flag = True
    assert [step.name for step in prepared(model).steps] == ["stem", "odd.add", "pool", "pool.flat", "fc"]


def test_control_flow_that_tracing_alone_takes_is_refused() -> None:
    class Traced(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x + x) if type(x) is not torch.Tensor else torch.relu(x)

    found = refusal(net(Traced()))
    assert found.startswith("prepare must export the network that it is given, but output 'fc' gives ")
    assert found.endswith(
        " when it is called, though torch.export's graph of it agrees; what it does only while it is exported would do "
        "that."
    )


def test_a_batch_norm_behind_two_convolutions_is_right() -> None:
    norm = nn.BatchNorm2d(4, eps=0.1)
    norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4)
    model = net(nn.Sequential(nn.Conv2d(4, 4, 1), norm, nn.Conv2d(4, 4, 1), norm))
    assert [step.name for step in prepared(model).steps][:3] == ["stem", "odd", "odd.2"]


def test_values_that_are_not_finite_are_one_sentence() -> None:
    model = net(nn.Conv2d(4, 4, 1))
    with torch.no_grad():
        model.odd.weight[1] = float("nan")
    assert refusal(model) == "a network must give finite values, but its step 'odd' (Layer) does not."


def test_pictures_of_a_shape_that_the_network_cannot_take_are_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 2))
    assert refusal(model) == (
        "a network must take pictures of its input_shape, (3, 12, 12), in float64, but module '2' (Linear) cannot "
        "take (400,): "
        "mat1 and mat2 shapes cannot be multiplied (2x400 and 36x2)."
    )
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_evaluated_in_float64_is_one_sentence() -> None:
    class Single(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input.float())

    assert refusal(net(Single(4, 4, 1))) == (
        "a network must take pictures of its input_shape, (3, 12, 12), in float64, but module 'odd' (Single) cannot "
        "take (4, 12, 12): Input type (float) and bias type (double) should be the same."
    )


def test_other_networks_that_prepare_cannot_begin_with_are_one_sentence() -> None:
    class Two(nn.Linear):
        def forward(self, input: torch.Tensor, other: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(input + other)

    class Locked(nn.Sequential):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise TypeError("cannot pickle 'lock' object")

    assert refusal(nn.ReLU()) == "a network must have parameters, but this one has none."
    assert refusal(Two(2, 2)).endswith(".forward() missing 1 required positional argument: 'other'.")
    assert refusal(Locked(nn.Linear(2, 2))) == (
        "a network must be copyable by copy.deepcopy, but: cannot pickle 'lock' object."
    )


class Remembers(nn.Module):
    """Keeps a tensor, counts in a buffer, and draws a random number that changes nothing."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.norm = nn.BatchNorm2d(4).eval()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = torch.relu(self.norm(self.conv(x)))
        torch.rand(())
        return self.last


def test_the_network_and_the_callers_random_numbers_are_left_as_they_were() -> None:
    model = net(Remembers())
    # A frozen norm in a network in training mode; the pass leaves a tensor with gradients.
    model.train()
    model.odd.norm.eval()
    torch.autograd.backward(model(torch.randn((2, *SHAPE))).sum())
    last, flags = model.odd.last, [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = {name: cast(torch.Tensor, value.grad).clone() for name, value in model.named_parameters()}
    random = torch.get_rng_state()
    prepared(model).set_steps(torch.zeros((1, *SHAPE), dtype=torch.uint8))
    assert torch.equal(torch.get_rng_state(), random)
    assert model.odd.last is last
    assert [module.training for module in model.modules()] == flags
    assert not any(module._forward_hooks for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, value in model.named_parameters():
        assert torch.equal(cast(torch.Tensor, value.grad), gradients[name]), name


def test_what_a_clone_keeps_is_kept() -> None:
    def odd(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        return y + functional.relu(x, True)

    assert given(net(odd)) == ["stem", "add", "pool", "pool.flat", "fc"]


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 30, 7), (3, 150, 130)])
def test_large_pictures_are_fewer_and_all_have_zeros_and_extremes(shape: tuple[int, int, int]) -> None:
    codes = guard._codes(shape, 128)
    assert codes.shape == (4 if shape[1] == 150 else 9, *shape)
    assert bool((codes[0] == 128).all())
    assert int(codes.min()) == 0
    assert int(codes.max()) == 255
    assert sum(len(picture.unique()) == 2 for picture in codes) == (1 if shape[1] == 150 else 4)
    assert torch.equal(codes, guard._codes(shape, 128))


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv2"])
def test_every_step_of_a_network_is_compared(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[str]] = {}
    see = guard._Place.see

    def noted(place: guard._Place, found: torch.Tensor, expected: torch.Tensor) -> None:
        seen.setdefault(place.what, []).append("both signs" if float(found.min()) < 0 < float(found.max()) else "")
        see(place, found, expected)

    monkeypatch.setattr(guard._Place, "see", noted)
    torch.manual_seed(0)
    network = prepare(networks.build(name, 10))
    for step in network.steps:
        what = f"step '{step.name}' ({type(step).__name__})"
        # A pool that drops its axes has a Flatten, which is compared instead.
        if what not in seen:
            assert f"step '{step.name}.flat' (Flatten)" in seen, what
        elif getattr(step, "activation", Activation()).rectified:
            # Both signs before every clamp, so that a clamp that was not read shows.
            assert seen[what][0] == "both signs", what


class Sound(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.two = nn.Conv2d(4, 4, 1)
        with torch.no_grad():
            self.norm.bias.fill_(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self.norm(self.one(x)))
        return functional.avg_pool2d(self.two(x) + x, 2)


def with_a_larger_eps(step: Any) -> Step:
    # A relative change of 5e-5, far below any accuracy.
    return cast(Step, replace(step, norm=replace(step.norm, eps=cast(Norm, step.norm).eps + 1e-4)))


@pytest.mark.parametrize(("name", "fault"), [
    ("odd.one", lambda step: replace(step, pads=(0, 0, 0, 0))),
    ("odd.one", with_a_larger_eps),
    ("odd.one", lambda step: replace(step, activation=Activation(True))),
    ("odd.add", lambda step: replace(step, sources=step.sources[:1] * 2)),
    ("odd.pool", lambda step: replace(step, stride=(1, 1))),
    ("odd.pool", lambda step: replace(step, kernel=(1, 1))),
])  # fmt: skip
def test_a_step_that_is_read_wrongly_is_refused(
    name: str, fault: Callable[[Any], Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrongly(model: nn.Module, shape: tuple[int, int, int]) -> Reading:
        reading = trace(model, shape)
        assert name in reading.nodes
        found = tuple(fault(step) if step.name == name else step for step in reading.traced.steps)
        return replace(reading, traced=replace(reading.traced, steps=found))

    assert prepared(net(Sound())).steps[-1].name == "fc"
    monkeypatch.setattr(rewrite, "trace", wrongly)
    assert refused_at(net(Sound())).startswith(f"'{name}' (")


def a_pad_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    read = pads.unpadded
    monkeypatch.setattr(layers, "unpadded", lambda *given: replace(read(*given), pads=(0, 0, 0, 0)))


def kernel_and_stride_are_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    read = pools._walk
    monkeypatch.setattr(pools, "_walk", lambda *given: (read(*given)[1], read(*given)[0], read(*given)[2]))


def an_eps_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    read = affine.norm_of
    monkeypatch.setattr(layers, "norm_of", lambda *given: replace(read(*given), eps=0.0))


def phases_are_not_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    read = transposed._phases
    monkeypatch.setattr(transposed, "_phases", lambda *given: read(*given).flip(2, 3))


def an_operand_of_a_difference_keeps_its_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    read = pointwise._spread
    monkeypatch.setattr(pointwise, "_spread", lambda reader, node, operand, alpha=1: read(reader, node, operand))


@pytest.mark.parametrize(("fault", "odd", "step"), [
    (a_pad_is_dropped, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 4, 3, 2)), "'odd.1' (Layer)"),
    (kernel_and_stride_are_swapped, nn.MaxPool2d(3, 2, 1), "'odd' (MaxPool)"),
    (an_eps_is_forgotten, nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), "'odd' (Layer)"),
    (phases_are_not_turned, nn.ConvTranspose2d(4, 4, 4, 2, 1), "'odd.take2' (Take)"),
    (an_operand_of_a_difference_keeps_its_sign, lambda x: x - x.flip(1), "'add' (Add)"),
])  # fmt: skip
def test_a_fault_planted_in_the_reader_is_found_at_its_step(
    fault: Callable[[pytest.MonkeyPatch], None], odd: Odd, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = net(odd)
    assert prepared(model).steps[-1].name == "fc"
    fault(monkeypatch)
    assert refused_at(model) == step

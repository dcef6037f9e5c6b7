"""`prepare` exports the network that it is given: what its tracer does not see is refused with the step's name."""

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
from dqtsim.train import NestedConfig, guard, networks, prepare, rewrite
from dqtsim.train.network import NestedNetwork
from dqtsim.train.steps import Activation, Step
from dqtsim.train.tracing import Traced, trace

SHAPE = (3, 12, 12)
Odd = Callable[[torch.Tensor], torch.Tensor]
GIVEN = "prepare must export the network that it is given, but step "
UNREAD = "; there or before it is what was not read: a change in place, a module's own forward, a hook or an argument."


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
    assert found.endswith(UNREAD)
    name, gives = found.removeprefix(GIVEN).removesuffix(UNREAD).split(" gives ", 1)
    assert " where the network gives " in gives
    assert not gives.endswith("(0 apart)")
    return name


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


class Padded(nn.Conv2d):
    """TensorFlow's SAME: the padding is made in `forward`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(input, (0, 1, 0, 1)))


class Standardized(nn.Conv2d):
    """Weight standardization: the shape is that of a convolution, the weights are not."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(input, weight, self.bias, self.stride, self.padding)


class Scaled(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * 2


class AlwaysTraining(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> "AlwaysTraining":
        return super().train(True)


def test_a_shortcut_that_an_inplace_relu_changes_is_refused() -> None:
    assert refused_at(net(Branch(True))) == "'odd.add' (Add)"
    assert prepared(net(Branch(False))).steps[-1].name == "fc"


def test_a_sum_in_place_that_another_name_reads_is_refused() -> None:
    # torch.fx traces `+=` as `+`, so the first that differs is the next that a module of the network computes.
    assert refused_at(net(Alias())) == "'fc' (Logits)"


def test_a_statement_whose_result_nobody_takes_is_refused() -> None:
    def odd(x: torch.Tensor) -> torch.Tensor:
        x.relu_()
        return x

    assert refused_at(net(odd)) == "'pool' (AveragePool)"


def test_an_inplace_relu_that_alone_reads_is_right() -> None:
    assert [step.name for step in prepared(net(nn.ReLU(inplace=True))).steps][:2] == ["stem", "pool"]


@pytest.mark.parametrize("kind", [Padded, Standardized])
def test_a_convolution_with_a_forward_of_its_own_is_refused(kind: type[nn.Conv2d]) -> None:
    found = refusal(net(kind(4, 4, 3, padding=1)))
    assert found.startswith(GIVEN + "'odd' (Layer) gives ")
    assert (" gives (4, 12, 12) where the network gives (4, 13, 13)" in found) == (kind is Padded)


def test_a_classifier_with_a_forward_of_its_own_is_refused() -> None:
    model = net(nn.Identity())
    model.fc = Scaled(4, 2)
    assert refused_at(model) == "'fc' (Logits)"


def test_a_batch_norm_that_takes_the_statistics_of_the_batch_is_refused() -> None:
    assert refused_at(net(nn.Sequential(nn.Conv2d(4, 4, 1), AlwaysTraining(4)))) == "'odd' (Layer)"


@pytest.mark.parametrize(("odd", "step"), [
    (lambda x: functional.avg_pool2d(x, 2, 2, 0, False, True, 1), "'pool' (AveragePool)"),
    (lambda x: functional.relu(x, True) + x, "'add' (Add)"),
    (lambda x: x.clone().relu_() + x, None),
    (lambda x: functional.relu6(x, True), None),
    (lambda x: torch.relu(functional.max_pool2d(x, 3, 2, 1, 1)), None),
    (lambda x: functional.avg_pool2d(x, 3, 2, 1, False, True), None),
    (lambda x: functional.adaptive_avg_pool2d(x, (None, 4)), None),
    (lambda x: functional.avg_pool2d(torch.cat([x, x], -3), 1)[:, :4], "getitem"),
])  # fmt: skip
def test_arguments_by_position_are_read_or_refused(odd: Odd, step: str | None) -> None:
    if step is None:
        assert prepared(net(odd)).steps[-1].name == "fc"
    elif step == "getitem":
        assert "operation 'getitem' in 'root' is none of them." in refusal(net(odd))
    else:
        assert refused_at(net(odd)) == step


@pytest.mark.parametrize(("odd", "sentence"), [
    (
        lambda x: functional.avg_pool2d(input=x, kernel_size=2),
        "operation 'avg_pool2d' in 'root' must take its tensors by position, not by keyword.",
    ),
    (
        lambda x: functional.max_pool2d(x, 5, 2, 0, 1, True),
        "operation 'max_pool2d' in 'root' must have dilation 1, ceil_mode False and return_indices False.",
    ),
    (
        lambda x: torch.add(x, torch.relu(x), alpha=2),
        "operation 'add' in 'root' must add two tensors of one shape.",
    ),
])  # fmt: skip
def test_what_the_reader_refuses_does_not_reach_the_guard(odd: Odd, sentence: str) -> None:
    assert refusal(net(odd)) == sentence


def test_a_hook_that_changes_an_output_is_refused() -> None:
    model = net(nn.Conv2d(4, 4, 1))
    model.odd.register_forward_hook(lambda module, inputs, output: output * 2)
    assert refused_at(model) == "'odd' (Layer)"


def test_a_hook_that_changes_an_input_is_refused() -> None:
    model = net(nn.Conv2d(4, 4, 1))
    model.odd.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    assert refused_at(model) == "'odd' (Layer)"


def test_hooks_of_the_whole_network_which_are_not_traced_are_refused() -> None:
    model = net(nn.Conv2d(4, 4, 1))
    hook = model.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    assert refused_at(model) == "'stem' (Layer)"
    hook.remove()
    model.register_forward_hook(lambda module, inputs, output: output * 2)
    found = refusal(model)
    assert found.startswith(GIVEN + "'fc' (Logits) gives ")
    assert found.endswith(" in the end, though all its steps agree; a hook of the whole network would do that.")


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
        model(torch.zeros((1, *SHAPE)))
        assert torch.equal(cast(torch.Tensor, network.layer("odd").weight), convolution.weight)


@pytest.mark.parametrize("function", [functional.dropout, functional.dropout2d])
def test_a_dropout_that_is_always_on_is_one_sentence(function: Callable[..., torch.Tensor]) -> None:
    found = refusal(net(lambda x: function(x, 0.5, True)))
    assert found.startswith(
        "a network in eval mode must always give the same for the same pictures, but this one differs from itself by "
        "up to 0."
    )
    assert found.endswith("; a dropout that is always on, or a state that it changes, would do that.")


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
            return torch.relu(x) if type(x) is not torch.Tensor else torch.relu(-x)

    assert refused_at(net(Traced())) == "'fc' (Logits)"


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
        "a network must take pictures of its input_shape, (3, 12, 12), but module '2' (Linear) cannot take (400,): "
        "mat1 and mat2 shapes cannot be multiplied (2x400 and 36x2)."
    )
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_evaluated_in_float64_is_one_sentence() -> None:
    class Single(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input.float())

    assert refusal(net(Single(4, 4, 1))) == (
        "a network must be evaluated in float64 on 9 pictures of shape (3, 12, 12) to be compared with what prepare "
        "reads of it, but: Input type (float) and bias type (double) should be the same."
    )


def test_other_networks_that_prepare_cannot_begin_with_are_one_sentence() -> None:
    class Two(nn.Linear):
        def forward(self, input: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
            return super().forward(input if other is None else input + other)

    class Locked(nn.Sequential):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise TypeError("cannot pickle 'lock' object")

    assert refusal(nn.ReLU()) == "a network must have parameters, but this one has none."
    assert refusal(Two(2, 2)) == "a network must have one input, but this one has 2."
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


def test_the_twin_keeps_what_a_clone_kept() -> None:
    def odd(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        return y + functional.relu(x, True)

    model = net(odd)
    network, pictures = prepared(model), torch.randint(0, 256, (4, *SHAPE), dtype=torch.uint8)
    with torch.no_grad():
        expected = model((pictures.float() - 128) / 64)
    assert torch.equal(network.activations(pictures)["fc"], expected)


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 30, 7), (3, 150, 130)])
def test_large_pictures_are_fewer_and_all_have_zeros_and_extremes(shape: tuple[int, int, int]) -> None:
    codes = guard._codes(shape, 128)
    assert codes.shape == (5 if shape[1] == 150 else 9, *shape)
    assert bool((codes[0] == 128).all())
    assert int(codes.min()) == 0
    assert int(codes.max()) == 255
    assert sum(len(picture.unique()) == 2 for picture in codes) == (2 if shape[1] == 150 else 4)
    assert torch.equal(codes, guard._codes(shape, 128))


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv2"])
def test_every_step_of_a_network_is_compared(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    same = guard._same

    def seen(step: Step, found: torch.Tensor, expected: torch.Tensor) -> None:
        compared.append(step.name)
        # Both signs before every clamp, so that a clamp in place shows.
        if getattr(step, "activation", Activation()).rectified and compared.count(step.name) == 1:
            assert float(found.min()) < 0 < float(found.max()), step.name
        same(step, found, expected)

    monkeypatch.setattr(guard, "_same", seen)
    torch.manual_seed(0)
    network = prepare(networks.build(name, 10))
    assert list(dict.fromkeys(compared)) == [step.name for step in network.steps]


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
    # No module of the network, so it is not converted with it. A relative change of 5e-5, far below any accuracy.
    norm = copy.deepcopy(step.norm).double()
    norm.eps += 1e-4
    return cast(Step, replace(step, norm=norm))


@pytest.mark.parametrize(("name", "fault"), [
    ("odd.one", lambda step: replace(step, padding=(0, 0))),
    ("odd.one", with_a_larger_eps),
    ("odd.one", lambda step: replace(step, activation=Activation(True))),
    ("odd.add", lambda step: replace(step, sources=step.sources[:1] * 2)),
    ("odd.pool", lambda step: replace(step, stride=(1, 1))),
    ("odd.pool", lambda step: replace(step, kernel=(1, 1))),
])  # fmt: skip
def test_a_step_that_is_read_wrongly_is_refused(
    name: str, fault: Callable[[Any], Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrongly(model: nn.Module, shape: tuple[int, int, int]) -> Traced:
        traced = trace(model, shape)
        assert name in traced.tensors
        return replace(traced, steps=tuple(fault(step) if step.name == name else step for step in traced.steps))

    assert prepared(net(Sound())).steps[-1].name == "fc"
    monkeypatch.setattr(rewrite, "trace", wrongly)
    assert refused_at(net(Sound())).startswith(f"'{name}' (")

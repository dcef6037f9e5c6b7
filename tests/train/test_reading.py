"""Every operator that `prepare` reads, as the steps that it becomes; the guard compares each with the network."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from torch import nn
from torch.nn import functional

from dqtsim.errors import ModelError
from dqtsim.train import NestedConfig, guard, prepare, steps
from dqtsim.train.pixels import Pixels
from dqtsim.train.reading.reader import Reading
from dqtsim.train.steps import Traced
from dqtsim.train.tracing import trace

SHAPE = (3, 14, 14)
Odd = Callable[[torch.Tensor], Any]


class Net(nn.Module):
    """A convolution to [8, 12, 12], and something odd."""

    def __init__(self, odd: Odd | nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.odd: Any = odd

    def forward(self, x: torch.Tensor) -> Any:
        return self.odd(self.stem(x))


class Alone(nn.Module):
    """Something odd that reads the picture."""

    def __init__(self, odd: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.flat = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(588, 5)
        self.odd = odd

    def forward(self, x: torch.Tensor) -> Any:
        return self.odd(self, x)


def compare(model: nn.Module, reading: Reading, shape: tuple[int, ...]) -> None:
    guard.check(guard.copied(model), reading, Pixels(shape, 128, 1 / 64))


def read(model: nn.Module, shape: tuple[int, ...] = SHAPE) -> Traced:
    """The steps of a network with random statistics of its batch norms, compared with it."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                assert tensor is not None
                tensor.data.normal_(0, 1, generator=generator)
            assert module.running_var is not None
            module.running_var.uniform_(0.1, 2, generator=generator)
    reading = trace(guard.copied(model), shape)
    compare(model, reading, shape)
    assert all(step.positive in (True, False) for step in reading.traced.steps)
    return copy.deepcopy(reading.traced)


def kinds(odd: Odd | nn.Module) -> str:
    """The kinds of the steps after the stem."""
    torch.manual_seed(0)
    found = read(Net(odd)).steps
    assert found[0].name == "stem"
    return " ".join(type(step).__name__ for step in found[1:])


def refusal(odd: Odd | nn.Module) -> str:
    with pytest.raises(ModelError) as raised:
        read(Net(odd))
    return str(raised.value)


CONSTANTS = torch.arange(1.0, 9.0).reshape(8, 1, 1)


@pytest.mark.parametrize("module", [
    nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Sigmoid(), nn.Tanh(), nn.Hardswish(), nn.Hardsigmoid(), nn.LeakyReLU(0.2),
    nn.PReLU(), nn.PReLU(8, 0.3), nn.ELU(2), nn.SELU(), nn.CELU(), nn.Softplus(2, 3), nn.Mish(), nn.Softsign(),
    nn.Tanhshrink(), nn.Hardshrink(), nn.Softshrink(), nn.LogSigmoid(), nn.RReLU(), nn.Threshold(0.1, -1),
    nn.Hardtanh(-2, 3),
])  # fmt: skip
def test_an_activation_is_a_table(module: nn.Module) -> None:
    assert kinds(module) == "Table"


@pytest.mark.parametrize("odd", [
    lambda x: x * torch.sigmoid(x),
    lambda x: x * functional.relu6(x + 3) / 6,
    lambda x: x * x + 2 * torch.tanh(x) - 1,
    lambda x: torch.where(x > 0, x, x * 0.1),
    lambda x: torch.maximum(x, x * 0.1).clamp(max=2),
    lambda x: 1 / (x.abs() + 1),
    lambda x: torch.rsub(x.exp(), 2),
    lambda x: torch.add(x, torch.relu(x), alpha=-0.5),
])  # fmt: skip
def test_a_function_of_one_tensor_is_one_table(odd: Odd) -> None:
    assert kinds(odd) == "Table"


def test_a_table_is_per_channel_if_its_constants_are() -> None:
    varies = {name: read(Net(module)).steps[1] for name, module in (("one", nn.PReLU()), ("all", nn.PReLU(8)))}
    assert {name: getattr(step, "per_channel", None) for name, step in varies.items()} == {"one": False, "all": True}


def test_a_table_knows_that_it_is_never_negative() -> None:
    functions: list[tuple[Odd, bool]] = [
        (torch.sigmoid, True), (lambda x: x.square() + 1, True), (lambda x: x.abs() * 2, True), (lambda x: x * x, True),
        (functional.silu, False), (lambda x: x.abs() - 1, False), (torch.tanh, False),
    ]  # fmt: skip
    for function, positive in functions:
        (step,) = read(Net(function)).steps[1:]
        assert step.positive == positive


@pytest.mark.parametrize(("odd", "ceiling"), [
    (nn.ReLU(), None), (nn.ReLU6(), 6), (nn.Hardtanh(0, 6), 6), (lambda x: x.clamp(0, 2), 2),
    (lambda x: x.clamp(min=0), None),
    (lambda x: torch.relu(x * 2 + 1), None), (lambda x: torch.relu(-x * CONSTANTS), None),
    (nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.ReLU6()), 6),
])  # fmt: skip
def test_what_a_layer_can_do_itself_is_part_of_it(odd: Odd, ceiling: float | None) -> None:
    (step,) = read(Net(odd)).steps
    assert isinstance(step, steps.Layer)
    assert step.activation == steps.Activation(True, ceiling)


@pytest.mark.parametrize(("odd", "found"), [
    (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8), nn.ReLU()), "Layer"),
    (lambda x: torch.relu(x) * CONSTANTS + 1, "Layer"),
    (lambda x: torch.relu(x) * 2 + 1, "Table"),
    (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(1152)), "Flatten Reshape Layer Flatten"),
])  # fmt: skip
def test_constants_per_channel_alone_are_a_pinned_depthwise_layer(odd: Odd, found: str) -> None:
    assert kinds(odd) == found
    layers = [step for step in read(Net(odd)).steps[1:] if isinstance(step, steps.Layer)]
    assert all(layer.pinned and layer.groups == len(layer.weight) for layer in layers)


def test_constants_that_differ_from_position_to_position_are_refused() -> None:
    assert refusal(lambda x: x + torch.arange(12.0)) == (
        "operation 'add' in 'root' must have the same constants at all positions of a channel."
    )


@pytest.mark.parametrize(("odd", "found"), [
    (nn.AvgPool2d(3, 2, 1), "AveragePool"),
    (nn.AvgPool2d(3, 2, 1, ceil_mode=True), "AveragePool"),
    (nn.AvgPool2d((3, 2), (2, 1), 1, ceil_mode=True, count_include_pad=False), "AveragePool"),
    (nn.AvgPool2d(5, 3, 2, True, True, 7), "AveragePool"),
    (lambda x: functional.avg_pool2d(x, 2, 2, 0, False, True, 1), "AveragePool"),
    (lambda x: functional.avg_pool2d(input=x, kernel_size=2, divisor_override=3), "AveragePool"),
    (nn.AdaptiveAvgPool2d(6), "AveragePool"),
    (nn.AdaptiveAvgPool2d(5), "Take Take AveragePool"),
    (nn.AdaptiveAvgPool2d((7, 20)), "Take Take AveragePool"),
    (nn.AdaptiveMaxPool2d(4), "MaxPool"),
    (nn.AdaptiveMaxPool2d((12, 5)), "Take MaxPool"),
    (nn.MaxPool2d(3, 2, 1, ceil_mode=True), "MaxPool"),
    (nn.MaxPool2d(3, 2, 0, 2), "MaxPool"),
    (lambda x: x.mean((2, 3)), "AveragePool Flatten"),
    (lambda x: x.mean((2, 3), keepdim=True), "AveragePool"),
    (lambda x: x.mean(3).mean(2), "AveragePool Reshape AveragePool Flatten"),
    (lambda x: x.mean(1), "Reshape AveragePool Reshape"),
    (lambda x: x.sum((-1, -2)), "AveragePool Flatten"),
    (lambda x: x.amax((2, 3)), "MaxPool Flatten"),
    (nn.LPPool2d(2, 2), "Table AveragePool Table"),
])  # fmt: skip
def test_pools_of_every_kind_are_read(odd: Odd, found: str) -> None:
    assert kinds(odd) == found


@pytest.mark.parametrize(("odd", "found"), [
    (nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), nn.Conv2d(8, 4, 3, 2)), "Layer"),
    (lambda x: functional.avg_pool2d(functional.pad(x, (0, 1, 0, 1)), 3, 2, 1, count_include_pad=False), "AveragePool"),
    (lambda x: functional.max_pool2d(functional.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2), "MaxPool"),
    (lambda x: functional.max_pool2d(functional.pad(torch.relu(x), (0, 1, 1, 1)), 3, 2), "MaxPool"),
    (lambda x: functional.max_pool2d(functional.pad(x, (0, 1, 1, 1)), 3, 2), "Take Take MaxPool"),
    (lambda x: functional.max_pool2d(functional.pad(torch.relu(x), (0, 3, 0, 0)), 3, 3), "Take MaxPool"),
    (nn.ZeroPad2d((1, 2, 0, 3)), "Take Take"),
    (nn.ReflectionPad2d(2), "Take Take"),
    (nn.ReplicationPad2d((1, 0, 0, 0)), "Take"),
    (nn.CircularPad2d(1), "Take Take"),
    (lambda x: functional.pad(x, (0, 0, 0, 0, 1, 2)), "Take"),
    (lambda x: functional.pad(x, (-1, 1)), "Take"),
    (nn.Conv2d(8, 4, (2, 4), padding="same"), "Layer"),
    (nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect"), "Take Take Layer"),
])  # fmt: skip
def test_padding_is_made_by_what_reads_it_or_moves_numbers(odd: Odd, found: str) -> None:
    assert kinds(odd) == found


def test_padding_with_another_number_is_refused() -> None:
    assert refusal(nn.ConstantPad2d(1, 3.0)) == "module 'odd' (ConstantPad2d) must pad with zeros, but pads with 3.0."
    assert refusal(lambda x: functional.pad(x, (0, 1), value=float("-inf"))) == (
        "operation 'pad' in 'root' pads with less than anything and must be read by a maximum alone."
    )


@pytest.mark.parametrize(("odd", "found"), [
    (lambda x: x[:, 2:6], "Take"),
    (lambda x: x[:, ::2, 1:-1], "Take Take"),
    (lambda x: x[:, [1, 0, 3]], "Take"),
    (lambda x: x.narrow(1, 2, 3), "Take"),
    (lambda x: x.flip(2).roll(1, 3), "Take Take"),
    (lambda x: x[:, -1], "Take Reshape"),
    (lambda x: x.unbind(1)[3], "Take Reshape"),
    (lambda x: torch.add(*x.chunk(2, 1)), "Take Take Add"),
    (lambda x: torch.add(*torch.split(x, [4, 4], 1)), "Take Take Add"),
    (lambda x: x.repeat(1, 2, 1, 1), "Take"),
    (lambda x: x.repeat_interleave(2, 2), "Take"),
    (nn.ChannelShuffle(2), "Take"),
    (lambda x: x.view(len(x), 2, 4, 12, 12).transpose(1, 2).reshape(x.shape), "Reshape Transpose Reshape"),
    (nn.PixelShuffle(2), "Reshape Transpose Reshape"),
    (nn.PixelUnshuffle(2), "Reshape Transpose Reshape"),
    (nn.Upsample(scale_factor=2), "Take Take"),
    (lambda x: functional.interpolate(x, (18, 6)), "Take Take"),
    (nn.Upsample(scale_factor=2, mode="bilinear"), "Take Take AveragePool"),
    (nn.Upsample(scale_factor=(3, 1), mode="bilinear"), "Take AveragePool"),
    (lambda x: x.permute(0, 2, 3, 1), "Transpose"),
    (lambda x: x.unsqueeze(2).squeeze(2), "Reshape Reshape"),
    (lambda x: torch.stack([x, torch.relu(x)], 1), "Rectify Reshape Reshape Concat"),
    (lambda x: torch.cat([x, x[:, :, :2]], 2), "Take Concat"),
])  # fmt: skip
def test_what_moves_numbers_is_read_from_what_it_does(odd: Odd, found: str) -> None:
    assert kinds(odd) == found


@pytest.mark.parametrize(("odd", "found"), [
    (lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), "AveragePool Table Multiply"),
    (lambda x: torch.sigmoid(x.mean((2, 3))).reshape(-1, 8, 1, 1) * x, "AveragePool Flatten Table Reshape Multiply"),
    (lambda x: x * torch.sigmoid(x.mean(1, keepdim=True)), "Reshape AveragePool Table Reshape Take Multiply"),
    (lambda x: torch.relu(x * x.flip(1)), "Take Multiply"),
    (lambda x: x - x.mean((2, 3), keepdim=True), "AveragePool Table Take Take Add"),
    (lambda x: x / (x.flip(1).abs() + 1), "Take Table Multiply"),
])  # fmt: skip
def test_sums_and_products_of_two_tensors_are_read(odd: Odd, found: str) -> None:
    assert kinds(odd) == found


PHASES = "Layer Reshape Transpose Reshape"


@pytest.mark.parametrize(("odd", "found"), [
    (nn.ConvTranspose2d(8, 6, 2, 2), PHASES),
    (nn.Sequential(nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.BatchNorm2d(6), nn.ReLU()), f"{PHASES} Take Take"),
    (nn.ConvTranspose2d(8, 4, (5, 3), (3, 2), (4, 2), groups=2, dilation=(1, 2)), f"{PHASES} Take Take"),
    (nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1), f"{PHASES} Take Take"),
    (nn.ConvTranspose2d(8, 6, 3, 1, 2), "Layer"),
])  # fmt: skip
def test_a_transposed_convolution_is_a_convolution_of_its_phases(odd: Odd, found: str) -> None:
    assert kinds(odd) == found


def test_a_transposed_convolution_multiplies_no_zeros() -> None:
    layer = read(Net(nn.ConvTranspose2d(8, 6, 4, 2, 1))).steps[1]
    assert isinstance(layer, steps.Layer)
    assert layer.weight.shape == (24, 8, 2, 2)


MEAN, DEVIATION = torch.tensor([0.4, 0.5, 0.6]).reshape(3, 1, 1), torch.tensor([0.2, 0.3, 0.25]).reshape(3, 1, 1)


def normalised(x: torch.Tensor) -> torch.Tensor:
    return (x - MEAN) / DEVIATION


@pytest.mark.parametrize(("odd", "found"), [
    (lambda m, x: m.conv(normalised(x)), "Layer"),
    (lambda m, x: m.conv(functional.batch_norm(x, MEAN.flatten().double(), DEVIATION.flatten().double())), "Layer"),
    (lambda m, x: (m.conv(normalised(x)), torch.relu(m.conv(normalised(x)))), "Layer Layer"),
    (lambda m, x: m.conv(functional.pad(normalised(x), (0, 1, 0, 2))), "Layer"),
    (lambda m, x: m.conv(normalised(x)[:, [2, 1, 0]]), "Layer"),
    (lambda m, x: m.conv(torch.cat([x[:, i].unsqueeze(1) * (i + 0.5) + i for i in range(3)], 1)), "Layer"),
    (lambda m, x: m.flat(normalised(x).flatten(1)), "Flatten Logits"),
    (lambda m, x: torch.relu(m.flat(x.flatten(1))), "Flatten Layer"),
    (lambda m, x: functional.avg_pool2d(normalised(x), 2), "Layer AveragePool"),
    (lambda m, x: torch.cat([x, m.conv(x)], 1), "Layer Concat"),
])  # fmt: skip
def test_layers_that_read_the_picture_take_in_what_is_done_to_its_channels(odd: Any, found: str) -> None:
    torch.manual_seed(0)
    traced = read(Alone(odd))
    assert " ".join(type(step).__name__ for step in traced.steps) == found
    assert all(step.pinned for step in traced.steps if isinstance(step, steps.Layer))


def test_padded_taps_of_a_normalised_picture_are_its_mean() -> None:
    (step,) = read(Alone(lambda m, x: m.conv(normalised(x)))).steps
    assert isinstance(step, steps.Layer)
    assert step.padding is not None
    assert torch.tensor(step.padding).tolist() == MEAN.flatten().tolist()


def test_convolutions_in_one_dimension_have_one_row() -> None:
    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv1d(3, 4, 3, 2, 1), nn.BatchNorm1d(4), nn.ReLU())
            self.pool, self.up = nn.MaxPool1d(2, ceil_mode=True), nn.ConvTranspose1d(4, 5, 4, 2, 1)
            self.last = nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.up(self.pool(self.first(x)))
            return self.last((y * torch.sigmoid(y.mean(2, keepdim=True)) + y).mean(-1))  # type: ignore[no-any-return]

    found = read(Line(), (3, 43)).steps
    assert [(type(step).__name__, step.shape) for step in found][:4] == [
        ("Reshape", (3, 1, 43)), ("Layer", (4, 1, 22)), ("MaxPool", (4, 1, 11)), ("Layer", (10, 1, 12)),
    ]  # fmt: skip
    assert type(found[-1]) is steps.Logits


def test_a_network_may_be_flat_from_the_start() -> None:
    model = nn.Sequential(nn.Linear(30, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 10))
    first, last = read(model, (30,)).steps
    assert isinstance(first, steps.Layer)
    assert (first.flat, first.pinned) == (True, True)
    assert isinstance(last, steps.Logits)


def test_a_linear_over_the_last_of_several_axes_is_a_convolution() -> None:
    assert kinds(nn.Sequential(nn.Linear(12, 5), nn.ReLU())) == (
        "Reshape Transpose Reshape Layer Reshape Transpose Reshape Rectify"
    )
    assert kinds(lambda x: x.flatten(1) @ torch.ones(1152, 4, dtype=torch.float64)) == "Flatten Logits"


def test_a_network_may_have_several_outputs_of_any_shape() -> None:
    traced = read(Net(lambda x: {"map": torch.relu(x), "codes": x[:, :2], "logits": x.mean((2, 3))}))
    assert traced.outputs == ("relu", "take", "pool.flat")
    assert read(Net(nn.ReLU())).outputs == ("stem",)


def test_a_softmax_at_the_end_is_left_out_and_said() -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(1152, 5))
    for last in (nn.Softmax(1), nn.LogSoftmax(1)):
        traced = read(Net(nn.Sequential(head, last)))
        assert [type(step) for step in traced.steps][-1] is steps.Logits
        name = "softmax" if isinstance(last, nn.Softmax) else "log_softmax"
        assert traced.notes == (
            f"The last step of the network, {name}, is left out: outputs are those before it, in the same order.",
        )
    assert refusal(lambda x: functional.softmax(x, 1) * x) == (
        "operation 'softmax' in 'root' must be the last step, where it is left out."
    )


KNOWN = (
    "prepare rewrites convolutions (also transposed), Linear, batch norm, pools, pointwise functions of one tensor, "
    "sums and products of two, cat, and what moves or rearranges numbers; "
)


@pytest.mark.parametrize(("odd", "sentence"), [
    (nn.LayerNorm(12), KNOWN + "module 'odd' (LayerNorm) is none of them."),
    (nn.GroupNorm(2, 8), KNOWN + "module 'odd' (GroupNorm) is none of them."),
    (lambda x: x.flatten(1).argmax(1), KNOWN + "operation 'argmax' in 'root' is none of them."),
    (
        lambda x: x @ x.transpose(2, 3),
        "operation 'matmul' in 'root' must have weights that are constants, but they are computed from the picture.",
    ),
    (lambda x: x - x.mean(0, keepdim=True), "operation 'mean' in 'root' must keep pictures apart."),
    (lambda x: x.flip(0), "operation 'flip' in 'root' must keep pictures apart."),
    (lambda x: torch.maximum(x, x.flip(1)), "operation 'maximum' in 'root' must be of one tensor and of constants."),
    (
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        "module 'odd' (Upsample) must be by whole numbers, with align_corners False.",
    ),
    (
        lambda x: torch.cat([x, torch.ones(2, 1, 12, 12)], 1),
        "operation 'cat' in 'root' must take tensors that earlier steps made, but takes a constant of shape "
        "(2, 1, 12, 12).",
    ),
])  # fmt: skip
def test_what_cannot_be_read_is_named(odd: Odd, sentence: str) -> None:
    assert refusal(odd) == sentence


def test_an_exported_program_is_read_like_its_module() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 5)).eval()
    names = [step.name for step in read(model).steps]
    program = torch.export.export(model, (torch.zeros(1, *SHAPE),))
    network = prepare(program, NestedConfig(input_shape=SHAPE))
    assert [step.name for step in network.steps] == names
    compare(model, trace(program, SHAPE), SHAPE)
    with pytest.raises(ModelError) as raised:
        trace(program, (3, 12, 12))
    assert str(raised.value) == (
        "a network must take pictures of its input_shape, (3, 12, 12), but was exported for (3, 14, 14)."
    )

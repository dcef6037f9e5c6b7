"""Single passes over bfloat16: against the operations of PyTorch that they replace, and sums against float64."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch

from dqtsim.train import NestedConfig, fused, nested, networks, prepare
from dqtsim.train.controller import sample
from dqtsim.train.fused import fits
from dqtsim.train.integer import Requantizer
from dqtsim.train.loss import task_loss
from dqtsim.train.modules.base import Uniform
from dqtsim.train.nested import Geometry, add_codes, mixed_conv, nest_activation, nested_values, round_codes
from dqtsim.train.rules import ACTIVATION_RULES, ActivationRule

T = TypeVar("T")
PASSES = ("nest", "normalised", "normalised_backward", "add", "add_backward", "affine", "affine_backward",
          "differences")  # fmt: skip
WIDTHS = (2, 4, 8)
# Neither whole blocks nor whole tiles, but a multiple of 32: torch rounds the last few elements of an add otherwise.
AWKWARD = (5, 17, 32, 29)


def both(compute: Callable[[], T]) -> tuple[T, T]:
    """What `compute` gives with the single passes, and with PyTorch's operations."""
    mine = compute()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "fits", lambda *tensors: False)
        return mine, compute()


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.bfloat16().contiguous(memory_format=torch.channels_last)


def normal(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> torch.Tensor:
    x = channels_last(torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale)
    assert fits(x)
    return x


def random_codes(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return channels_last(torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two bfloat16 tensors are the same bits, but for the sign of a zero, which torch's rounding leaves."""
    return one.dtype == other.dtype == torch.bfloat16 and torch.equal(one, other)


def near(found: torch.Tensor, terms: torch.Tensor, dims: tuple[int, ...] | None = None, limit: float = 1e-5) -> bool:
    """Whether `found` is the sum of float64 `terms`, as near as `limit` of the sum of their absolute values."""
    dims = tuple(range(terms.dim())) if dims is None else dims
    return bool(((found.double() - terms.sum(dims)).abs() <= limit * terms.abs().sum(dims)).all())


def masked(grad: torch.Tensor, codes: torch.Tensor, high: int) -> torch.Tensor:
    return grad.double() * ((codes > 0) & (codes < high))


@pytest.mark.parametrize("rule", ACTIVATION_RULES)
@pytest.mark.parametrize("zero_point", [0, 1, 127, 128, 255])
def test_nesting_is_the_same_bits(rule: ActivationRule, zero_point: int) -> None:
    codes = channels_last(torch.arange(256).reshape(1, 16, 4, 4))
    for width in range(1, 8):
        assert same(*both(partial(nest_activation, codes, width, zero_point, rule))), width


def added(shape: tuple[int, ...], ratios: tuple[float, ...], zeros: Any, high: int) -> tuple[torch.Tensor, ...]:
    a, b = (random_codes(shape, seed).requires_grad_() for seed in (1, 2))
    # The step of the sum is 1, so that a ratio and its gradient are a step's.
    steps = [torch.tensor(ratio, requires_grad=True) for ratio in ratios]
    codes = add_codes(a, b, steps[0], steps[1], torch.tensor(1.0), zeros, high)
    torch.autograd.backward(codes, normal(shape, 3))
    return (codes.detach(), *(t.grad for t in (a, b, *steps) if t.grad is not None))


@pytest.mark.parametrize("shape", [(2, 16, 1, 1), (4, 8, 9, 9), (2, 64, 3, 3), AWKWARD])
@pytest.mark.parametrize(
    ("ratios", "zeros", "high"),
    [((0.95, 0.62), (0, 0, 0), 255), ((0.413, 1.37), (128, 0, 128), 255), ((1.3, 0.4), (60, 50, 0), 201)],
)
def test_an_add_is_the_same_bits_and_its_sums_are_near(shape: Any, ratios: Any, zeros: Any, high: int) -> None:
    mine, theirs = both(lambda: added(shape, ratios, zeros, high))
    codes = mine[0]
    for one, other in zip(mine[:3], theirs[:3], strict=True):
        assert same(one, other)
    assert codes.max() == high
    for i in (0, 1):
        operand = random_codes(shape, i + 1).double()
        terms = masked(normal(shape, 3), codes, high)
        each = torch.stack((terms * operand, -zeros[i] * terms))
        assert near(mine[3 + i], each)
        # PyTorch's products are rounded to bfloat16 before they are added.
        assert near(theirs[3 + i], each, limit=2.0**-8)


@pytest.mark.parametrize("channels", [1, 3, 16, 17, 64, 600])
@pytest.mark.parametrize("high", [255, 190])
def test_an_affine_map_is_the_same_bits(channels: int, high: int) -> None:
    generator = torch.Generator().manual_seed(channels)
    slope = (torch.rand(channels, generator=generator) * 0.1).bfloat16()
    start = (torch.rand(channels, generator=generator) * high).bfloat16()
    for size in (1, 3, 8, 9):
        x = normal((3, channels, size, size), size, 1500)
        plain = round_codes(x * slope[:, None, None] + start[:, None, None], 0, high)
        assert same(fused.affine(x, slope, start, high), plain)


class Mixing:
    """A mixed convolution of few pictures, its inputs, and what each branch comes to."""

    def __init__(
        self, inputs: int, outputs: int, size: int, choice: list[int], geometry: Geometry, high: int = 255,
        zero: int = 0,
    ) -> None:  # fmt: skip
        self.codes = random_codes((len(choice), inputs, size, size), 1)
        self.choice, self.geometry, self.high, self.zero = torch.tensor(choice), geometry, high, zero
        generator = torch.Generator().manual_seed(2)
        shape = (outputs, inputs // geometry.groups, 3, 3)
        self.weights = [torch.randint(-128, 128, shape, generator=generator).bfloat16() for _ in WIDTHS]
        spread = 60 / (128 * 75 * (9 * shape[1]) ** 0.5)
        self.scale = spread * (0.5 + torch.rand((len(WIDTHS), outputs), generator=generator))
        self.offset = 60 + 120 * torch.rand((len(WIDTHS), outputs), generator=generator)
        # Integers times integers, exact in float64, as bfloat16 accumulators.
        operands = [nested_values(self.codes, width, zero, "TIES_UP") for width in WIDTHS]
        pairs = zip(operands, self.weights, strict=True)
        self.accumulators = [geometry.convolve(x.double(), w.double()).bfloat16() for x, w in pairs]
        self.grad = normal(tuple(self.accumulators[0].shape), 3)

    def branches(self) -> list[torch.Tensor]:
        scale, offset = (table.bfloat16()[:, :, None, None] for table in (self.scale, self.offset))
        return [round_codes(a * scale[k] + offset[k], 0, self.high) for k, a in enumerate(self.accumulators)]

    def run(self, explore: bool, integers: list[Requantizer] | None = None) -> dict[str, torch.Tensor]:
        x, scale, offset = (t.clone().requires_grad_() for t in (self.codes, self.scale, self.offset))
        weights = [w.clone().requires_grad_() for w in self.weights]
        probabilities = torch.zeros((len(x), len(WIDTHS))).requires_grad_()
        output = mixed_conv(
            x, probabilities, self.choice, weights, scale, offset, widths=WIDTHS, zero_point=self.zero, rule="TIES_UP",
            geometry=self.geometry, high=self.high, explore=explore, integers=integers,
        )  # fmt: skip
        torch.autograd.backward(output, self.grad)
        leaves = {"codes": x, "scale": scale, "offset": offset, "probabilities": probabilities}
        leaves |= {f"weight {k}": weight for k, weight in enumerate(weights)}
        return {"output": output.detach()} | {name: t.grad for name, t in leaves.items() if t.grad is not None}

    def picked(self, branches: list[torch.Tensor]) -> torch.Tensor:
        return channels_last(torch.stack(branches, 1)[torch.arange(len(self.choice)), self.choice])


PAD, STRIDED = Geometry(padding=(1, 1)), Geometry((2, 2), (1, 1))
MIXINGS: dict[str, tuple[Any, ...]] = {
    "all chosen": (16, 16, 8, [0, 1, 2, 0, 1], PAD),
    "one not chosen": (3, 17, 9, [0, 2, 2, 0], PAD),
    "one for all": (17, 64, 3, [1, 1, 1], PAD),
    "the first for nobody, ReLU6": (64, 3, 8, [2, 1, 2], PAD, 190),
    "stride": (16, 17, 9, [2, 1, 0], STRIDED, 255, 128),
    "one picture, one channel": (1, 1, 3, [1], PAD, 255, 113),
    "one pixel": (16, 3, 1, [0, 1, 2, 1], PAD, 201),
    "one pixel, one channel": (3, 1, 1, [2, 0, 2], PAD),
    "groups": (16, 32, 8, [0, 1, 1, 2], Geometry(padding=(1, 1), groups=4)),
    "depthwise, stride": (17, 17, 9, [1, 0, 2], Geometry((2, 2), (1, 1), groups=17), 190, 1),
}


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("name", MIXINGS)
def test_a_mixed_convolution_is_the_same_bits_and_its_sums_are_near(name: str, explore: bool) -> None:
    mixing = Mixing(*MIXINGS[name])
    mine, theirs = both(lambda: mixing.run(explore))
    branches, grad = mixing.branches(), mixing.grad
    result = mixing.picked(branches)
    assert torch.equal(mine["output"], result)
    assert 0 < result.float().mean() < mixing.high
    for key in ("output", "codes", *(f"weight {k}" for k in range(len(WIDTHS)))):
        assert same(mine[key], theirs[key]), key
    for k, branch in enumerate(branches):
        index = (mixing.choice == k).nonzero().squeeze(1)
        through = masked(grad, branch, mixing.high)[index]
        products = through * mixing.accumulators[k][index].double()
        for sums, limit in ((mine, 1e-5), (theirs, 2.0**-8)):
            assert near(sums["offset"][k], through, (0, 2, 3))
            assert near(sums["scale"][k], products, (0, 2, 3), limit)
        if explore:
            terms = (grad * (branch - result)).double()  # products that are rounded to bfloat16 on both ways
            assert near(mine["probabilities"][:, k], terms, (1, 2, 3))
            assert near(theirs["probabilities"][:, k], terms, (1, 2, 3))
    assert ("probabilities" in mine) == explore


@pytest.mark.parametrize("explore", [True, False])
def test_an_integer_exact_mixed_convolution_has_the_integers_codes(explore: bool) -> None:
    mixing = Mixing(16, 17, 9, [0, 2, 2, 0], STRIDED, 201)
    bias, multiplier, shift = (torch.full((17,), value) for value in (20_000, 40_000, 24))
    integers = [Requantizer(bias, multiplier, shift, zero_point=0, high=mixing.high) for _ in WIDTHS]
    mine, theirs = both(lambda: mixing.run(explore, integers))
    operands = [nested_values(mixing.codes, width, 0, "TIES_UP").double() for width in WIDTHS]
    sums = [mixing.geometry.convolve(x, w.double()) for x, w in zip(operands, mixing.weights, strict=True)]
    codes = [rule.codes(accumulator).bfloat16() for rule, accumulator in zip(integers, sums, strict=True)]
    assert torch.equal(mine["output"], mixing.picked(codes))
    assert 0 < mine["output"].float().mean() < mixing.high
    for key in ("output", "codes", "weight 0", "weight 1", "weight 2"):
        assert same(mine[key], theirs[key]), key


class Norm:
    """A batch to normalise: channels far from 0, narrow, dead, and one that begins unlike the rest."""

    zero_point, step = 100, 0.02

    def __init__(self, shape: tuple[int, ...], high: int) -> None:
        x = normal(shape, 1, 1000).float()
        if shape[1] > 3:
            x[:, 0] += 20_000
            x[:, 1] *= 1e-3
            x[:, 2] = 77
            x[0, 3] = 5000
        self.x, self.high = channels_last(x), high
        generator = torch.Generator().manual_seed(2)
        self.gamma = 0.2 + torch.rand(shape[1], generator=generator)
        self.beta = torch.randn(shape[1], generator=generator)
        self.grad = normal(shape, 3)

    def run(self) -> tuple[torch.Tensor, ...]:
        leaves = [t.clone().requires_grad_() for t in (self.x, self.gamma, self.beta, torch.tensor(self.step))]
        x, gamma, beta, step = leaves
        codes, mean, variance = nested.quantize_normalised(x, gamma, beta, step, self.zero_point, self.high)
        torch.autograd.backward(codes, self.grad)
        return (codes.detach(), mean, variance, *(t.grad for t in leaves if t.grad is not None))

    def whitened(self) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.x.double()
        inverse = (x.var((0, 2, 3), correction=0) + nested.NORM_EPSILON).rsqrt()[:, None, None]
        return (x - x.mean((0, 2, 3))[:, None, None]) * inverse, inverse

    def values(self) -> torch.Tensor:
        gamma, beta = (t.double()[:, None, None] for t in (self.gamma, self.beta))
        return self.whitened()[0] * gamma + beta


NORMS = [((8, 16, 25, 25), 255), ((8, 17, 23, 23), 190), ((4, 3, 64, 64), 255), ((3, 600, 9, 9), 255),
         ((64, 1, 3, 3), 255)]  # fmt: skip


@pytest.mark.parametrize(("shape", "high"), NORMS)
def test_batch_norm_is_near_float64(shape: tuple[int, ...], high: int) -> None:
    """Not the same bits: statistics are added in another order, which moves a value across a rounding edge rarely."""
    norm = Norm(shape, high)
    (mine, *statistics), (theirs, *_) = both(lambda: norm.run()[:3])
    few = mine.numel() // 10_000 + 1
    assert (mine != theirs).sum() <= few
    assert (mine - theirs).abs().max() <= 1
    exact = (norm.values() / norm.step + norm.zero_point).clamp(0, high)
    assert (mine - exact.round()).abs().max() <= 1
    # Nearly all are float64's value rounded to bfloat16 and then to a code, and no fewer than PyTorch's are.
    rounded = round_codes(exact.bfloat16(), 0, high)
    assert (mine != rounded).sum() <= (theirs != rounded).sum() + few
    assert (mine != rounded).sum() <= 2 * few
    variance, mean = torch.var_mean(norm.x.double(), (0, 2, 3), correction=0)
    assert torch.allclose(statistics[0].double(), mean, rtol=1e-6, atol=1e-3)
    assert torch.allclose(statistics[1].double(), variance, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("shape", "high"), NORMS)
def test_the_gradients_of_batch_norm_are_near_float64(shape: tuple[int, ...], high: int) -> None:
    norm = Norm(shape, high)
    white, inverse = norm.whitened()
    for (codes, _, _, *found), limit in zip(both(norm.run), (1e-5, 2.0**-8), strict=True):
        to_x, to_gamma, to_beta, to_step = found
        through = masked(norm.grad, codes, high)
        assert near(to_beta, through / norm.step, (0, 2, 3), limit)
        assert near(to_gamma, through * white / norm.step, (0, 2, 3), limit)
        assert near(to_step, -through * norm.values() / norm.step**2, limit=limit)
        centred = through - through.mean((0, 2, 3), keepdim=True)
        expected = (centred - white * (through * white).mean((0, 2, 3), keepdim=True)) * inverse
        expected *= norm.gamma.double()[:, None, None] / norm.step
        error = (to_x.double() - expected).abs()
        # One rounding to bfloat16; and what sums leave of float32's where terms cancel.
        assert bool((error <= 2.0**-8 * expected.abs() + 1e-5 * expected.abs().max()).all())


@pytest.mark.parametrize("high", [255, 190])
def test_the_gradient_of_batch_norm_passes_exactly_where_its_codes_are_inside(high: int) -> None:
    """It makes the codes' edges again from the accumulators."""
    norm = Norm(AWKWARD, high)
    norm.grad = torch.ones_like(norm.x)
    codes, _, _, _, _, to_beta, _ = norm.run()
    inside = ((codes > 0) & (codes < high)).sum((0, 2, 3))
    assert 0 < inside.sum() < codes.numel()
    assert torch.equal(to_beta, inside / torch.tensor(norm.step))


@pytest.mark.parametrize("code", [1, 2, 3, 64, 127, 128, 129, 190, 254, 255])
def test_thresholds_are_the_edges_of_codes(code: int) -> None:
    edge = torch.tensor(float(fused._threshold(code)))
    edges = torch.stack((edge.nextafter(torch.tensor(0.0)), edge))
    assert round_codes(edges.bfloat16(), 0, 255).tolist() == [code - 1, code]


def everything() -> list[torch.Tensor]:
    """Every pass on awkward sizes, with an empty selection among them."""
    x, codes, grad = normal(AWKWARD, 1, 900), random_codes(AWKWARD, 2), normal(AWKWARD, 3)
    gamma, beta = torch.linspace(10, 90, 17), torch.linspace(0, 200, 17)
    slope, index = (gamma / 900).bfloat16(), torch.tensor([4, 0, 2])
    normalised = fused.normalised(x, gamma, beta, nested.NORM_EPSILON, 255)
    found = [fused.nest(codes, 3, 113, "TIES_UP"), *normalised, fused.affine(x, slope, beta.bfloat16(), 255)]
    found += fused.normalised_backward(grad, x, gamma, beta, *normalised[1:], 255)
    found += [fused.add(codes, x, 0.7, 0.05, 10.5, 255), fused.differences(grad, codes, normalised[0])]
    found += fused.add_backward(grad, codes, codes, x, 0.7, 0.05, 255)
    for chosen in (index, index[:0]):
        some, values = (t.permute(0, 2, 3, 1)[chosen].permute(0, 3, 1, 2) for t in (codes, x))
        found += fused.affine_backward(grad, chosen, some, values, slope, 255)
    return found


@pytest.mark.parametrize("threads", [2, 3])
def test_no_bit_depends_on_the_number_of_threads(threads: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = everything()
        torch.set_num_threads(threads)
        shared = everything()
    finally:
        torch.set_num_threads(before)
    for i, (one, other) in enumerate(zip(alone, shared, strict=True)):
        assert torch.equal(one, other), i
        assert bool(one.isfinite().all())


def test_an_empty_selection_comes_to_nothing() -> None:
    none, table = random_codes((4, 17, 5, 5), 1)[:0], torch.ones(17, dtype=torch.bfloat16)
    index, grad = torch.tensor([], dtype=torch.int64), normal((4, 17, 5, 5), 2)
    to_x, *sums = fused.affine_backward(grad, index, none, none, table, 255)
    for found in (fused.nest(none, 2, 128, "FLOOR"), fused.affine(none, table, table, 255), to_x):
        assert found.shape == none.shape
    assert [found.tolist() for found in sums] == [[0.0] * 17] * 2


def test_what_does_not_fit_takes_the_operations_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = random_codes((2, 16, 3, 3), 1)
    assert fits(codes, codes[:1, :, :1, :1].contiguous())
    others = [codes.float(), codes.contiguous(), codes[:, :, 1:], codes.reshape(2, -1), codes.to("meta")]
    for name in PASSES:
        monkeypatch.setattr(fused, name, None)
    for x in others:
        assert not fits(x)
        assert not fits(codes, x)
        assert nest_activation(x, 4, 128, "TIES_UP").shape == x.shape
        one, step = x.detach().requires_grad_(), torch.tensor(0.7, requires_grad=True)
        summed = add_codes(one, x, step, step, torch.tensor(1.0), (0, 0, 0))
        if x.device.type == "cpu":
            torch.autograd.backward(summed, torch.ones_like(summed))
        if x.dim() == 4:
            leaf, table = x.detach().requires_grad_(), torch.ones(16, device=x.device)
            normed, _, _ = nested.quantize_normalised(leaf, table, table, torch.tensor(0.02, device=x.device), 128, 255)
            torch.autograd.backward(normed, torch.ones_like(normed))
            assert leaf.grad is not None


def test_training_steps_in_bfloat16_take_the_single_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(name: str, original: Callable[..., Any], *arguments: Any) -> Any:
        calls.append(name)
        return original(*arguments)

    for name in PASSES:
        monkeypatch.setattr(fused, name, partial(counted, name, getattr(fused, name)))
    torch.manual_seed(0)
    images, labels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.arange(4)
    network = prepare(networks.build("resnet8", 4, 0.5), NestedConfig())
    network.set_steps(images)
    controller = network.new_controller()
    with torch.no_grad():
        controller.calibrate(network.features(images))
    network.train()
    # Nine convolutions and three adds; what is behind the first convolution reads nested codes.
    stem = network.features(images, torch.bfloat16)
    torch.autograd.backward(task_loss(network.head(stem, Uniform(0)), labels, 0.0))
    uniform = {name: calls.count(name) for name in PASSES}
    assert uniform | {"nest": 0} == dict.fromkeys(PASSES, 0) | {
        "normalised": 9, "normalised_backward": 9, "add": 3, "add_backward": 3,
    }  # fmt: skip
    assert uniform["nest"] >= 8
    calls.clear()
    stem = network.features(images, torch.bfloat16)
    mixed = sample(controller(stem), 1.0, torch.Generator().manual_seed(0))
    torch.autograd.backward(task_loss(network.head(stem, mixed), labels, 0.0))
    assert calls.count("affine") == calls.count("differences") == 8 * len(network.rules.candidates)
    assert 8 <= calls.count("affine_backward") <= calls.count("affine")
    assert calls.count("nest") >= 8 * 2

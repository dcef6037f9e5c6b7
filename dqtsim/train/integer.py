"""The exact integer path: the trainer's own reading of the law, for golden vectors.

It shares no arithmetic with the rest of dqtsim nor with the fake quantization beside it. Integers are int64;
multiply-accumulates run on floats whose mantissa provably holds every partial sum.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional

_MASTER = 8


@dataclass(frozen=True)
class Rows:
    """B3': bias, multiplier, shift int64 [R, O], one row per entry of the ascending `widths`."""

    widths: tuple[int, ...]
    bias: torch.Tensor
    multiplier: torch.Tensor
    shift: torch.Tensor

    def index(self, width_w: int, width_a: int) -> int:
        """The first row whose width is at least min(b_w, b_a), else the last."""
        fitting = [row for row, width in enumerate(self.widths) if width >= min(width_w, width_a)]
        return fitting[0] if fitting else len(self.widths) - 1


@dataclass(frozen=True)
class Grid:
    """A tensor's zero point, real step and the clip [low, high] of its codes."""

    zero_point: int
    scale: float
    low: int = 0
    high: int = 255


@dataclass(frozen=True)
class Layer:
    """A convolution ([O, I, k, k] weights) or fully connected layer ([O, I]); without `grid` its output is A + B."""

    name: str
    source: str
    weight: torch.Tensor
    weight_scale: torch.Tensor
    rows: Rows
    grid: Grid | None
    stride: int = 1
    padding: int = 0
    pinned: tuple[int, int] | None = None
    controller: bool = False


@dataclass(frozen=True)
class Add:
    """B5, with the multipliers of both sides and their common shift."""

    name: str
    sources: tuple[str, str]
    multipliers: tuple[int, int]
    shift: int
    grid: Grid


@dataclass(frozen=True)
class Pool:
    """B6: average over windows [h, w] that tile the picture."""

    name: str
    source: str
    window: tuple[int, int]
    multiplier: int
    shift: int
    grid: Grid


@dataclass(frozen=True)
class Flatten:
    """Codes [N, C, H, W] to [N, C*H*W]."""

    name: str
    source: str


Operator = Layer | Add | Pool | Flatten


@dataclass(frozen=True)
class IntegerNetwork:
    """A folded network: operators in order, all integers. `decision` names the controller's logits."""

    input_name: str
    input_grid: Grid
    input_shape: tuple[int, int, int]
    operators: tuple[Operator, ...]
    weight_rule: str
    activation_rule: str
    candidates: tuple[tuple[int, int], ...]
    decision: str
    output: str

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in the order of the rows of `bits`; the controller's own are not among them."""
        return tuple(op for op in self.operators if isinstance(op, Layer) and not op.controller)

    def needed(self, decided: bool) -> tuple[Operator, ...]:
        """The operators that the output depends on; the controller's only where widths are not `decided` already."""
        wanted = {self.output} if decided else {self.output, self.decision}
        kept: list[Operator] = []
        for operator in reversed(self.operators):
            if operator.name in wanted:
                kept.append(operator)
                wanted |= set(operator.sources if isinstance(operator, Add) else (operator.source,))
        return tuple(reversed(kept))


def nest(codes: torch.Tensor, width: int, rule: str) -> torch.Tensor:
    """A1-A3: master codes, int64, to codes of `width` bits."""
    dropped = _MASTER - width
    if dropped == 0:
        return codes
    kept = codes >> dropped
    if rule != "TIES_UP":
        return kept
    first_dropped_bit = (codes >> (dropped - 1)) & 1
    return torch.clamp(kept + first_dropped_bit, max=2**width - 1)


def operand(codes: torch.Tensor, width: int, zero_point: int, rule: str) -> tuple[torch.Tensor, int]:
    """A4, A5: the signed operand s, int64, and its exponent e."""
    zero = int(nest(torch.tensor(zero_point), width, rule))
    signed = nest(codes, width, rule) - zero
    exponent = _MASTER - width
    if rule == "MIDPOINT" and exponent > 0:
        return 2 * signed + 1, exponent - 1
    return signed, exponent


def requantize(value: torch.Tensor, multiplier: torch.Tensor, shift: torch.Tensor, grid: Grid) -> torch.Tensor:
    """B4: int64 `value` [N, O, ...], int64 multiplier and shift [O] or [], to codes uint8; S = 0 adds nothing."""
    dimensions = [1] * (value.dim() - 2)
    m = multiplier.reshape(-1, *dimensions) if multiplier.dim() else multiplier
    s = shift.reshape(-1, *dimensions) if shift.dim() else shift
    half = torch.where(s > 0, torch.ones_like(s) << torch.clamp(s - 1, min=0), torch.zeros_like(s))
    scaled = (value * m + half) >> s
    return torch.clamp(scaled + grid.zero_point, grid.low, grid.high).to(torch.uint8)


def accumulate(layer: Layer, s_a: torch.Tensor, s_w: torch.Tensor) -> torch.Tensor:
    """B1: the raw accumulator P, int64, of operands s_a [N, ...] and s_w [O, ...]; padded taps add 0.

    Every partial sum is an integer of at most max|s_a| * sum|s_w|, so a float type whose mantissa holds that is exact.
    """
    largest = int(s_w.abs().flatten(1).sum(1).max()) * int(s_a.abs().max())
    exact = torch.float32 if largest < 2**24 else torch.float64
    a, w = s_a.to(exact), s_w.to(exact)
    if w.dim() == 4:
        return functional.conv2d(a, w, None, layer.stride, layer.padding).to(torch.int64)
    return functional.linear(a, w).to(torch.int64)


def run(
    network: IntegerNetwork, codes: torch.Tensor, bits: torch.Tensor | None = None
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """All named tensors of input codes uint8 [N, C, H, W], and the widths used, int64 [N, layers, 2].

    Codes are uint8; `<layer>.acc` (P, B1) and the outputs of layers without a grid (A + B, B7) are int32. `bits`,
    int64 [layers, 2] or [N, layers, 2], replaces what the controller would decide, and the controller does not run.
    """
    tensors = {network.input_name: codes}
    grids = {network.input_name: network.input_grid}
    order = {layer.name: row for row, layer in enumerate(network.layers)}
    used = torch.full((len(codes), len(order), 2), _MASTER, dtype=torch.int64)
    for row, layer in enumerate(network.layers):
        if layer.pinned is not None:
            used[:, row] = torch.tensor(layer.pinned)
    if bits is not None:
        used[:] = bits
    for operator in network.needed(decided=bits is not None):
        if isinstance(operator, Layer):
            widths = used[:, order[operator.name]] if operator.name in order else torch.full((len(codes), 2), _MASTER)
            _run_layer(network, operator, tensors, grids[operator.source], widths)
            if operator.name == network.decision:
                _decide(network, tensors[operator.name], used)
        elif isinstance(operator, Add):
            tensors[operator.name] = _run_add(operator, tensors, grids)
        elif isinstance(operator, Pool):
            tensors[operator.name] = _run_pool(operator, tensors[operator.source], grids[operator.source])
        else:
            tensors[operator.name] = tensors[operator.source].flatten(1)
            grids[operator.name] = grids[operator.source]
            continue
        if operator.grid is not None:
            grids[operator.name] = operator.grid
    return tensors, used


def _run_layer(
    network: IntegerNetwork, layer: Layer, tensors: dict[str, torch.Tensor], grid: Grid, widths: torch.Tensor
) -> None:
    """B1-B4 (or B7) at each sample's widths int64 [N, 2], one group of samples per pair of widths."""
    codes, weight = tensors[layer.source].to(torch.int64), layer.weight.to(torch.int64)
    pairs, group = torch.unique(widths, dim=0, return_inverse=True)
    accumulators: torch.Tensor | None = None
    results: torch.Tensor | None = None
    for number, (width_w, width_a) in enumerate(pairs.tolist()):
        members = (group == number).nonzero().squeeze(1)
        s_w, e_w = operand(weight, width_w, 2 ** (_MASTER - 1), network.weight_rule)
        s_a, e_a = operand(codes[members], width_a, grid.zero_point, network.activation_rule)
        p = accumulate(layer, s_a, s_w)
        row = layer.rows.index(width_w, width_a)
        bias = layer.rows.bias[row].reshape(-1, *([1] * (p.dim() - 2)))
        total = p * 2 ** (e_w + e_a) + bias
        if layer.grid is None:
            y = total.to(torch.int32)
        else:
            y = requantize(total, layer.rows.multiplier[row], layer.rows.shift[row], layer.grid)
        if accumulators is None or results is None:
            accumulators = torch.empty((len(codes), *p.shape[1:]), dtype=torch.int32)
            results = torch.empty((len(codes), *y.shape[1:]), dtype=y.dtype)
        accumulators[members], results[members] = p.to(torch.int32), y
    if accumulators is not None and results is not None:
        tensors[f"{layer.name}.acc"], tensors[layer.name] = accumulators, results


def _run_add(add: Add, tensors: Mapping[str, torch.Tensor], grids: Mapping[str, Grid]) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.int64)
    for source, multiplier in zip(add.sources, add.multipliers, strict=True):
        total = total + (tensors[source].to(torch.int64) - grids[source].zero_point) * multiplier
    return requantize(total, torch.tensor(1), torch.tensor(add.shift), add.grid)


def _run_pool(pool: Pool, codes: torch.Tensor, grid: Grid) -> torch.Tensor:
    height, width = pool.window
    count, channels, rows, columns = codes.shape
    windows = (codes.to(torch.int64) - grid.zero_point).reshape(
        count, channels, rows // height, height, columns // width, width
    )
    return requantize(windows.sum((3, 5)), torch.tensor(pool.multiplier), torch.tensor(pool.shift), pool.grid)


def _decide(network: IntegerNetwork, logits: torch.Tensor, used: torch.Tensor) -> None:
    """B8: argmax over candidates, lowest index on a tie, into the rows of layers that are not pinned."""
    free = [row for row, layer in enumerate(network.layers) if layer.pinned is None]
    table = logits.reshape(len(logits), len(free), len(network.candidates))
    top = (table == table.max(2, keepdim=True).values).to(torch.int64)
    used[:, free] = torch.tensor(network.candidates)[top.argmax(2)]


def run_batches(
    network: IntegerNetwork,
    images: torch.Tensor,
    bits: torch.Tensor | None = None,
    size: int = 250,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes int64 [N] (B7, lowest index on a tie) and widths int64 [N, layers, 2] of many pictures."""
    classes, widths = [], []
    for start in range(0, len(images), size):
        tensors, used = run(network, images[start : start + size], bits)
        logits = tensors[network.output]
        classes.append((logits == logits.max(1, keepdim=True).values).to(torch.int64).argmax(1))
        widths.append(used)
        progress(min(start + size, len(images)))
    return torch.cat(classes), torch.cat(widths)

"""Chains of elementwise operations, each in one pass through memory, for the CPU.

Only for bfloat16 tensors [N, C, H, W] in channels-last layout (`fits`); for others, the operations of PyTorch in
`nested.py` are used. The values are the same bit for bit except the sign of a zero, elementwise gradients included.
Sums may be added in another order, and batch norm's codes depend on them; nothing depends on the number of threads.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
import numpy.typing as npt
import torch

from dqtsim.train.rules import MASTER_WIDTH, ActivationRule, nested_zero

if TYPE_CHECKING:
    from dqtsim.train.fused.kernels import Bits, Reals

# The approximate length of a tile: enough for vectors, and several tiles fit into the first-level cache.
_TILE = 512
# The number of pixels whose mean is near the mean of all.
_FEW = 256


def fits(*tensors: torch.Tensor) -> bool:
    """Whether all `tensors` have the type and layout that is computed here."""
    return all(
        t.dtype == torch.bfloat16 and t.device.type == "cpu" and t.dim() == 4 and _channels_last(t).is_contiguous()
        for t in tensors
    )


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)


def _bits(x: torch.Tensor) -> "Bits":
    """The memory of a tensor [N, C, H, W] that `fits`: uint16 [N*H*W*C]."""
    bits: Bits = _channels_last(x.detach()).reshape(-1).view(torch.uint16).numpy()
    return bits


def _table(table: torch.Tensor) -> "Reals":
    """A table as float32 [C] in NumPy, which is faster than PyTorch for few numbers."""
    reals: Reals = table.detach().numpy()
    return reals


def _tile(table: npt.NDArray[np.floating]) -> "Reals":
    """A table [C], repeated, float32."""
    return np.tile(table.astype(np.float32, copy=False), max(1, _TILE // len(table)))


def _code_bits(code: int) -> np.uint16:
    return np.uint16(np.float32(code).view(np.uint32) >> 16)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "dqtsim-fused")


def _spread(kernel: Callable[..., None], count: int, *arguments: Any) -> None:
    """Run `kernel` on blocks 0 to `count` - 1, on as many threads as PyTorch uses."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        kernel(0, count, *arguments)
        return
    edges = [count * i // threads for i in range(threads + 1)]
    parts = [_pool(threads).submit(kernel, *edges[i : i + 2], *arguments) for i in range(threads)]
    for part in parts:
        part.result()


def _blocks(bits: "Bits", block: int) -> int:
    return -(-len(bits) // block)


def nest(codes: torch.Tensor, width: int, zero_point: int, rule: ActivationRule) -> torch.Tensor:
    """`nested_values` for a width below 8."""
    from dqtsim.train.fused import kernels

    k = MASTER_WIDTH - width
    match rule:
        case "TIES_UP":
            half, top = 2.0 ** (k - 1), 2.0**width - 1
        case "FLOOR":
            half, top = 0.0, np.inf
        case _:
            assert_never(rule)
    out = torch.empty_like(codes)
    source = _bits(codes)
    numbers = (half, 2.0**-k, top, nested_zero(zero_point, width, rule), 2.0**k)
    _spread(kernels.nest, _blocks(source, kernels.BLOCK), source, _bits(out), *map(np.float32, numbers))
    return out


@cache
def _threshold(code: int) -> np.float32:
    """The least float32 whose bfloat16 rounds to `code` or more."""
    below, above = 0, int(np.float32(code).view(np.int32))
    while above - below > 1:
        middle = (below + above) // 2
        value = torch.tensor(middle, dtype=torch.int32).view(torch.float32).bfloat16()
        below, above = (middle, above) if value.round() < code else (below, middle)
    return np.int32(above).view(np.float32)


def _affine(gamma: "Reals", beta: "Reals", mean: "Reals", scale: "Reals") -> tuple["Reals", "Reals"]:
    """Tiles of the slope and start of a normalisation; `scale` is 1 / deviation."""
    slope = scale * gamma
    return _tile(slope), _tile(beta - mean * slope)


def normalised(
    x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, epsilon: float, high: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes of gamma * (x - mean) / deviation + beta under batch statistics, the mean, and 1 / deviation: float32 [C].

    `gamma` and `beta` are float32 [C]; `epsilon` is added to the variance.
    """
    from dqtsim.train.fused import kernels

    source, channels, out = _bits(x), x.shape[1], torch.empty_like(x)
    # Sums of squares are accurate if values are taken relative to about the mean, which a few pixels give well enough.
    near = kernels.widened(source[: _FEW * channels]).reshape(-1, channels).mean(0)
    shift = _tile(near)
    blocks = _blocks(source, kernels.TILES * len(shift))
    sums = np.zeros((blocks, 2, channels))
    _spread(kernels.moments, blocks, source, shift, sums)
    first, second = sums.sum(0) / (len(source) // channels)
    mean = (near + first).astype(np.float32)
    scale = (1 / np.sqrt(np.maximum(second - np.square(first), 0) + epsilon)).astype(np.float32)
    tiles = _affine(_table(gamma), _table(beta), mean, scale)
    _spread(kernels.normalise, blocks, source, *tiles, np.float32(high), _bits(out))
    return out, torch.from_numpy(mean), torch.from_numpy(scale)


def normalised_backward(
    grad: torch.Tensor, x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, mean: torch.Tensor,
    scale: torch.Tensor, high: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of x, gamma and beta of `normalised` from those of its codes; `scale` is 1 / deviation."""
    from dqtsim.train.fused import kernels

    channels, out = x.shape[1], torch.empty_like(x)
    slope, offset, centre, inverse = map(_table, (gamma, beta, mean, scale))
    arguments = _bits(grad), _bits(x), *_affine(slope, offset, centre, inverse), _threshold(1), _threshold(high)
    middle = _tile(centre)
    blocks, count = _blocks(arguments[0], kernels.TILES * len(middle)), x.numel() // channels
    sums = np.zeros((blocks, 2, channels))
    _spread(kernels.masked_moments, blocks, *arguments, middle, sums)
    total, product = sums.sum(0)
    # (g - total / count - (x - mean) * scale^2 * product / count) * scale * gamma, sorted by g and x
    factor = inverse.astype(np.float64) * slope / count
    tilt = -factor * product * np.square(inverse)
    tables = _tile(tilt), _tile(-factor * total - tilt * centre)
    _spread(kernels.normalise_backward, blocks, *arguments, *tables, _bits(out))
    to_gamma, to_beta = (torch.from_numpy(part.astype(np.float32)) for part in (product * inverse, total))
    return out, to_gamma, to_beta


def _rounded(value: float) -> np.float32:
    """`value` rounded as PyTorch's bfloat16 operations round a number that is added."""
    return np.float32(torch.tensor(value, dtype=torch.bfloat16).item())


def add(a: torch.Tensor, b: torch.Tensor, ratio_a: float, ratio_b: float, offset: float, high: int) -> torch.Tensor:
    """Codes of ratio_a * a + ratio_b * b - offset."""
    from dqtsim.train.fused import kernels

    out, one = torch.empty_like(a), _bits(a)
    numbers = np.float32(ratio_a), _rounded(ratio_b), _rounded(offset), np.float32(high)
    _spread(kernels.add, _blocks(one, kernels.BLOCK), one, _bits(b), *numbers, _bits(out))
    return out


def add_backward(
    grad: torch.Tensor, codes: torch.Tensor, a: torch.Tensor, b: torch.Tensor, ratio_a: float, ratio_b: float, high: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of a and b of `add` from those of its codes, and sums float64 [3] over the gradients inside the clips.

    The three sums are of the gradients themselves, of gradients times a, and of gradients times b.
    """
    from dqtsim.train.fused import kernels

    to_a, to_b = torch.empty_like(a), torch.empty_like(b)
    bits = _bits(grad)
    blocks = _blocks(bits, kernels.BLOCK)
    sums = np.zeros((blocks, 3))
    arrays = bits, _bits(codes), _bits(a), _bits(b)
    numbers = np.float32(ratio_a), np.float32(ratio_b), _code_bits(high)
    _spread(kernels.add_backward, blocks, *arrays, *numbers, _bits(to_a), _bits(to_b), sums)
    return to_a, to_b, torch.from_numpy(sums.sum(0))


def affine(x: torch.Tensor, slope: torch.Tensor, start: torch.Tensor, high: int) -> torch.Tensor:
    """Codes of x * slope + start, tables [C] that are bfloat16."""
    from dqtsim.train.fused import kernels

    out, source = torch.empty_like(x), _bits(x)
    tiles = _tile(slope.float().numpy()), _tile(start.float().numpy())
    blocks = _blocks(source, kernels.TILES * len(tiles[0]))
    _spread(kernels.affine, blocks, source, *tiles, np.float32(high), _bits(out))
    return out


def affine_backward(
    grad: torch.Tensor, index: torch.Tensor, codes: torch.Tensor, x: torch.Tensor, slope: torch.Tensor, high: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of x, slope and start of `affine`, for `grad` [N, C, H, W] and the pictures `index` int64 [n]."""
    from dqtsim.train.fused import kernels

    out, sums = torch.empty_like(x), np.zeros((len(x), 2, x.shape[1]))
    arrays = _bits(grad), index.numpy(), _bits(codes), _bits(x)
    _spread(kernels.affine_backward, len(x), *arrays, _tile(slope.float().numpy()), _code_bits(high), _bits(out), sums)
    to_slope, to_start = torch.from_numpy(sums.sum(0)).float()
    return out, to_slope, to_start


def differences(grad: torch.Tensor, branch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Sums float32 [N] of grad * (branch - chosen) over each picture."""
    from dqtsim.train.fused import kernels

    sums = np.zeros(len(grad))
    _spread(kernels.differences, len(grad), _bits(grad), _bits(branch), _bits(chosen), sums)
    return torch.from_numpy(sums).float()

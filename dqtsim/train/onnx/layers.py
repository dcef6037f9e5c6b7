"""Convolutions, fully connected layers and batch norm."""

from functools import partial

import numpy as np
import torch
from torch.nn import functional

from dqtsim.train.onnx.call import Call, Handler, Operation, Sizes

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d}


def spatial(call: Call, known: dict[int, object]) -> tuple[int, Sizes]:
    """The number of a feature map's spatial axes, which must be among the known ones, and their sizes."""
    rank = call.x().dim() - 2
    if rank not in known:
        raise call.refuse(f"takes {rank} spatial axes; {' and '.join(map(str, known))} are read")
    return rank, tuple(call.x().shape[2:])


def pads_of(call: Call, sizes: Sizes, kernel: Sizes, strides: Sizes, dilations: Sizes) -> tuple[Sizes, Sizes]:
    """The taps added before and after each axis, from `pads` or `auto_pad`."""
    rank = len(sizes)
    way = call.attribute("auto_pad", "NOTSET")
    if way == "NOTSET":
        pads = call.attribute("pads", [0] * 2 * rank)
        if len(pads) != 2 * rank or min(pads) < 0:
            raise call.refuse(f"must have {2 * rank} pads of at least 0, and has {pads}")
        return tuple(pads[:rank]), tuple(pads[rank:])
    if way == "VALID":
        return (0,) * rank, (0,) * rank
    if way not in ("SAME_UPPER", "SAME_LOWER"):
        raise call.refuse(f"has auto_pad {way}, which is not known")
    before, after = [], []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if way == "SAME_UPPER" else large)
        after.append(large if way == "SAME_UPPER" else small)
    return tuple(before), tuple(after)


def reversed_pads(before: Sizes, after: Sizes) -> list[int]:
    """Pads as torch.nn.functional.pad takes them: the last axis first."""
    return [pad for pair in reversed(list(zip(before, after, strict=True))) for pad in pair]


def _geometry(call: Call, kernel: Sizes) -> tuple[Sizes, Sizes]:
    rank = len(kernel)
    strides = tuple(call.attribute("strides", [1] * rank))
    dilations = tuple(call.attribute("dilations", [1] * rank))
    stated = call.attribute("kernel_shape", list(kernel))
    if tuple(stated) != kernel:
        raise call.refuse(f"states a kernel of {stated}, and its weights have {list(kernel)}")
    return strides, dilations


def _conv(call: Call) -> Operation:
    rank, sizes = spatial(call, dict(_CONVOLUTIONS))
    weight = call.tensor(1)
    kernel = tuple(weight.shape[2:])
    strides, dilations = _geometry(call, kernel)
    before, after = pads_of(call, sizes, kernel, strides, dilations)
    convolution = partial(
        _CONVOLUTIONS[rank], stride=strides, dilation=dilations, groups=int(call.attribute("group", 1))
    )
    bias = call.tensor(2) if call.has(2) else None
    if before == after:
        return Operation(partial(convolution, padding=before), weight=weight, bias=bias)
    around = reversed_pads(before, after)

    def padded(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return convolution(functional.pad(x, around), weight=weight, bias=bias)

    return Operation(padded, weight=weight, bias=bias)


def _conv_transpose(call: Call) -> Operation:
    rank, sizes = spatial(call, dict(_TRANSPOSED))
    weight = call.tensor(1)
    kernel = tuple(weight.shape[2:])
    strides, dilations = _geometry(call, kernel)
    more = tuple(call.attribute("output_padding", [0] * rank))
    shape, way = call.attribute("output_shape"), call.attribute("auto_pad", "NOTSET")
    if shape is None and way in ("SAME_UPPER", "SAME_LOWER"):
        shape = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    if shape is None:
        before, after = pads_of(call, sizes, kernel, strides, dilations)
    else:
        # The pads that lead to the shape that is stated.
        wanted = shape[-rank:]
        total = [
            stride * (size - 1) + extra + (k - 1) * dilation + 1 - out
            for size, stride, extra, k, dilation, out in zip(
                sizes, strides, more, kernel, dilations, wanted, strict=True
            )
        ]
        if min(total) < 0:
            raise call.refuse(f"states an output of {wanted}, which is larger than its weights reach")
        halves = tuple(pad // 2 for pad in total)
        rests = tuple(pad - half for pad, half in zip(total, halves, strict=True))
        before, after = (halves, rests) if way == "SAME_UPPER" else (rests, halves)
    transposed = partial(_TRANSPOSED[rank], stride=strides, dilation=dilations, groups=int(call.attribute("group", 1)))
    bias = call.tensor(2) if call.has(2) else None
    if before == after and all(extra < max(s, d) for extra, s, d in zip(more, strides, dilations, strict=True)):
        return Operation(partial(transposed, padding=before, output_padding=more), weight=weight, bias=bias)
    if any(more):
        raise call.refuse("has output_padding beside pads that differ between the sides")

    def cropped(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        y = transposed(x, weight=weight, bias=bias)
        for axis, (first, last) in enumerate(zip(before, after, strict=True)):
            y = y.narrow(2 + axis, first, y.shape[2 + axis] - first - last)
        return y

    return Operation(cropped, weight=weight, bias=bias)


def _gemm(call: Call) -> Operation:
    if call.x().dim() != 2 or call.attribute("transA", 0):
        raise call.refuse("must multiply rows of features [N, K] that are not transposed")
    alpha, beta = float(call.attribute("alpha", 1.0)), float(call.attribute("beta", 1.0))
    weight = call.tensor(1)
    weight = alpha * (weight if call.attribute("transB", 0) else weight.T)
    bias = None
    if call.has(2):
        given = call.tensor(2)
        if given.numel() not in (1, len(weight)) or (given.dim() == 2 and given.shape[0] != 1):
            raise call.refuse(f"must add one number per output, {len(weight)}, and adds {list(given.shape)}")
        bias = beta * given.reshape(-1).expand(len(weight))
    return Operation(functional.linear, weight=weight.contiguous(), bias=None if bias is None else bias.contiguous())


def _matmul(call: Call) -> Operation:
    x = call.x()
    weight = call.tensor(1)
    if weight.dim() != 2 or x.dim() < 2:
        raise call.refuse(f"must multiply by a matrix of constants, and multiplies by {list(weight.shape)}")
    return Operation(functional.linear, weight=weight.T.contiguous())


def _batch_norm(call: Call) -> Operation:
    if call.attribute("training_mode", 0):
        raise call.refuse("is in training mode; export the network in eval mode")
    gamma, beta, mean, variance = (call.tensor(position) for position in range(1, 5))
    eps = float(np.float32(call.attribute("epsilon", 1e-5)))

    def normalised(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, **own: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(x, own["running_mean"], own["running_var"], weight, bias, False, 0.0, eps)

    return Operation(normalised, weight=gamma, bias=beta, running_mean=mean, running_var=variance)


HANDLERS: dict[str, Handler] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
}

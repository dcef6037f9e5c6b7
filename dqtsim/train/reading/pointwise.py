"""Pointwise functions of one tensor, and sums and products of two."""

from typing import Any, cast

import torch
from torch import fx

from dqtsim.train.reading.affine import affine_of, channels, is_norm, norm_of, per_channel
from dqtsim.train.reading.clamps import activation_of
from dqtsim.train.reading.export import arguments, called
from dqtsim.train.reading.layers import Sums, put
from dqtsim.train.reading.moves import take
from dqtsim.train.reading.pixels import note, pixels_of
from dqtsim.train.reading.reader import Handler, Reader
from dqtsim.train.steps import Activation, Add, Argument, Call, Function, Multiply, Rectify, Table

_ARITHMETIC = ("add", "sub", "rsub", "mul", "div", "neg")
_FUNCTIONS = (
    "relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "silu", "hardswish", "hardsigmoid", "sigmoid",
    "tanh", "gelu", "leaky_relu", "prelu", "elu", "selu", "celu", "softplus", "mish", "log_sigmoid", "rrelu",
    "threshold", "hardshrink", "softshrink", "abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "pow",
    "sin", "cos", "atan", "erf", "reciprocal", "sign", "floor", "round", "where", "gt", "ge", "lt", "le", "eq", "ne",
    "maximum", "minimum", "logical_not", "logical_and", "logical_or",
)  # fmt: skip
# Never negative, whatever they are of.
_POSITIVE = {"relu", "relu6", "sigmoid", "hardsigmoid", "softplus", "abs", "exp", "sqrt", "rsqrt", "square"}


def _root(reader: Reader, operand: fx.Node) -> str | fx.Node:
    """The tensor that an operand is a pointwise function of."""
    if operand in reader.functions:
        return reader.functions[operand][0]
    return reader.tensor.get(operand, operand)


def _tensors(reader: Reader, node: fx.Node) -> list[fx.Node]:
    return [before for before in node.all_input_nodes if before not in reader.values]


def _pointwise(reader: Reader, node: fx.Node) -> None:
    roots = {_root(reader, operand) for operand in _tensors(reader, node)}
    if len(roots) == 1:
        _unary(reader, node)
    elif called(node) in ("add", "sub"):
        _sum(reader, node)
    elif called(node) in ("mul", "div"):
        _multiply(reader, node)
    else:
        raise reader.refuse(node, "must be of one tensor and of constants")


def _unary(reader: Reader, node: fx.Node) -> None:
    operands = _tensors(reader, node)
    if len(operands) == 1 and operands[0] not in reader.functions:
        if called(node) in _ARITHMETIC or is_norm(node):
            if _scale(reader, node, operands[0]):
                return
        elif (activation := activation_of(node)) is not None and not _gates(reader, node, operands[0]):
            source = reader.source(node, operands[0])
            name, shape = reader.named(node, "relu"), reader.shape_of(source)
            reader.put(Rectify(name, (source,), shape, True, activation), [node])
            return
    function(reader, node)


def _gates(reader: Reader, node: fx.Node, operand: fx.Node) -> bool:
    """Whether a clamp is part of a larger function of its operand, as in x * relu6(x + 3) / 6."""
    root = _root(reader, operand)
    users = [user for user in node.users if called(user) in (*_FUNCTIONS, *_ARITHMETIC)]
    others = [before for user in users for before in user.all_input_nodes if before is not node]
    return any(before not in reader.values and _root(reader, before) == root for before in others)


def _norm(reader: Reader, node: fx.Node) -> None:
    if not _scale(reader, node, _tensors(reader, node)[0]):
        raise reader.refuse(node)


def _scale(reader: Reader, node: fx.Node, operand: fx.Node) -> bool:
    """An affine function by itself: left to layers if it is of the picture, else a depthwise layer; not if uniform."""
    affine = affine_of(reader, node)
    if affine is None:
        return False
    pixels = pixels_of(reader, operand)
    if pixels is not None:
        note(reader, node, pixels.after(affine))
        return True
    norm = norm_of(reader, node) if is_norm(node) else None
    if norm is None and affine.uniform:
        return False
    shape = reader.shape(node)
    rest = int(torch.tensor(shape[1:]).prod()) if shape[1:] else 1
    planes = shape if len(shape) == 3 else (shape[0], 1, rest)
    count = shape[0]
    scale, shift = channels(affine.scale, count), channels(affine.shift, count)
    weight, bias = (torch.ones_like(scale), None) if norm is not None else (scale, shift)
    source = reader.source(node, operand)
    source = source if reader.shape_of(source) == planes else reader.view(reader.plain(node, operand), planes)
    sums = Sums(
        reader.named(node, "scale"), source, planes, weight.reshape(-1, 1, 1, 1), bias, groups=count, pinned=True
    )
    put(reader, node, sums, norm=norm)
    return True


def function(reader: Reader, node: fx.Node) -> None:
    """A pointwise function of one tensor; it grows until something else reads it."""
    operands = _tensors(reader, node)
    for operand in operands:
        if operand not in reader.functions:
            reader.source(node, operand)
    (root,) = {cast(str, _root(reader, operand)) for operand in operands}
    axes = len(reader.shape_of(root))

    def argument(value: Any) -> Any:
        if isinstance(value, fx.Node) and value in reader.values:
            constant = per_channel(reader, node, value)
            if constant is None:
                raise reader.refuse(node, "must have the same constants at all positions of a channel")
            one = constant.dim() == 0 or called(node) == "prelu"
            return constant if one else constant.reshape(-1, *[1] * (axes - 1))
        if isinstance(value, fx.Node):
            return reader.functions[value][1] if value in reader.functions else Argument()
        return value

    weights = node.args[1] if called(node) == "prelu" else None
    if isinstance(weights, fx.Node):
        reader.values[weights] = reader.values[weights].flatten()
    arguments_ = tuple(argument(value) for value in node.args)
    if isinstance(weights, fx.Node):
        arguments_ = (arguments_[0], reader.values[weights])
    call = Call(
        str(node.target).removeprefix("aten."), arguments_, tuple((k, argument(v)) for k, v in node.kwargs.items())
    )
    grow(reader, node, root, call)


def grow(reader: Reader, node: fx.Node, root: str, call: Function) -> None:
    """Say that a node is a pointwise function of the tensor called `root`."""
    reader.functions[node] = root, call

    def table() -> None:
        name = reader.named(node, called(node))
        positive = _positive(call, reader.positive((root,)))
        step = Table(name, (root,), reader.shape_of(root), positive, call, _varies(call))
        reader.put(step, [node])

    reader.lazy[node] = table


def _varies(value: Any) -> bool:
    """Whether a function has constants per channel."""
    if isinstance(value, torch.Tensor):
        return value.numel() > 1
    parts = (*value.arguments, *(part for _, part in value.keywords)) if isinstance(value, Call) else ()
    return any(_varies(part) for part in parts)


def _positive(value: Any, root: bool) -> bool:
    """Whether a function is never negative, if its tensor is not where `root` says so."""
    if isinstance(value, torch.Tensor):
        return bool((value >= 0).all())
    if isinstance(value, int | float):
        return value >= 0
    if not isinstance(value, Call):
        return root
    name, given = value.operator.split(".", maxsplit=1)[0], value.arguments
    if name in ("hardtanh", "clamp", "clamp_min"):
        return len(given) > 1 and isinstance(given[1], int | float) and given[1] >= 0
    if name == "pow":
        return isinstance(given[1], int | float) and given[1] % 2 == 0
    if name in ("mul", "div", "add"):
        square = name == "mul" and isinstance(given[0], Argument | Call) and given[0] == given[1]
        return square or (not value.keywords and all(_positive(part, root) for part in given))
    return name in _POSITIVE


def _clamped(reader: Reader, node: fx.Node) -> tuple[Activation, list[fx.Node]]:
    """The activation that alone reads a node, and the nodes up to it."""
    follower = reader.follower(node)
    if follower is not None and (found := activation_of(follower)) is not None:
        return found, [node, follower]
    return Activation(), [node]


def _sum(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    alpha = given["alpha"] if called(node) == "add" else -given["alpha"]
    names = [_spread(reader, node, given["self"]), _spread(reader, node, given["other"], alpha)]
    activation, nodes = _clamped(reader, node)
    positive = activation.rectified or reader.positive(names)
    names = _alike(reader, node, names)
    name, shape = reader.name(f"{reader.path(node)}.add"), reader.shape_of(names[0])
    reader.put(Add(name, tuple(names), shape, positive, activation), nodes, node)


def _scaled(reader: Reader, node: fx.Node, operand: fx.Node, operator: str, *others: Any) -> str:
    """A function of an operand that is a step of its own."""
    if operand in reader.functions:
        root, inner = reader.functions[operand]
    else:
        root, inner = reader.source(node, operand), Argument()
    call = Call(operator, (inner, *others))
    positive = _positive(call, reader.positive((root,)))
    name = reader.name(f"{reader.path(node)}.{operator.split('.', maxsplit=1)[0]}")
    return reader.put(Table(name, (root,), reader.shape_of(root), positive, call, _varies(call)), [])


def _spread(reader: Reader, node: fx.Node, operand: fx.Node, alpha: float = 1) -> str:
    """An operand of a sum, times alpha, repeated to the sum's shape where it is smaller."""
    name = reader.source(node, operand) if alpha == 1 else _scaled(reader, node, operand, "mul.Tensor", float(alpha))
    before, after = reader.shape(operand), reader.shape(node)
    if before == after:
        return name
    name = reader.view(reader.view(name, before), (*[1] * (len(after) - len(before)), *before))
    for axis, count in enumerate(after):
        if reader.shape_of(name)[axis] != count:
            name = take(reader, reader.name(f"{reader.path(node)}.take"), name, axis, (0,) * count)
    return name


def _alike(reader: Reader, node: fx.Node, names: list[str]) -> list[str]:
    """Tensors of one shape, however many axes each has for one dimension."""
    if reader.shape_of(names[0]) == reader.shape_of(names[1]):
        return names
    return [reader.view(name, reader.shape(node)) for name in names]


def _multiply(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    if given.get("rounding_mode") is not None:
        raise reader.refuse(node, "must not round")
    a, b = given["self"], given["other"]
    divided = called(node) == "div"
    shape = reader.shape(node)
    if not divided and reader.shape(a) != shape and reader.shape(b) == shape:
        a, b = b, a
    gate = _scaled(reader, node, b, "reciprocal.default") if divided else reader.source(node, b)
    if reader.shape(a) == shape and len(shape) > 1 and reader.shape(b) == (shape[0], *[1] * (len(shape) - 1)):
        names = [reader.planes(node, a), reader.view(gate, (shape[0], 1, 1))]
    elif divided:
        names = _alike(reader, node, [_spread(reader, node, a), gate])
    else:
        names = _alike(reader, node, [_spread(reader, node, a), _spread(reader, node, b)])
    activation, nodes = _clamped(reader, node)
    positive = activation.rectified or reader.positive(names)
    name = reader.name(f"{reader.path(node)}.mul")
    reader.put(Multiply(name, tuple(names), reader.shape_of(names[0]), positive, activation), nodes, node)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys((*_FUNCTIONS, *_ARITHMETIC), _pointwise),
    **dict.fromkeys(
        ("_native_batch_norm_legit_no_training", "_native_batch_norm_legit_functional", "batch_norm"), _norm
    ),
}

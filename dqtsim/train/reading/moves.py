"""What moves or joins numbers: flatten, concatenation, sums of two tensors."""

from math import prod

from torch import fx

from dqtsim.train.reading.clamps import activation_of
from dqtsim.train.reading.export import arguments
from dqtsim.train.reading.reader import Handler, Reader
from dqtsim.train.steps import Activation, Add, Concat, Flatten


def _add(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    sources = tuple(reader.source(node, given[name]) for name in ("self", "other"))
    if given["alpha"] != 1 or any(reader.shape(given[name]) != reader.shape(node) for name in ("self", "other")):
        raise reader.refuse(node, "must add two tensors of one shape")
    activation, nodes, follower = Activation(), [node], reader.follower(node)
    if follower is not None and (found := activation_of(follower)) is not None:
        activation = found
        nodes.append(follower)
    positive = activation.rectified or reader.positive(sources)
    name = reader.name(f"{reader.path(node)}.add")
    reader.put(Add(name, sources, reader.shape(node), positive, activation), nodes, node)


def _flatten(reader: Reader, node: fx.Node) -> None:
    operand = arguments(node)["self"]
    source, before, after = reader.source(node, operand), reader.shape(operand), reader.shape(node)
    if after != (prod(before),):
        raise reader.refuse(node, f"must flatten all but the batch, but makes {after} of {before}")
    if before == after:
        reader.tensor[node] = source
        return
    reader.put(Flatten(reader.named(node, "flat"), (source,), after, reader.positive((source,))), [node])


def _concat(reader: Reader, node: fx.Node) -> None:
    given = arguments(node)
    sources = tuple(reader.source(node, operand) for operand in given["tensors"])
    if given["dim"] % (len(reader.shape(node)) + 1) != 1:
        raise reader.refuse(node, "must be along the channels, dim 1")
    name = reader.name(f"{reader.path(node)}.cat")
    reader.put(Concat(name, sources, reader.shape(node), reader.positive(sources)), [node])


HANDLERS: dict[str, Handler] = {
    "add": _add,
    "flatten": _flatten,
    "view": _flatten,
    "reshape": _flatten,
    "_unsafe_view": _flatten,
    "cat": _concat,
    "concat": _concat,
}

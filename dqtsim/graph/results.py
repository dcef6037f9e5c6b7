"""What the outputs of a graph stand for: class scores or codes, and their real values."""

from math import prod

from ..errors import InputError
from .model import BITS, Graph, Node, Quantization, Value


def results(graph: Graph) -> tuple[Value, ...]:
    """Return the outputs, without the widths that a controller has chosen."""
    return tuple(value for value in graph.outputs if value.name != BITS)


def scores(graph: Graph) -> str:
    """Return the output whose largest entry is the class, "" if the model does not classify.

    That is the first one with one row of logits, else the first one with one row of codes, one per class name.
    """
    rows = [value for value in results(graph) if value.shape and value.shape[-1] == prod(value.shape)]
    logits = [value.name for value in rows if value.dtype == "int32"]
    codes = [value.name for value in rows if value.dtype == "uint8" and value.shape[-1] == len(graph.class_names)]
    return next(iter(logits + codes), "")


def require_scores(graph: Graph) -> str:
    """Return `scores`. Raises InputError for a model that does not classify."""
    found = scores(graph)
    if not found:
        given = ", ".join(f"'{value.name}' {value.dtype} {value.shape}" for value in results(graph))
        raise InputError(
            f"accuracy is of a model with class scores: an output with one row of logits, or of codes with a class "
            f"name each; '{graph.name}' gives {given or 'nothing'}."
        )
    return found


def meaning(graph: Graph, tensor: str) -> Quantization | None:
    """Return what the integers of `tensor` stand for: its annotation, or that of what it moves; None if unknown.

    Logits (B7) stand for scale_x * scale_w, with zero point 0.
    """
    producers = {node.outputs[0]: node for node in graph.nodes}
    while tensor not in graph.quantization:
        node = producers.get(tensor)
        if node is None or node.operator == "ArgMax" or (node.domain and node.operator != "NestedLogits"):
            return None
        if node.operator == "NestedLogits":
            return _of_logits(graph, node)
        tensor = node.source
    return graph.quantization[tensor]


def _of_logits(graph: Graph, node: Node) -> Quantization | None:
    x, weight = (meaning(graph, node.operand(role)) for role in "xw")
    return Quantization((x.scale[0] * weight.scale[0],), 0) if x and weight else None

"""A softmax at the end is left out: it changes no class, and it has no integers."""

from torch import fx

from dqtsim.train.reading.export import called
from dqtsim.train.reading.reader import Handler, Reader
from dqtsim.train.steps import Argument, Call


def _softmax(reader: Reader, node: fx.Node) -> None:
    if any(user.op != "output" for user in node.users):
        raise reader.refuse(node, "must be the last step, where it is left out")
    operand = node.all_input_nodes[0]
    arguments = (Argument(), *node.args[1:])
    call = Call(str(node.target).removeprefix("aten."), arguments, tuple(node.kwargs.items()))
    reader.before_softmax[node] = operand, call
    name = called(node).strip("_")
    reader.notes.append(
        f"The last step of the network, {name}, is left out: outputs are those before it, in the same order."
    )


HANDLERS: dict[str, Handler] = dict.fromkeys(("softmax", "log_softmax", "_softmax", "_log_softmax"), _softmax)

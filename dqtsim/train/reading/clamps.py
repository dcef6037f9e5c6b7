"""ReLU, ReLU6 and their like, by whatever name they are called."""

from torch import fx

from dqtsim.train.reading.export import arguments, called
from dqtsim.train.steps import Activation


def activation_of(node: fx.Node) -> Activation | None:
    """The clamp that a node is: at 0, and at a ceiling if it has one."""
    name = called(node)
    if name == "relu":
        return Activation(True)
    if name == "relu6":
        return Activation(True, 6.0)
    low, high = None, None
    if name == "hardtanh":
        given = arguments(node)
        low, high = given["min_val"], given["max_val"]
    elif name in ("clamp", "clamp_min"):
        given = arguments(node)
        low, high = given["min"], given.get("max")
    if not isinstance(low, int | float) or low != 0 or not (high is None or isinstance(high, int | float)):
        return None
    return Activation(True, None if high is None else float(high)) if high is None or high > 0 else None

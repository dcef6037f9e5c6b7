"""The modules' names: those of the weights where a file keeps them, else those of the nodes."""

from collections import Counter
from collections.abc import Sequence

import onnx
from torch import nn


def paths(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """A path of modules, such as layer1.0.conv1, for each node; they are distinct, and none leads through another."""
    full = [_path(node) for node in nodes]
    below = Counter(prefix for path in full for prefix in _prefixes(path))
    short = [_shortened(path, node.op_type, below, set(full)) for path, node in zip(full, nodes, strict=True)]
    places = {prefix for path in short for prefix in _prefixes(path)}
    taken: set[str] = set()
    for first in short:
        path, count = first, 1
        while path in taken or path in places:
            count += 1
            path = f"{first}_{count}"
        taken.add(path)
        full[len(taken) - 1] = path
    return full


def _shortened(path: str, operator: str, below: Counter[str], full: set[str]) -> str:
    """The path without the operator's name at its end, if nothing else is there."""
    parent, _, last = path.rpartition(".")
    return parent if last == operator and parent and below[parent] == 1 and parent not in full else path


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _path(node: onnx.NodeProto) -> str:
    weight = str(node.input[1]) if len(node.input) > 1 else ""
    text = weight.removesuffix(".weight") if weight.endswith(".weight") else _scope(node)
    places = [_identifier(place) for place in text.replace("/", ".").replace(":", "_").split(".") if place]
    return ".".join(places) or node.op_type.lower()


def _scope(node: onnx.NodeProto) -> str:
    """The name of a node; PyTorch writes '/layer1/layer1.0/conv1/Conv' for layer1.0.conv1."""
    if not node.name:
        return str(node.output[0])
    found: list[str] = []
    for place in node.name.strip("/").split("/"):
        if found and place.startswith(f"{found[-1]}."):
            found[-1] = place
        else:
            found.append(place)
    return ".".join(found)


def _identifier(place: str) -> str:
    # A module has these names for itself.
    return f"{place}_" if hasattr(nn.Module(), place) else place

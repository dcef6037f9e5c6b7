"""A float ONNX file as a network of PyTorch: one submodule for each node that depends on the picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_model
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator
from torch import nn

from dqtsim import limits
from dqtsim.errors import InputError, ModelError, cut, listed, reason
from dqtsim.train.onnx import layers, moves, pointwise, pools
from dqtsim.train.onnx.call import Call, Constant, Handler
from dqtsim.train.onnx.names import paths

HANDLERS: dict[str, Handler] = {**layers.HANDLERS, **pools.HANDLERS, **pointwise.HANDLERS, **moves.HANDLERS}
_OLDEST = 7
_STANDARD = ("", "ai.onnx")
# These give other values every time.
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
_CHANNELS_LAST = [0, 3, 1, 2]


@dataclass(frozen=True)
class FloatFile:
    """A float ONNX file: its network, whose pictures are of `shape` (C, H, W), and how the file itself takes them.

    `batch` is the number of pictures that the file always takes together, or None. With `channels_last` it takes them
    as [N, H, W, C].
    """

    path: Path
    network: nn.Module
    shape: tuple[int, ...]
    source: str
    outputs: tuple[str, ...]
    batch: int | None
    channels_last: bool


class OnnxNetwork(nn.Module):
    """The nodes of a file in their order; values go by the names that they have in the file."""

    def __init__(self, source: str, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self._source, self._results = source, outputs
        self._steps: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []

    def add(self, path: str, module: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        """Append a node, whose module is called `path`, which may have dots."""
        *places, last = path.split(".")
        parent: nn.Module = self
        for place in places:
            if place not in parent._modules:
                parent.add_module(place, nn.Module())
            parent = parent.get_submodule(place)
        parent.add_module(last, module)
        self._steps.append((path, inputs, outputs))

    def forward(self, pictures: torch.Tensor) -> Any:
        """Pictures [N, C, H, W] to the file's outputs: a tensor, or a tuple of several."""
        values = {self._source: pictures}
        for path, inputs, outputs in self._steps:
            found = self.get_submodule(path)(*(values[name] for name in inputs))
            values.update(zip(outputs, (found,) if isinstance(found, torch.Tensor) else found, strict=False))
        results = tuple(values[name] for name in self._results)
        return results[0] if len(results) == 1 else results


def read(path: Path) -> FloatFile:
    """Read a float ONNX file. Raises ModelError, with the node and its operator if one of them is the reason."""
    model = _parsed(path)
    graph = model.graph
    opset = _opset(model)
    constants = {tensor.name: _array(tensor, path) for tensor in graph.initializer}
    source, shape, batch = _input(graph, constants)
    nodes = _needed(graph)
    channels_last = _is_channels_last(graph, nodes, source)
    if channels_last:
        # The network begins behind the file's own transposition.
        first = next(node for node in nodes if source in node.input)
        nodes = [node for node in nodes if node is not first]
        source, shape = first.output[0], (shape[2], shape[0], shape[1])
    outputs = tuple(value.name for value in graph.output)
    network = _converted(nodes, constants, opset, source, (batch or 1, *shape), outputs)
    original = next(value.name for value in graph.input if value.name not in constants)
    return FloatFile(path, network.eval(), shape, original, outputs, batch, channels_last)


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(limits.read_bytes(path, limits.MODEL_BYTES))
    except OSError as error:
        raise InputError(f"the model file '{path}' cannot be read: {reason(error)}.") from None
    # protobuf has several kinds of errors, without a common base
    except Exception:
        raise ModelError(f"'{path}' is no ONNX file.") from None
    if not model.graph.node:
        raise ModelError(f"'{path}' is no ONNX file with a network: it has no nodes.")
    if any(entry.key == "dqtsim.format" for entry in model.metadata_props):
        raise ModelError(f"'{path}' is nested already; dqtsim quantize takes a float model.")
    try:
        load_external_data_for_model(model, str(path.parent))
        return inline_local_functions(model) if model.functions else model
    except Exception as error:
        raise ModelError(f"'{path}' cannot be read: {_first_line(error)}.") from None


def _opset(model: onnx.ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in _STANDARD]
    if not versions or versions[0] < _OLDEST:
        raise ModelError(
            f"a float ONNX model must have opset {_OLDEST} or newer, and has {versions[0] if versions else 'none'}."
        )
    return int(versions[0])


def _array(tensor: onnx.TensorProto, path: Path) -> Constant:
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except Exception as error:
        raise ModelError(
            f"the constant '{cut(tensor.name)}' of '{path}' cannot be read: {_first_line(error)}."
        ) from None


def _input(graph: onnx.GraphProto, constants: Mapping[str, Constant]) -> tuple[str, tuple[int, ...], int | None]:
    """The name of the input, the shape of a picture, and the number of pictures if it is fixed."""
    given = [value for value in graph.input if value.name not in constants]
    if len(given) != 1:
        raise ModelError(f"a float model must have one input, and has {len(given)}: {listed([v.name for v in given])}.")
    kind = given[0].type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        found = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise ModelError(f"the input '{given[0].name}' must be float32, and is {found}.")
    sizes = [entry.dim_value if entry.HasField("dim_value") else 0 for entry in kind.shape.dim]
    if len(sizes) < 2 or min(sizes[1:], default=0) < 1:
        shown = [size or "?" for size in sizes]
        raise ModelError(
            f"the input '{given[0].name}' must have a known size but for the batch, and is "
            f"[{', '.join(map(str, shown))}]; onnxruntime.tools.make_dynamic_shape_fixed sets it."
        )
    # One picture at a time is no limit: pictures do not depend on each other, which is checked node by node.
    return given[0].name, tuple(sizes[1:]), sizes[0] or None


def _needed(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes on which the outputs depend, in their order."""
    wanted = {value.name for value in graph.output}
    found = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            found.append(node)
            wanted |= set(node.input)
    return found[::-1]


def _is_channels_last(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], source: str) -> bool:
    readers = [node for node in nodes if source in node.input]
    if len(readers) != 1 or readers[0].op_type != "Transpose" or source in {value.name for value in graph.output}:
        return False
    order = next((list(attribute.ints) for attribute in readers[0].attribute if attribute.name == "perm"), [])
    return order == _CHANNELS_LAST


def _converted(
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, Constant],
    opset: int,
    source: str,
    shape: tuple[int, ...],
    outputs: tuple[str, ...],
) -> OnnxNetwork:
    """The network of `nodes`; every value is known as a constant, or by an example of it."""
    known: dict[str, Constant | torch.Tensor] = dict(constants)
    known[source] = torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    network = OnnxNetwork(source, outputs)
    for node, path in zip(nodes, paths(nodes), strict=True):
        if any(isinstance(known.get(name), torch.Tensor) for name in node.input):
            if node.op_type == "Shape":
                known[node.output[0]] = _shape_of(node, known[node.input[0]])
            else:
                _add(network, path, node, opset, known)
        else:
            known |= _folded(node, opset, known)
    for name in outputs:
        if not isinstance(known.get(name), torch.Tensor):
            raise ModelError(f"the output '{cut(name)}' must depend on the picture, and does not.")
    return network


def _add(
    network: OnnxNetwork, path: str, node: onnx.NodeProto, opset: int, known: dict[str, Constant | torch.Tensor]
) -> None:
    call = Call(node, opset, tuple(known.get(name) if name else None for name in node.input))
    if node.domain not in _STANDARD:
        raise call.refuse(f"is of the domain {cut(node.domain)}; only standard operators are read")
    handler = HANDLERS.get(node.op_type)
    if handler is None:
        raise call.refuse(f"is no operator that is read; these are {', '.join(sorted(HANDLERS))}")
    for name in node.input:
        if name and name not in known:
            raise call.refuse(f"reads '{cut(name)}', which nothing gives")
    inputs = tuple(name for name in node.input if isinstance(known.get(name), torch.Tensor))
    examples = [value for value in call.inputs if isinstance(value, torch.Tensor)]
    try:
        module = handler(call)
        with torch.no_grad():
            found = module(*examples)
    except ModelError:
        raise
    except Exception as error:
        raise call.refuse(f"cannot be computed by PyTorch: {_first_line(error)}") from error
    results = (found,) if isinstance(found, torch.Tensor) else tuple(found)
    names = tuple(node.output[: len(results)])
    if any(result.shape[0] != examples[0].shape[0] for result in results):
        raise call.refuse("changes the number of pictures")
    known.update(zip(names, results, strict=True))
    network.add(path, module, inputs, names)


def _shape_of(node: onnx.NodeProto, value: Constant | torch.Tensor) -> Constant:
    """The shape of a feature map, as Shape gives it."""
    sizes = np.array(value.shape, np.int64)
    ends = {attribute.name: attribute.i for attribute in node.attribute}
    return sizes[ends.get("start") : ends.get("end")]


def _folded(
    node: onnx.NodeProto, opset: int, known: Mapping[str, Constant | torch.Tensor]
) -> dict[str, Constant | torch.Tensor]:
    """The outputs of a node that does not depend on the picture, by onnx's own reference."""
    call = Call(node, opset, ())
    if node.op_type in _RANDOM:
        raise call.refuse("gives other values every time")
    try:
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(node, opsets={"": opset}).run(
                None, {name: known[name] for name in node.input if name}
            )
    except Exception as error:
        raise call.refuse(f"cannot be computed from its constants: {_first_line(error)}") from error
    return {name: np.asarray(value) for name, value in zip(node.output, found, strict=False) if name}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return cut(lines[0].rstrip(".")) if lines else type(error).__name__

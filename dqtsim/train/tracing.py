"""A network, traced by torch.fx, as a list of steps; the error names any part without a nested counterpart."""

import copy
import operator
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn import functional

from dqtsim.errors import ModelError
from dqtsim.train.device import of
from dqtsim.train.steps import (
    Activation,
    Add,
    AveragePool,
    Concat,
    Flatten,
    Layer,
    Logits,
    MaxPool,
    Pair,
    Rectify,
    Step,
)

INPUT = "input"
_RESERVED = {INPUT, "bits"}
_LEAVES = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
_NOTHING_FUNCTIONS = (functional.dropout, functional.dropout2d, "contiguous", "clone")
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
_RELUS = (functional.relu, torch.relu, torch.relu_, "relu", "relu_")
_FLATTENINGS = (torch.flatten, "flatten", "view", "reshape")
_KNOWN = (
    "Conv2d, Linear, BatchNorm, ReLU, ReLU6, +, AvgPool2d, AdaptiveAvgPool2d, mean over rows and columns, MaxPool2d, "
    "flatten, cat, Dropout and Identity"
)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True)
class Traced:
    """The steps of a network, and its float twin, the graph as it was traced.

    `tensors` names the fx node that computes each step's output; `clamped` names the node whose value is clamped by the
    activation at the step's end.
    """

    steps: tuple[Step, ...]
    module: fx.GraphModule
    tensors: dict[str, str]
    clamped: dict[str, str]

    def values(self, pictures: torch.Tensor, nodes: Collection[str]) -> dict[str, torch.Tensor]:
        """The values of the fx nodes called `nodes` for float pictures [N, C, H, W]; batch norm as in inference."""
        found: dict[str, torch.Tensor] = {}

        class Capture(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                value = super().run_node(n)
                if n.name in nodes:
                    # A copy, because the next operation may change it in place.
                    found[n.name] = value.clone()
                return value

        self.module.eval()
        with torch.no_grad():
            Capture(self.module).run(pictures)
        return found

    def activations(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Float outputs [N, ...] of every step for float pictures [N, C, H, W]."""
        found = self.values(pictures, set(self.tensors.values()))
        return {name: found[node] for name, node in self.tensors.items()}


def trace(model: nn.Module, shape: tuple[int, int, int]) -> Traced:
    """The steps of `model`, which is in eval mode, for pictures of `shape` (C, H, W).

    Tracing calls `model`, which may change its state. Raises ModelError with the name of an unknown module or function.
    """
    try:
        graph = _Tracer().trace(model)
        module = fx.GraphModule(model, graph)
    except Exception as error:
        raise ModelError(f"a network must be traceable by torch.fx, but: {reason(error)}.") from error
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        raise ModelError(f"a network must have one input, but this one has {len(inputs)}.")
    with torch.no_grad():
        _Shapes(module).run(torch.zeros(2, *shape, device=of(model)))
    return _Reader(module).read()


def reason(error: Exception) -> str:
    """The first line of PyTorch's message, without its full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


class _Shapes(fx.Interpreter):
    """Notes the shape, without N, of every tensor in its node; `args` are pictures [N, C, H, W]."""

    def run(self, *args: Any, **kwargs: Any) -> Any:
        self.wanted = tuple(args[0].shape[1:])
        self.extra_traceback = False
        return super().run(*args, **kwargs)

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = super().run_node(n)
        except Exception as error:
            taken = " and ".join(str(_shape(node)) for node in n.all_input_nodes)
            raise ModelError(
                f"a network must take pictures of its input_shape, {self.wanted}, but "
                f"{_described(n, cast(fx.GraphModule, self.module))} cannot take {taken}: {reason(error)}."
            ) from error
        if isinstance(value, torch.Tensor):
            n.meta["shape"] = tuple(value.shape[1:])
        return value


def _described(node: fx.Node, module: fx.GraphModule) -> str:
    """A description of a node, in the network's own names."""
    found = _modules(node, module)
    if found is not None:
        return f"module '{node.target}' ({type(found).__name__})"
    return f"operation '{getattr(node.target, '__name__', node.target)}' in '{_scope(node) or 'root'}'"


def _scope(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack")
    return str(next(reversed(stack))) if stack else ""


def _modules(node: fx.Node, module: fx.GraphModule) -> nn.Module | None:
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _shape(node: fx.Node) -> tuple[int, ...]:
    return cast(tuple[int, ...], node.meta.get("shape", ()))


def _pair(value: Any) -> Pair:
    first, second = value if isinstance(value, tuple | list) else (value, value)
    return int(first), int(second)


class _Reader:
    """Walks the nodes once; a layer includes a batch norm and an activation that are its only readers."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        # Read from a copy: clones are removed here, and without them the twin would not compute what the model does.
        self.graph = copy.deepcopy(module.graph)
        self.steps: dict[str, Step] = {}
        self.tensor: dict[fx.Node, str] = {}
        self.taken = set(_RESERVED)
        self.produced: dict[str, str] = {}
        self.clamped: dict[str, str] = {}
        self.layers: set[str] = set()

    def read(self) -> Traced:
        self._skip_nothings()
        nodes = list(self.graph.nodes)
        source = next(node for node in nodes if node.op == "placeholder")
        self.tensor[source] = INPUT
        for node in nodes:
            if node not in self.tensor and node.op not in ("placeholder", "get_attr", "output") and node.users:
                self._read(node)
        self._check_ends(nodes[-1])
        return Traced(tuple(self.steps.values()), self.module, self.produced, self.clamped)

    def _check_ends(self, output: fx.Node) -> None:
        first, last = next(iter(self.steps.values()), None), next(reversed(self.steps.values()), None)
        readers = [step.name for step in self.steps.values() if INPUT in step.sources]
        if not isinstance(first, Layer) or not isinstance(first.module, nn.Conv2d) or readers != [first.name]:
            raise ModelError(
                f"one convolution alone must read the picture, because it is pinned, but {', '.join(readers)} read it."
            )
        result = output.args[0]
        if not isinstance(result, fx.Node) or not isinstance(last, Logits) or self.tensor[result] != last.name:
            raise ModelError(f"a network must end in a Linear, whose outputs are the logits, but ends in {result}.")

    def _skip_nothings(self) -> None:
        for node in list(self.graph.nodes):
            module = _modules(node, self.module)
            if isinstance(module, _NOTHING) or node.target in _NOTHING_FUNCTIONS:
                self._check_positions(node)
                node.replace_all_uses_with(cast(fx.Node, node.args[0]))
                self.graph.erase_node(node)

    def _check_positions(self, node: fx.Node) -> None:
        if not node.args:
            raise self._refuse(node, "must take its tensors by position, not by keyword")

    def _refuse(self, node: fx.Node, why: str = "") -> ModelError:
        what = _described(node, self.module)
        return ModelError(f"{what} {why}." if why else f"prepare rewrites {_KNOWN}; {what} is none of them.")

    def _name(self, wanted: str) -> str:
        wanted = wanted.lstrip(".")
        name, number = wanted, 1
        while name in self.taken:
            number += 1
            name = f"{wanted}{number}"
        self.taken.add(name)
        return name

    def _sources(self, node: fx.Node, operands: Any) -> tuple[str, ...]:
        for operand in operands:
            if not isinstance(operand, fx.Node) or operand not in self.tensor:
                raise self._refuse(node, f"must take tensors that earlier steps made, but takes {operand}")
        return tuple(self.tensor[operand] for operand in operands)

    def _put(self, step: Step, *nodes: fx.Node) -> None:
        self.steps[step.name] = step
        self.produced[step.name] = nodes[-1].name
        if self._activation(nodes[-1]) is not None and len(nodes) > 1:
            self.clamped[step.name] = nodes[-2].name
        for node in nodes:
            self.tensor[node] = step.name

    def _positive(self, sources: tuple[str, ...]) -> bool:
        return all(source != INPUT and self.steps[source].positive for source in sources)

    def _read(self, node: fx.Node) -> None:
        module, target = _modules(node, self.module), node.target
        self._check_positions(node)
        if isinstance(module, nn.Conv2d | nn.Linear):
            self._layer(node, module)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            before = cast(fx.Node, node.args[0])
            raise self._refuse(
                node, f"must be the only reader of a convolution or Linear to be folded into it, but reads '{before}'"
            )
        elif self._activation(node) is not None:
            activation = cast(Activation, self._activation(node))
            sources = self._sources(node, node.args[:1])
            name = self._name(str(target) if module is not None else f"{_scope(node)}.relu")
            self._put(Rectify(name, sources, _shape(node), True, activation), node)
        elif target in _ADDITIONS:
            self._add(node)
        elif (pool := self._average(node, module)) is not None:
            self._pool(node, AveragePool, *pool)
        elif isinstance(module, nn.MaxPool2d) or target in (functional.max_pool2d, torch.max_pool2d):
            self._pool(node, MaxPool, *self._maximum(node, module))
        elif isinstance(module, nn.Flatten) or target in _FLATTENINGS:
            self._flatten(node)
        elif target in (torch.cat, torch.concat):
            self._concat(node)
        elif target == "size" or target in (getattr, operator.getitem):
            # The sizes of a tensor are numbers; the node that reads them is checked by its shape.
            if _shape(node):
                raise self._refuse(node)
        else:
            raise self._refuse(node)

    def _activation(self, node: fx.Node) -> Activation | None:
        module = _modules(node, self.module)
        if isinstance(module, nn.ReLU6) or node.target is functional.relu6:
            return Activation(True, 6.0)
        if isinstance(module, nn.ReLU) or node.target in _RELUS:
            return Activation(True)
        return None

    def _follower(self, node: fx.Node) -> fx.Node | None:
        """The reader of `node`, if it has only one and that one reads nothing else."""
        readers = list(node.users)
        return readers[0] if len(readers) == 1 and readers[0].all_input_nodes == [node] else None

    def _layer(self, node: fx.Node, module: nn.Conv2d | nn.Linear) -> None:
        path = str(node.target)
        if path in self.layers:
            raise self._refuse(node, "must be used once, but is used again")
        self.layers.add(path)
        sources = self._sources(node, node.args[:1])
        if isinstance(module, nn.Linear) and len(_shape(node)) != 1:
            raise self._refuse(node, f"must take flat tensors (N, K), but takes one of {len(_shape(node)) + 1} axes")
        padding = self._padding(node, module) if isinstance(module, nn.Conv2d) else (0, 0)
        short = path.rsplit(".", 1)[0] if path.endswith((".conv", ".0")) else path
        name = self._name(short)
        follower, nodes = self._follower(node), [node]
        if isinstance(module, nn.Linear) and follower is not None and follower.op == "output":
            self._put(Logits(name, sources, _shape(node), False, module), node)
            return
        norm = None
        if follower is not None and isinstance(
            batch := _modules(follower, self.module), nn.BatchNorm1d | nn.BatchNorm2d
        ):
            if batch.running_mean is None:
                raise self._refuse(follower, "must track running statistics")
            norm = batch
            nodes.append(follower)
            follower = self._follower(follower)
        activation = Activation()
        if follower is not None and (found := self._activation(follower)) is not None:
            activation = found
            nodes.append(follower)
        shape = _shape(nodes[-1])
        self._put(Layer(name, sources, shape, activation.rectified, module, padding, norm, activation), *nodes)

    def _padding(self, node: fx.Node, module: nn.Conv2d) -> Pair:
        if module.padding_mode != "zeros":
            raise self._refuse(node, f"must pad with zeros, but pads with '{module.padding_mode}'")
        if module.padding == "valid":
            return 0, 0
        if module.padding == "same":
            total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
            if any(pad % 2 for pad in total):
                raise self._refuse(node, "must pad alike on both sides, but an even kernel with 'same' does not")
            return total[0] // 2, total[1] // 2
        return _pair(module.padding)

    def _add(self, node: fx.Node) -> None:
        sources = self._sources(node, node.args)
        operands = [cast(fx.Node, operand) for operand in node.args]
        if node.kwargs or len(sources) != 2 or any(_shape(operand) != _shape(node) for operand in operands):
            raise self._refuse(node, "must add two tensors of one shape")
        activation, nodes, follower = Activation(), [node], self._follower(node)
        if follower is not None and (found := self._activation(follower)) is not None:
            activation = found
            nodes.append(follower)
        positive = activation.rectified or self._positive(sources)
        self._put(Add(self._name(f"{_scope(node)}.add"), sources, _shape(node), positive, activation), *nodes)

    def _average(self, node: fx.Node, module: nn.Module | None) -> tuple[Pair, Pair, Pair] | None:
        """Kernel, stride and padding, if the node is an average over windows."""
        target = node.target
        functions = (functional.adaptive_avg_pool2d, functional.avg_pool2d, torch.mean, "mean")
        if not isinstance(module, nn.AdaptiveAvgPool2d | nn.AvgPool2d) and target not in functions:
            return None
        size = _shape(cast(fx.Node, node.args[0]))[1:]
        if target in (torch.mean, "mean"):
            axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
            wanted = sorted(axis % 4 for axis in cast(Any, axes)) if isinstance(axes, tuple | list) else axes
            if len(size) != 2 or wanted != [2, 3]:
                raise self._refuse(node, "must be over rows and columns, (2, 3)")
            return (size[0], size[1]), (size[0], size[1]), (0, 0)
        if isinstance(module, nn.AdaptiveAvgPool2d) or target is functional.adaptive_avg_pool2d:
            outputs = _shape(node)[1:]
            if any(total % parts for total, parts in zip(size, outputs, strict=True)):
                raise self._refuse(node, f"must divide its input {size} into equal windows, but gives {outputs}")
            kernel = size[0] // outputs[0], size[1] // outputs[1]
            return kernel, kernel, (0, 0)
        get = self._arguments(node, module, ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"))
        if get("ceil_mode", False) or get("divisor_override", None) is not None:
            raise self._refuse(node, "must have ceil_mode False and no divisor_override")
        padding = _pair(get("padding", 0))
        if padding != (0, 0) and not get("count_include_pad", True):
            raise self._refuse(node, "must count padded taps")
        return _pair(get("kernel_size", None)), _pair(get("stride", None) or get("kernel_size", None)), padding

    def _maximum(self, node: fx.Node, module: nn.Module | None) -> tuple[Pair, Pair, Pair]:
        get = self._arguments(node, module, ("kernel_size", "stride", "padding", "dilation", "ceil_mode"))
        if get("ceil_mode", False) or get("return_indices", False) or _pair(get("dilation", 1)) != (1, 1):
            raise self._refuse(node, "must have dilation 1, ceil_mode False and return_indices False")
        return (
            _pair(get("kernel_size", None)),
            _pair(get("stride", None) or get("kernel_size", None)),
            _pair(get("padding", 0)),
        )

    def _arguments(self, node: fx.Node, module: nn.Module | None, names: tuple[str, ...]) -> Callable[[str, Any], Any]:
        """The arguments of a pool, from its module or its function call."""
        given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
        return lambda name, default: getattr(module, name, default) if module is not None else given.get(name, default)

    def _pool(
        self, node: fx.Node, kind: type[AveragePool] | type[MaxPool], kernel: Pair, stride: Pair, padding: Pair
    ) -> None:
        sources = self._sources(node, node.args[:1])
        wanted = str(node.target) if node.op == "call_module" else f"{_scope(node)}.pool"
        before, after, positive = _shape(cast(fx.Node, node.args[0])), _shape(node), self._positive(sources)
        rows, columns = (
            (total + 2 * pad - k) // s + 1 for total, pad, k, s in zip(before[1:], padding, kernel, stride, strict=True)
        )
        name, shape = self._name(wanted), (before[0], rows, columns)
        self._put(kind(name, sources, shape, positive, kernel, stride, padding), node)
        if len(after) == 1:
            self._put(Flatten(self._name(f"{name}.flat"), (name,), after, positive), node)

    def _flatten(self, node: fx.Node) -> None:
        sources = self._sources(node, node.args[:1])
        before, after = _shape(cast(fx.Node, node.args[0])), _shape(node)
        if after != (prod(before),):
            raise self._refuse(node, f"must flatten all but the batch, but makes {after} of {before}")
        if before == after:
            self.tensor[node] = sources[0]
            return
        wanted = str(node.target) if node.op == "call_module" else f"{_scope(node)}.flat"
        self._put(Flatten(self._name(wanted), sources, after, self._positive(sources)), node)

    def _concat(self, node: fx.Node) -> None:
        sources = self._sources(node, node.args[0])
        axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        if cast(int, axis) % (len(_shape(node)) + 1) != 1:
            raise self._refuse(node, "must be along the channels, dim 1")
        name = self._name(f"{_scope(node)}.cat")
        self._put(Concat(name, sources, _shape(node), self._positive(sources)), node)

"""A module as torch.export's functional graph of ATen operators, in float64."""

import contextlib
import logging
import operator
import os
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from dqtsim.errors import ModelError

# Not 1, which torch.export would take for a constant of the network, and which hides mixtures of pictures.
_BATCH = 2


@dataclass(frozen=True)
class Exported:
    """The graph of a network: what runs, whatever it was called.

    `constants` are the values of its placeholders in float64, but for the one called `source`, which takes `batch`
    pictures; `targets` are their names in the network. `outputs` are the nodes that are the network's results, in the
    order of its pytree.
    """

    module: fx.GraphModule
    constants: dict[str, torch.Tensor]
    source: str
    batch: int
    outputs: tuple[str, ...]
    targets: dict[str, str]

    def values(self, pictures: torch.Tensor, nodes: Collection[str]) -> dict[str, torch.Tensor]:
        """The values of the nodes called `nodes` for float64 pictures [batch, C, H, W]."""
        found: dict[str, torch.Tensor] = {}

        class Capture(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                value = super().run_node(n)
                if n.name in nodes:
                    # Batch norm gives its statistics, too; what is read is its first result.
                    found[n.name] = value[0] if isinstance(value, tuple | list) else value
                return value

        placeholders = [node.name for node in self.module.graph.nodes if node.op == "placeholder"]
        given = {**self.constants, self.source: pictures}
        with torch.no_grad():
            Capture(self.module).run(*(given[name] for name in placeholders))
        return found


def exported(model: nn.Module, shape: tuple[int, ...]) -> Exported:
    """The graph of `model`, which is on the CPU, in float64 and in eval mode, for pictures of `shape` (C, H, W).

    Exporting calls `model`, which may change its state. Raises ModelError in one sentence.
    """
    pictures = torch.zeros(_BATCH, *shape, dtype=torch.float64)
    try:
        with silent():
            program = torch.export.export(model, (pictures,))
            program = program.run_decompositions({})
    except GuardOnDataDependentSymNode as error:
        raise ModelError(
            f"a network must compute the same operations for all pictures, but {_where(error)} decides by the values "
            f"of a tensor; torch.where computes both sides."
        ) from error
    except Exception as error:
        raise _cause(model, pictures, error) from error
    return _opened(program)


def opened(program: ExportedProgram, shape: tuple[int, ...]) -> Exported:
    """The graph of a program that torch.export made, for pictures of `shape` (C, H, W)."""
    with silent():
        found = _opened(program.run_decompositions({}))
    node = next(node for node in found.module.graph.nodes if node.name == found.source)
    taken = tuple(node.meta["val"].shape[1:])
    if taken != shape:
        raise ModelError(f"a network must take pictures of its input_shape, {shape}, but was exported for {taken}.")
    return found


def reason(error: Exception) -> str:
    """The first line of PyTorch's message, without its full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without torch.export's warnings and logs, which are about its own workings; errors are raised all the same."""
    before = logging.root.manager.disable
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


def _opened(program: ExportedProgram) -> Exported:
    signature = program.graph_signature
    if len(signature.user_inputs) != 1:
        raise ModelError(f"a network must have one input, but this one has {len(signature.user_inputs)}.")
    held = {**program.state_dict, **program.constants}
    targets = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    constants = {name: _double(held[target]) for name, target in targets.items()}
    source = cast(str, signature.user_inputs[0])
    for node in list(program.graph.nodes):
        if called(node) == "_assert_tensor_metadata":
            program.graph.erase_node(node)
            continue
        # A graph in float32 is computed in float64 here, like its constants.
        node.kwargs = {key: _wide(value) for key, value in node.kwargs.items()}
        node.args = tuple(_wide(value) for value in node.args)
    batch = next(node for node in program.graph.nodes if node.name == source).meta["val"].shape[0]
    results = tuple(name for name in signature.user_outputs if isinstance(name, str))
    if not results:
        raise ModelError("a network must give at least one tensor, but gives none.")
    return Exported(program.graph_module, constants, source, int(batch), results, targets)


def _double(value: Any) -> torch.Tensor:
    tensor = cast(torch.Tensor, value).detach()
    return tensor.double() if tensor.is_floating_point() else tensor


def _wide(value: Any) -> Any:
    return torch.float64 if value in (torch.float16, torch.bfloat16, torch.float32) else value


def _where(error: Exception) -> str:
    """The line of the network's own code that torch.export names."""
    lines = [line.strip() for line in str(error).splitlines()]
    line = next((lines[i + 1] for i, line in enumerate(lines[:-1]) if line.startswith('File "')), "")
    return f"'{line}'" if line else "an 'if'"


def _cause(model: nn.Module, pictures: torch.Tensor, error: Exception) -> ModelError:
    """Why torch.export failed: what an ordinary call says, if that fails too."""
    entered: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def enter(name: str, module: nn.Module, inputs: tuple[object, ...]) -> None:
        first = next((value for value in inputs if isinstance(value, torch.Tensor)), pictures)
        entered.append((name, module, tuple(first.shape[1:])))

    def leave(*_: object) -> None:
        entered.pop()

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda module, inputs, name=name: enter(name, module, inputs)))
        hooks.append(module.register_forward_hook(leave))
    try:
        with torch.no_grad():
            model(pictures)
    except Exception as failure:
        name, module, taken = entered[-1] if entered else ("", model, tuple(pictures.shape[1:]))
        what = f"module '{name}' ({type(module).__name__})" if name else f"its forward ({type(module).__name__})"
        return ModelError(
            f"a network must take pictures of its input_shape, {tuple(pictures.shape[1:])}, in float64, but {what} "
            f"cannot take {taken}: {reason(failure)}."
        )
    finally:
        for hook in hooks:
            hook.remove()
    return ModelError(f"a network must be exportable by torch.export, but: {reason(error)}.")


def arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments of an operator by their names in its schema, defaults included."""
    schema = cast(torch._ops.OpOverload, node.target)._schema
    found = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    found |= dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    return found | dict(node.kwargs)


def called(node: fx.Node) -> str:
    """The name of an operator without namespace and overload, as "conv2d"."""
    if node.op != "call_function":
        return node.op
    if node.target is operator.getitem:
        return "getitem"
    target = node.target
    return target._schema.name.split("::")[1] if isinstance(target, torch._ops.OpOverload) else str(target)


def shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's tensor, N included; () of what is none."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()

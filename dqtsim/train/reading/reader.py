"""The walk over a functional graph: which node is which step, under which name, with which constants."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx

from dqtsim.errors import ModelError
from dqtsim.train.reading.export import Exported, called, shape
from dqtsim.train.steps import INPUT, Flatten, Function, Reshape, Sides, Step, Take, Traced, Transpose

_RESERVED = {INPUT, "bits"}
# In inference these give what they take.
_NOTHING = {"clone", "alias", "detach", "contiguous", "lift_fresh_copy", "lift_fresh"}
_CASTS = {"_to_copy", "to"}
_FILLED = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "new_empty", "empty_like"}


_RANDOM = "must not draw random numbers in eval mode; a dropout takes training=self.training"


def _draws(node: fx.Node) -> bool:
    """Whether an operator draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


@dataclass(frozen=True)
class Reading:
    """The steps of a network, and where the graph has their values.

    `nodes` names the node of each step's output, `sums` that of its value before the activation; a step that only
    rearranges another's numbers has none. `left_out` are the functions after the outputs that
    were left out.
    """

    traced: Traced
    exported: Exported
    nodes: dict[str, str]
    sums: dict[str, str]
    left_out: tuple[Function | None, ...]


class Reader:
    """What handlers of operators share. A node is a constant, or the output of a step, or not read yet."""

    def __init__(self, exported: Exported, handlers: Mapping[str, "Handler"], known: str) -> None:
        self.exported, self.handlers, self.known = exported, handlers, known
        # Read from a copy, because the guard runs the graph as it was exported.
        self.graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
        self.graph.output(self.graph.graph_copy(exported.module.graph, copies))
        # Names may change in the copy.
        self.original = {copy: node.name for node, copy in copies.items()}
        self.steps: dict[str, Step] = {}
        self.picture: tuple[int, ...] = ()
        self.tensor: dict[fx.Node, str] = {}
        self.values: dict[fx.Node, Any] = {}
        # What makes the tensor of a node that is no step unless something needs it, because a reader may absorb it.
        self.lazy: dict[fx.Node, Callable[[], object]] = {}
        # Zero padding by explicit operators: what is padded, the sides, and the value.
        self.padded: dict[fx.Node, tuple[fx.Node, Sides, float]] = {}
        self.pixels: dict[fx.Node, Any] = {}
        self.functions: dict[fx.Node, tuple[str, Function]] = {}
        self.views: dict[tuple[str, tuple[int, ...]], str] = {}
        # A softmax that is an output, its operand, and the function that was left out.
        self.before_softmax: dict[fx.Node, tuple[fx.Node, Function]] = {}
        self.taken = set(_RESERVED)
        self.nodes: dict[str, str] = {}
        self.sums: dict[str, str] = {}
        self.notes: list[str] = []

    def read(self) -> Reading:
        """All steps of the graph."""
        self._simplify()
        self._fold()
        for node in self.graph.nodes:
            if node.op == "call_function" and not self.is_read(node):
                handler = self.handlers.get(called(node))
                if handler is None:
                    raise self.refuse(node, _RANDOM if _draws(node) else "")
                handler(self, node)
        outputs, left_out = self._outputs()
        traced = Traced(tuple(self.steps.values()), outputs, tuple(self.notes))
        return Reading(traced, self.exported, self.nodes, self.sums, tuple(left_out))

    def _simplify(self) -> None:
        """Leave out what does nothing, and what no output needs."""
        output = next(node for node in self.graph.nodes if node.op == "output")
        wanted = {*self.exported.outputs}
        output.args = (
            tuple(node for node in output.args[0] if isinstance(node, fx.Node) and self.original[node] in wanted),
        )
        for node in reversed(list(self.graph.nodes)):
            if node.op == "call_function" and not node.users:
                self.graph.erase_node(node)
        for node in list(self.graph.nodes):
            if self._does_nothing(node):
                node.replace_all_uses_with(node.args[0])
                self.graph.erase_node(node)

    def _does_nothing(self, node: fx.Node) -> bool:
        name = called(node)
        if name == "getitem" and node.args[1] == 0 and "batch_norm" in called(cast(fx.Node, node.args[0])):
            # The other results are statistics.
            cast(fx.Node, node.args[0]).meta["val"] = node.meta["val"]
            return True
        if name in ("dropout", "feature_dropout"):
            return not node.args[2]
        if name in _CASTS:
            before = cast(fx.Node, node.args[0]).meta["val"]
            return bool(before.dtype.is_floating_point and node.meta["val"].dtype.is_floating_point)
        return name in _NOTHING

    def _fold(self) -> None:
        """The values of all nodes that do not depend on the picture."""
        for node in self.graph.nodes:
            if node.op == "placeholder" and self.original[node] == self.exported.source:
                self.tensor[node], self.picture = INPUT, self.shape(node)
            elif node.op == "placeholder":
                self.values[node] = self.exported.constants[self.original[node]]
            elif node.op == "call_function":
                self._fold_one(node)

    def _fold_one(self, node: fx.Node) -> None:
        def value(before: fx.Node) -> torch.Tensor:
            # Of a tensor that is only a pattern for the shape of another.
            return self.values[before] if before in self.values else torch.zeros(shape(before), dtype=torch.float64)

        constant = all(before in self.values for before in node.all_input_nodes)
        if not constant and called(node) not in _FILLED:
            return
        if _draws(node):
            raise self.refuse(node, _RANDOM)
        args, kwargs = fx.map_arg((node.args, node.kwargs), value)
        with torch.no_grad():
            self.values[node] = cast(Callable[..., Any], node.target)(*args, **kwargs)
        if not constant:
            # It does not read the pattern's values.
            node.args, node.kwargs = (), {}

    def _outputs(self) -> tuple[tuple[str, ...], list[Function | None]]:
        output = next(node for node in self.graph.nodes if node.op == "output")
        names: list[str] = []
        left_out: list[Function | None] = []
        for node in output.args[0]:
            whole = self.before_softmax.get(node, (node, None))
            name = self.plain(output, whole[0])
            if name == INPUT:
                raise ModelError("an output of a network must be computed from the picture, but one is the picture.")
            names.append(name)
            left_out.append(whole[1])
        return tuple(names), left_out

    def is_read(self, node: Any) -> bool:
        """Whether a node is a constant, a step's tensor, or left to its readers."""
        return node in self.tensor or node in self.values or node in self.lazy or node in self.before_softmax

    def refuse(self, node: fx.Node, why: str = "") -> ModelError:
        """The error for a node: one sentence with its module and its operator."""
        path, kind = self.module(node)
        known = kind.startswith("torch.nn.")
        what = (
            f"module '{path}' ({kind.split('.')[-1]})" if known else f"operation '{called(node)}' in '{path or 'root'}'"
        )
        return ModelError(f"{what} {why}." if why else f"prepare rewrites {self.known}; {what} is none of them.")

    def path(self, node: fx.Node) -> str:
        """The path of the module whose forward calls the operator."""
        return self.module(node)[0]

    def module(self, node: fx.Node) -> tuple[str, str]:
        """The path of that module, and the full name of its class."""
        path, kind = list((node.meta.get("nn_module_stack") or {"": ("", "")}).values())[-1]
        kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        return path.split("@")[0], kind

    def named(self, node: fx.Node, kind: str) -> str:
        """A free name for a step: the module's path if it is one of torch.nn, else its path and the kind of step."""
        path, made = self.module(node)
        # The padding of a convolution is not the convolution.
        is_its = path and made.startswith("torch.nn.") and not (kind == "take" and "Conv" in made)
        return self.name(path if is_its else f"{path}.{kind}")

    def name(self, wanted: str) -> str:
        """A free name like `wanted`."""
        wanted = wanted.lstrip(".")
        name, number = wanted, 1
        while name in self.taken:
            number += 1
            name = f"{wanted}{number}"
        self.taken.add(name)
        return name

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """The shape of a node's tensor without N; its first axis must be N's."""
        found = shape(node)
        if not found or found[0] != self.exported.batch:
            raise self.refuse(node, f"must keep pictures apart, but makes {found} of {self.exported.batch} pictures")
        return found[1:]

    def source(self, node: fx.Node, operand: Any) -> str:
        """The name of the tensor that `operand` of `node` is; it is computed by a step now, if it was not before."""
        if operand in self.lazy:
            self.lazy[operand]()
            self.lazy.pop(operand, None)
        if not isinstance(operand, fx.Node) or operand not in self.tensor:
            found = f"a constant of shape {tuple(self.values[operand].shape)}" if operand in self.values else operand
            raise self.refuse(node, f"must take tensors that earlier steps made, but takes {found}")
        return self.tensor[operand]

    def plain(self, node: fx.Node, operand: Any) -> str:
        """The same as a tensor of the operand's own shape; that of a convolution in one dimension is [C, 1, L]."""
        return self.view(self.source(node, operand), self.shape(operand))

    def planes(self, node: fx.Node, operand: Any) -> str:
        """The same as a tensor of three axes: [C, L] becomes [C, 1, L]."""
        found = self.source(node, operand)
        axes = self.shape_of(found)
        return self.view(found, (axes[0], 1, axes[1])) if len(axes) == 2 else found

    def view(self, name: str, shape: tuple[int, ...]) -> str:
        """The tensor called `name` in another shape, for which there may be a step already."""
        if self.shape_of(name) == shape:
            return name
        if (name, shape) not in self.views:
            kind = Flatten if len(shape) == 1 else Reshape
            new = self.name(f"{name}.{'flat' if len(shape) == 1 else 'view'}")
            self.views[name, shape] = self.put(kind(new, (name,), shape, self.positive((name,))), [])
        return self.views[name, shape]

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a step's tensor, or of the picture."""
        return self.picture if name == INPUT else self.steps[name].shape

    def shows_picture(self, name: str) -> bool:
        """Whether a tensor is the picture, or made of its numbers alone in another order."""
        if name == INPUT:
            return True
        step = self.steps[name]
        return isinstance(step, Flatten | Reshape | Transpose | Take) and self.shows_picture(step.sources[0])

    def constant(self, node: fx.Node, operand: Any, what: str) -> torch.Tensor:
        """The value of an operand that must be the same for all pictures."""
        if operand not in self.values:
            raise self.refuse(node, f"must have {what} that are constants, but they are computed from the picture")
        return cast(torch.Tensor, self.values[operand])

    def is_constant(self, operand: Any) -> bool:
        """Whether an operand is a number or a tensor that is the same for all pictures."""
        return operand in self.values if isinstance(operand, fx.Node) else isinstance(operand, int | float)

    def name_as(self, node: fx.Node, name: str) -> None:
        """Say that the step called `name` is the last of those that compute `node`."""
        self.tensor[node] = name
        if name != INPUT:
            self.nodes.setdefault(name, self.original[node])

    def positive(self, sources: Iterable[str]) -> bool:
        """Whether none of the tensors is ever negative."""
        return all(source != INPUT and self.steps[source].positive for source in sources)

    def follower(self, node: fx.Node) -> fx.Node | None:
        """The reader of `node`, if it has only one and that one reads nothing else but constants."""
        readers = list(node.users)
        if len(readers) != 1 or readers[0].op != "call_function":
            return None
        others = [before for before in readers[0].all_input_nodes if before is not node]
        return readers[0] if all(before in self.values for before in others) else None

    def put(self, step: Step, nodes: Sequence[fx.Node], sums: fx.Node | None = None) -> str:
        """Add a step that computes the last of `nodes`, and all others on the way; `sums` is before its activation."""
        self.steps[step.name] = step
        if nodes:
            self.nodes[step.name] = self.original[nodes[-1]]
        if sums is not None and sums is not nodes[-1]:
            self.sums[step.name] = self.original[sums]
        for node in nodes:
            self.tensor[node] = step.name
        return step.name


Handler = Callable[[Reader, fx.Node], None]

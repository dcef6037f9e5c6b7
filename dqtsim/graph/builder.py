"""Building a nested network layer by layer. The trainer, the random networks and the tests all build graphs here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from ..spec.rules import Nesting, Rounding
from ..spec.window import Window
from .checks import check_graph
from .decide import decide
from .model import BITS, PINNED_BITS, Arithmetic, Array, Graph, Node, Quantization, Value, Widths, freeze
from .schema import DOMAIN, SCHEMAS, Attribute, Form
from .static import with_bits

Integers = npt.ArrayLike


@dataclass(frozen=True)
class Tensor:
    """A tensor under construction: its name, shape (N = 1 first) and, for codes, the quantization."""

    name: str
    shape: tuple[int, ...]
    quantization: Quantization | None = None


class GraphBuilder:
    """Collects nodes and arrays; `build()` checks them and freezes them into a Graph.

    A layer's name is also the name of its output tensor. Layers are numbered in the order of their creation; that
    order is the order of the rows of `bits`. Arrays: weights uint8 master codes (O, I/group, kh, kw) or (O, I); bias,
    multiplier, shift int64 (R, O), one row per entry of `row_widths` (B3') or, in its place, of `row_pairs`, pairs of a
    weight width and an activation width (B3''). `clip` is (low, high) of B4. A layer with both or neither of them is
    refused with a ModelError.
    """

    def __init__(
        self,
        name: str,
        *,
        master_width: int = 8,
        weight_rule: str = "TIES_UP",
        activation_rule: str = "TIES_UP",
        rounding: str = "TIES_UP",
        candidates: Sequence[Widths] = ((2, 2), (4, 4), (8, 8)),
        class_names: Sequence[str] = (),
        producer: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.arithmetic = Arithmetic(master_width, Nesting(weight_rule), Nesting(activation_rule), Rounding(rounding))
        self.candidates = tuple((int(w), int(a)) for w, a in candidates)
        self.class_names = tuple(class_names)
        self.producer = dict(producer or {})
        self._inputs: list[Value] = []
        self._outputs: list[Value] = []
        self._nodes: list[Node] = []
        self._arrays: dict[str, Array] = {}
        self._quantization: dict[str, Quantization] = {}
        self._layers: list[str] = []
        self._pinned: dict[str, Widths] = {}
        self._picture: dict[str, str] = {}
        self._controller: Tensor | None = None
        self._control_at = 0

    @property
    def layer_count(self) -> int:
        """Return how many rows `bits` has so far."""
        return len(self._layers)

    def input(self, name: str, shape: Sequence[int], *, zero_point: int, scale: float) -> Tensor:
        """Declare the input codes, shape (1, C, H, W) or (1, K). A picture's pixels are the codes themselves."""
        self._inputs.append(Value(name, "uint8", tuple(shape)))
        if len(shape) == 4:
            self._picture = {
                "layout": "NCHW",
                "channels": "RGB" if shape[1] == 3 else str(shape[1]),
                "height": str(shape[2]),
                "width": str(shape[3]),
                "mean": str(zero_point),
                "scale": repr(float(scale)),
            }
        return self._codes(name, tuple(shape), zero_point, (scale,))

    def conv(
        self,
        name: str,
        x: Tensor,
        *,
        weight: Array,
        bias: Integers,
        multiplier: Integers,
        shift: Integers,
        row_widths: Sequence[int] | None = None,
        row_pairs: Sequence[Widths] | None = None,
        zero_point: int,
        scale: float,
        clip: tuple[int, int],
        strides: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilations: tuple[int, int] = (1, 1),
        group: int = 1,
        weight_scale: Sequence[float] | Array = (1.0,),
        pinned: Widths | None = None,
    ) -> Tensor:
        """Add a NestedConv (B1-B4)."""
        window = Window((weight.shape[2], weight.shape[3]), strides, dilations, pads)
        rows, columns = window.output_size(x.shape[2], x.shape[3])
        attributes: dict[str, Attribute] = {
            "strides": strides,
            "pads": pads,
            "dilations": dilations,
            "group": group,
            **_clip(clip),
        }
        shape = (1, weight.shape[0], rows, columns)
        tables = {"bias": bias, "multiplier": multiplier, "shift": shift}
        self._rows(name, row_widths, row_pairs, attributes, tables)
        return self._layer(
            "NestedConv", name, x, weight, weight_scale, tables, attributes, shape, (zero_point, scale), pinned
        )

    def gemm(
        self,
        name: str,
        x: Tensor,
        *,
        weight: Array,
        bias: Integers,
        multiplier: Integers,
        shift: Integers,
        row_widths: Sequence[int] | None = None,
        row_pairs: Sequence[Widths] | None = None,
        zero_point: int,
        scale: float,
        clip: tuple[int, int],
        weight_scale: Sequence[float] | Array = (1.0,),
        pinned: Widths | None = None,
        controller: bool = False,
    ) -> Tensor:
        """Add a NestedGemm (B1-B4); with `controller` it runs at the master width and is no row of `bits` (B8)."""
        attributes: dict[str, Attribute] = {**_clip(clip)}
        tables = {"bias": bias, "multiplier": multiplier, "shift": shift}
        self._rows(name, row_widths, row_pairs, attributes, tables)
        quantization = (zero_point, scale)
        shape = (1, weight.shape[0])
        return self._layer(
            "NestedGemm", name, x, weight, weight_scale, tables, attributes, shape, quantization, pinned, controller
        )

    def logits(
        self,
        name: str,
        x: Tensor,
        *,
        weight: Array,
        bias: Integers,
        row_widths: Sequence[int] | None = None,
        row_pairs: Sequence[Widths] | None = None,
        weight_scale: Sequence[float] | Array = (1.0,),
        pinned: Widths | None = None,
        controller: bool = False,
    ) -> Tensor:
        """Add a NestedLogits: A + B as int32, never requantized (B7)."""
        attributes: dict[str, Attribute] = {}
        tables = {"bias": bias}
        self._rows(name, row_widths, row_pairs, attributes, tables)
        shape = (1, weight.shape[0])
        return self._layer(
            "NestedLogits", name, x, weight, weight_scale, tables, attributes, shape, None, pinned, controller
        )

    def add(
        self,
        name: str,
        a: Tensor,
        b: Tensor,
        *,
        multiplier_a: int,
        multiplier_b: int,
        shift: int,
        zero_point: int,
        scale: float,
        clip: tuple[int, int],
    ) -> Tensor:
        """Add a NestedAdd (B5)."""
        constants = {"a_multiplier": multiplier_a, "b_multiplier": multiplier_b, "shift": shift}
        given = {"a": a, "b": b}, constants, _clip(clip)
        return self.operator("NestedAdd", name, a.shape, *given, zero_point=zero_point, scale=scale)

    def multiply(
        self,
        name: str,
        a: Tensor,
        b: Tensor,
        *,
        multiplier: int,
        shift: int,
        zero_point: int,
        scale: float,
        clip: tuple[int, int],
    ) -> Tensor:
        """Add a NestedMultiply (B10); `b` has the shape of `a`, or (1, C, 1, 1): one code per channel."""
        given = {"a": a, "b": b}, {"multiplier": multiplier, "shift": shift}, _clip(clip)
        return self.operator("NestedMultiply", name, a.shape, *given, zero_point=zero_point, scale=scale)

    def average_pool(
        self,
        name: str,
        x: Tensor,
        *,
        kernel: tuple[int, int],
        strides: tuple[int, int],
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        multiplier: int,
        shift: int,
        zero_point: int,
        scale: float,
        clip: tuple[int, int],
    ) -> Tensor:
        """Add a NestedAveragePool; the multiplier carries 1/area (B6)."""
        rows, columns = Window(kernel, strides, pads=pads).output_size(x.shape[2], x.shape[3])
        attributes: dict[str, Attribute] = {"kernel_shape": kernel, "strides": strides, "pads": pads, **_clip(clip)}
        given = {"x": x}, {"multiplier": multiplier, "shift": shift}, attributes
        shape = (*x.shape[:2], rows, columns)
        return self.operator("NestedAveragePool", name, shape, *given, zero_point=zero_point, scale=scale)

    def requantize(
        self, name: str, x: Tensor, *, multiplier: int, shift: int, zero_point: int, scale: float, clip: tuple[int, int]
    ) -> Tensor:
        """Add a NestedRequantize: the same values on another grid (B4), as a Concat of unlike scales needs it."""
        given = {"x": x}, {"multiplier": multiplier, "shift": shift}, _clip(clip)
        return self.operator("NestedRequantize", name, x.shape, *given, zero_point=zero_point, scale=scale)

    def operator(
        self,
        operator: str,
        name: str,
        shape: Sequence[int],
        tensors: Mapping[str, Tensor],
        constants: Mapping[str, Integers],
        attributes: Mapping[str, Attribute] = MappingProxyType({}),
        *,
        zero_point: int,
        scale: float,
        form: Form = (),
    ) -> Tensor:
        """Add any operator of the domain that gives codes and has no widths; `tensors` and `constants` come by role.

        The zero points in its schema are those of the tensors; `y_zero_point` is that of the result. `form` names the
        parts of the schema that the node uses. Raises ModelError for a constant that the dtype of its role does not
        hold.
        """
        y = self._codes(name, tuple(shape), zero_point, (scale,))
        schema = SCHEMAS[DOMAIN, operator]
        operands = {role: x.name for role, x in tensors.items()}
        for role, x in {**tensors, "y": y}.items():
            if f"{role}_zero_point" in schema.roles(0):
                operands[f"{role}_zero_point"] = self._zero_point(x)
        dtypes = {entry.name: entry.dtypes[0] for entry in schema.inputs_of(form)}
        for role, value in constants.items():
            array = np.asarray(value).astype(dtypes[role])
            if not np.array_equal(array, value):
                raise ModelError(f"'{role}' of '{name}' holds numbers that are no {dtypes[role]}.")
            operands[role] = self._array(f"{name}.{role}", array)
        self._node(name, DOMAIN, operator, operands, attributes, form)
        return y

    def max_pool(
        self,
        name: str,
        x: Tensor,
        *,
        kernel: tuple[int, int],
        strides: tuple[int, int],
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> Tensor:
        """Add a MaxPool on codes (B6)."""
        rows, columns = Window(kernel, strides, pads=pads).output_size(x.shape[2], x.shape[3])
        self._node(
            name,
            "",
            "MaxPool",
            {"x": x.name},
            {
                "kernel_shape": kernel,
                "strides": strides,
                "pads": pads,
                "dilations": (1, 1),
                "ceil_mode": 0,
                "storage_order": 0,
                "auto_pad": "NOTSET",
            },
        )
        return self._same(name, x, (*x.shape[:2], rows, columns))

    def flatten(self, name: str, x: Tensor) -> Tensor:
        """Add a Flatten to (1, K), in C, H, W order."""
        self._node(name, "", "Flatten", {"input": x.name}, {"axis": 1})
        return self._same(name, x, (1, int(np.prod(x.shape[1:]))))

    def concat(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        """Add a Concat along the channels; the parts must share one quantization."""
        self._node(name, "", "Concat", {f"inputs.{i}": part.name for i, part in enumerate(parts)}, {"axis": 1})
        channels = sum(part.shape[1] for part in parts)
        return self._same(name, parts[0], (1, channels, *parts[0].shape[2:]))

    def control(self, logits: Tensor) -> None:
        """Let the argmax of `logits` (1, layers * K) choose the widths of every unpinned layer created from here on."""
        self._controller = logits
        self._control_at = len(self._nodes)

    def output(self, x: Tensor, *, classes: bool = False) -> None:
        """Declare a graph output; with `classes` it must have one entry per class name."""
        if classes and self.class_names and x.shape[-1] != len(self.class_names):
            raise ModelError(f"output '{x.name}' has {x.shape[-1]} entries for {len(self.class_names)} class names.")
        self._outputs.append(Value(x.name, "uint8" if x.quantization else "int32", x.shape))

    def build(self, bits: Sequence[Widths] | None = None) -> Graph:
        """Return the checked graph. `bits`, one pair per layer, makes the widths static and replaces a controller.

        Without it and without a controller, pinned layers have their own widths and all others the master width.
        """
        n = self.arithmetic.master_width
        nodes = list(self._nodes)
        outputs = list(self._outputs)
        if self._controller is not None:
            chosen = [layer for layer in self._layers if layer not in self._pinned]
            logits = self._controller.name, self._controller.shape[-1]
            made, arrays = decide(*logits, self._layers, chosen, list(self._pinned), self.candidates)
            nodes[self._control_at : self._control_at] = made
            self._arrays |= {key: freeze(array) for key, array in arrays.items()}
            outputs.append(Value(BITS, "int64", (len(self._layers), 2)))
        if self._pinned:
            pinned = list(self._pinned.values())
            self._arrays[PINNED_BITS] = freeze(np.array(pinned, np.int64).reshape(len(pinned), 2))
        used = {name for node in nodes for name in node.inputs}
        graph = Graph(
            name=self.name,
            arithmetic=self.arithmetic,
            inputs=tuple(self._inputs),
            outputs=tuple(outputs),
            nodes=tuple(nodes),
            initializers=MappingProxyType({k: v for k, v in self._arrays.items() if k in used}),
            quantization=MappingProxyType(dict(self._quantization)),
            layers=tuple(self._layers),
            candidates=self.candidates,
            pinned=MappingProxyType(dict(self._pinned)),
            controller=self._controller.name if self._controller else "",
            class_names=self.class_names,
            picture=MappingProxyType(dict(self._picture)),
            producer=MappingProxyType(dict(self.producer)),
        )
        if self._controller is None or bits is not None:
            return with_bits(graph, bits or [self._pinned.get(layer, (n, n)) for layer in self._layers])
        check_graph(graph)
        return graph

    def _layer(
        self,
        operator: str,
        name: str,
        x: Tensor,
        weight: Array,
        weight_scale: Sequence[float] | Array,
        tables: Mapping[str, Integers],
        attributes: Mapping[str, Attribute],
        shape: tuple[int, ...],
        quantization: tuple[int, float] | None,
        pinned: Widths | None,
        controller: bool = False,
    ) -> Tensor:
        n = self.arithmetic.master_width
        widths = self._widths(name, pinned, controller)
        operands = {"x": x.name, "w": self._array(f"{name}.weight", np.asarray(weight, np.uint8))}
        operands |= {"x_zero_point": self._zero_point(x), "widths": widths}
        scales = tuple(float(s) for s in np.asarray(weight_scale, np.float64).reshape(-1))
        self._quantization[f"{name}.weight"] = Quantization(scales, 1 << (n - 1))
        y = Tensor(name, shape)
        if quantization is not None:
            y = self._codes(name, shape, quantization[0], (quantization[1],))
            operands["y_zero_point"] = self._zero_point(y)
        operands |= {role: self._array(f"{name}.{role}", np.asarray(t, np.int64)) for role, t in tables.items()}
        form = tuple(part.name for part in SCHEMAS[DOMAIN, operator].parts if part.name in operands)
        self._node(name, DOMAIN, operator, operands, attributes, form)
        return y

    def _rows(
        self,
        name: str,
        row_widths: Sequence[int] | None,
        row_pairs: Sequence[Widths] | None,
        attributes: dict[str, Attribute],
        tables: dict[str, Integers],
    ) -> None:
        """Put what selects the rows of layer `name` among its attributes or among its tables."""
        if (row_widths is None) == (row_pairs is None):
            found = "neither" if row_widths is None else "both"
            raise ModelError(f"layer '{name}' takes either row_widths or row_pairs; found {found}.")
        if row_widths is not None:
            attributes["row_widths"] = tuple(row_widths)
        if row_pairs is not None:
            tables["row_pairs"] = np.asarray(row_pairs, np.int64).reshape(-1, 2)

    def _widths(self, name: str, pinned: Widths | None, controller: bool) -> str:
        """Return the tensor of the two widths of layer `name`, gathered from its row of `bits`."""
        n = self.arithmetic.master_width
        if controller:
            return self._array("bits.master", np.array([n, n], np.int64))
        self._layers.append(name)
        source, row = BITS, len(self._layers) - 1
        if pinned is not None:
            source, row = PINNED_BITS, len(self._pinned)
            self._pinned[name] = (int(pinned[0]), int(pinned[1]))
        index = self._array(f"{name}.row", np.array(row, np.int64))
        self._node(f"{name}.widths", "", "Gather", {"data": source, "indices": index}, {"axis": 0})
        return f"{name}.widths"

    def _codes(self, name: str, shape: tuple[int, ...], zero_point: int, scale: tuple[float, ...]) -> Tensor:
        quantization = Quantization(tuple(float(s) for s in scale), int(zero_point))
        self._quantization[name] = quantization
        return Tensor(name, shape, quantization)

    def _same(self, name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        assert x.quantization is not None
        return self._codes(name, shape, x.quantization.zero_point, x.quantization.scale)

    def _zero_point(self, x: Tensor) -> str:
        assert x.quantization is not None
        return self._array(f"{x.name}.zero_point", np.array(x.quantization.zero_point, np.uint8))

    def _array(self, name: str, array: Array) -> str:
        self._arrays[name] = freeze(array)
        return name

    def _node(
        self,
        name: str,
        domain: str,
        operator: str,
        operands: Mapping[str, str],
        attributes: Mapping[str, Attribute],
        form: Form = (),
    ) -> None:
        """Add a node whose inputs are `operands`, tensor names by role."""
        inputs = tuple(operands[role] for role in SCHEMAS[domain, operator].roles(len(operands), form))
        self._nodes.append(Node(name, domain, operator, inputs, (name,), MappingProxyType(dict(attributes)), form))


def _clip(clip: tuple[int, int]) -> dict[str, Attribute]:
    return {"low": int(clip[0]), "high": int(clip[1])}

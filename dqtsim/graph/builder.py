"""Building a nested network layer by layer. The trainer, the random networks and the tests all build graphs here."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from ..errors import ModelError
from ..spec.rules import Nesting, Rounding
from ..spec.window import Window
from .checks import check_graph
from .codes import Integers, Tensor, clipped
from .decide import decide
from .model import BITS, PINNED_BITS, Arithmetic, Array, Graph, Quantization, Value, Widths, freeze
from .moves import MovesBuilder
from .schema import DOMAIN, SCHEMAS, Attribute
from .static import with_bits

__all__ = ["GraphBuilder", "Integers", "Tensor"]


class GraphBuilder(MovesBuilder):
    """Collects nodes and arrays; `build()` checks them and freezes them into a Graph.

    A layer's name is also the name of its output tensor. Layers are numbered in the order of their creation; that
    order is the order of the rows of `bits`. Arrays: weights uint8 master codes (O, I/group, kh, kw) or (O, I); bias,
    multiplier, shift int64 (R, O), one row per entry of `row_widths` (B3') or, in its place, of `row_pairs`, pairs of a
    weight width and an activation width (B3''). `windows` has one entry a width from 0 to n (A6), `padding` one master
    code a channel of the input (B1'). `clip` is (low, high) of B4. A layer with both or neither kind of rows is refused
    with a ModelError.
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
        super().__init__()
        self.name = name
        self.arithmetic = Arithmetic(master_width, Nesting(weight_rule), Nesting(activation_rule), Rounding(rounding))
        self.candidates = tuple((int(w), int(a)) for w, a in candidates)
        self.class_names = tuple(class_names)
        self.producer = dict(producer or {})
        self._inputs: list[Value] = []
        self._outputs: list[Value] = []
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
        windows: Sequence[int] | None = None,
        padding: Sequence[int] | Array | None = None,
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
            **clipped(clip),
        }
        shape = (1, weight.shape[0], rows, columns)
        tables = {"bias": bias, "multiplier": multiplier, "shift": shift}
        tables |= _tables(name, row_widths, attributes, row_pairs=row_pairs, windows=windows, padding=padding)
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
        windows: Sequence[int] | None = None,
        zero_point: int,
        scale: float,
        clip: tuple[int, int],
        weight_scale: Sequence[float] | Array = (1.0,),
        pinned: Widths | None = None,
        controller: bool = False,
    ) -> Tensor:
        """Add a NestedGemm (B1-B4); with `controller` it runs at the master width and is no row of `bits` (B8)."""
        attributes: dict[str, Attribute] = {**clipped(clip)}
        tables = {"bias": bias, "multiplier": multiplier, "shift": shift}
        tables |= _tables(name, row_widths, attributes, row_pairs=row_pairs, windows=windows)
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
        windows: Sequence[int] | None = None,
        weight_scale: Sequence[float] | Array = (1.0,),
        pinned: Widths | None = None,
        controller: bool = False,
    ) -> Tensor:
        """Add a NestedLogits: A + B as int32, never requantized (B7)."""
        attributes: dict[str, Attribute] = {}
        tables: dict[str, Integers] = {"bias": bias}
        tables |= _tables(name, row_widths, attributes, row_pairs=row_pairs, windows=windows)
        shape = (1, weight.shape[0])
        return self._layer(
            "NestedLogits", name, x, weight, weight_scale, tables, attributes, shape, None, pinned, controller
        )

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
        for role, table in tables.items():
            dtype = np.uint8 if role == "padding" else np.int64
            operands[role] = self._array(f"{name}.{role}", np.asarray(table, dtype))
        form = tuple(part.name for part in SCHEMAS[DOMAIN, operator].parts if part.name in operands)
        self._node(name, DOMAIN, operator, operands, attributes, form)
        return y

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


def _tables(
    name: str, row_widths: Sequence[int] | None, attributes: dict[str, Attribute], **tables: Integers | None
) -> dict[str, Integers]:
    """Return those tables of layer `name` that are given; ascending row widths become an attribute."""
    if (row_widths is None) == (tables["row_pairs"] is None):
        found = "neither" if row_widths is None else "both"
        raise ModelError(f"layer '{name}' takes either row_widths or row_pairs; found {found}.")
    if row_widths is not None:
        attributes["row_widths"] = tuple(row_widths)
    return {role: table for role, table in tables.items() if table is not None}

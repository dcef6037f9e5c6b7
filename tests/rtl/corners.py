"""Corner layers: small, awkward in shape, and at the ends of every range, for circuits of every kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dqtsim.planner import Plan, plan
from dqtsim.rtl import cosim, vectors
from dqtsim.rtl.corner import corner
from dqtsim.rtl.vectors import LayerVector
from dqtsim.spec.rules import Nesting, Overflow, Rounding, TapOrder
from dqtsim.target import ArrayMode
from tests.builders import conv, dense, target

Widths = tuple[int, int]
PAIRS: tuple[Widths, ...] = ((8, 8), (1, 1), (5, 3), (2, 8), (8, 1), (4, 4))


@dataclass(frozen=True)
class Circuit:
    """A circuit, by what differs from the default target and from the default rules, and by the parts of its layers."""

    target: Mapping[str, Any]
    rules: Mapping[str, Any] = field(default_factory=dict)
    pairs: Sequence[Widths] = PAIRS
    windows: Sequence[int] = ()
    row_pairs: Sequence[Widths] = ()
    padding: bool = False

    def plan(self, pair: Widths, kind: str) -> Plan:
        """Return the plan of one layer of the given kind."""
        one: dict[str, Any] = {"multiplier": 1, "shift": 0, "bits": pair, "rules": self.rules}
        n = self.rules.get("master_width", 8)
        one |= {"z_x": 1, "z_y": 1}
        if self.windows:
            one["windows"] = self.windows
        if self.row_pairs:
            one["row_pairs"] = self.row_pairs
        if kind == "conv":
            geometry: dict[str, Any] = {"group": 2, "strides": (2, 1), "dilations": (1, 2), "pads": (1, 0, 2, 3)}
            if self.padding:
                geometry |= {"padding": (0,) * 4, "pads": (1, 2, 2, 3)}
            graph = conv((4, 5, 4), np.zeros((6, 2, 3, 2), np.int64), **one, **geometry)
        elif kind == "pointwise":
            graph = conv((3, 2, 4), np.zeros((5, 3, 1, 1), np.int64), **one)
        else:
            if kind == "logits":
                del one["multiplier"], one["shift"]
            graph = dense(np.zeros((3, 19), np.int64), logits=kind == "logits", **one)
        assert graph.arithmetic.master_width == n
        return plan(graph, target(**self.target))


def circuit(
    mode: ArrayMode, overflow: Overflow, width: int, rounding: Rounding, *, rows: int = 3, columns: int = 2, **more: Any
) -> Circuit:
    """Return a circuit; entries of `more` that are rules of models go there, others to the target."""
    rules: dict[str, Any] = {
        name: more.pop(name) for name in ("weight_rule", "activation_rule", "master_width") if name in more
    }
    parts = {name: more.pop(name) for name in ("windows", "row_pairs", "padding") if name in more}
    pairs = more.pop("pairs", PAIRS)
    changes = {"mode": mode, "overflow": overflow, "accumulator_width": width, "rounding": rounding}
    return Circuit({**changes, "rows": rows, "columns": columns, **more}, rules, pairs, **parts)


_P, _A, _D = ArrayMode.PARALLEL, ArrayMode.ACTIVATION_SERIAL, ArrayMode.DIGIT_SERIAL
_MIDPOINT: dict[str, Any] = {"weight_rule": Nesting.MIDPOINT}
_CENTROID: dict[str, Any] = {"weight_rule": Nesting.CENTROID}
# as low as it goes, so that e_a is 0; and some bits lower
_LOWEST: dict[str, Any] = {"windows": (0, 7, 6, 5, 4, 3, 2, 1, 0), "padding": True}
_LOWER: dict[str, Any] = {"windows": (0, 1, 2, 3, 2, 1, 1, 1, 0), "padding": True}
# weights below the master width, of which half a step is taken off, on activations with e_a = 0 and above
_BELOW: tuple[Widths, ...] = ((2, 8), (1, 1), (5, 3), (8, 8), (3, 7), (4, 4))
_ROWS: dict[str, Any] = {"row_pairs": ((4, 4), (2, 8), (8, 8), (8, 1))}
_FLOOR: dict[str, Any] = {"weight_rule": Nesting.FLOOR, "activation_rule": Nesting.FLOOR}
_NHWC: dict[str, Any] = {"tap_order": TapOrder.ROW_COLUMN_CHANNEL}
CIRCUITS: dict[str, Circuit] = {
    "parallel error": circuit(_P, Overflow.ERROR, 32, Rounding.TIES_UP, multiplier_width=31),
    "parallel wrap": circuit(_P, Overflow.WRAP, 12, Rounding.TIES_AWAY, **_MIDPOINT),
    "parallel saturate": circuit(_P, Overflow.SATURATE, 14, Rounding.TIES_EVEN, **_FLOOR),
    "parallel each": circuit(_P, Overflow.SATURATE_EACH, 14, Rounding.FLOOR, **_NHWC),
    "bits error": circuit(_A, Overflow.ERROR, 48, Rounding.TIES_AWAY, multiplier_width=31, bias_width=48),
    "bits wrap": circuit(_A, Overflow.WRAP, 16, Rounding.TIES_UP, **_MIDPOINT, activation_rule=Nesting.FLOOR),
    "bits each": circuit(_A, Overflow.SATURATE_EACH, 15, Rounding.TIES_EVEN, **_MIDPOINT),
    "digits saturate": circuit(_D, Overflow.SATURATE, 15, Rounding.TIES_EVEN),
    "digits wrap": circuit(_D, Overflow.WRAP, 17, Rounding.TIES_AWAY, **_MIDPOINT, bias_width=20),
    "digits each": circuit(_D, Overflow.SATURATE_EACH, 13, Rounding.TIES_UP, **_MIDPOINT, **_NHWC),
    "one element": circuit(
        *(_P, Overflow.WRAP, 8, Rounding.TIES_UP),
        rows=1,
        columns=1,
        multiplier_width=2,
        bias_width=8,
        pairs=((8, 8), (1, 1), (2, 2), (2, 1), (8, 1), (4, 4)),
    ),
    "master 5": circuit(
        *(_D, Overflow.SATURATE, 10, Rounding.FLOOR), master_width=5, pairs=((5, 5), (1, 3), (4, 2)), rows=5, columns=4
    ),
    "parallel windows": circuit(_P, Overflow.SATURATE, 16, Rounding.TIES_UP, **_LOWEST, **_NHWC),
    "bits windows": circuit(_A, Overflow.WRAP, 14, Rounding.TIES_EVEN, **_FLOOR, **_LOWER),
    "digits windows": circuit(
        _D, Overflow.SATURATE_EACH, 15, Rounding.TIES_AWAY, **_MIDPOINT, **_LOWER, **_ROWS, pairs=_BELOW
    ),
    "parallel centroid": circuit(_P, Overflow.ERROR, 32, Rounding.TIES_UP, **_CENTROID, **_ROWS, pairs=_BELOW),
    "bits centroid": circuit(_A, Overflow.SATURATE_EACH, 15, Rounding.FLOOR, **_CENTROID, **_LOWEST, pairs=_BELOW),
    "digits centroid": circuit(
        _D, Overflow.WRAP, 17, Rounding.TIES_AWAY, **_CENTROID, **_LOWER, **_ROWS, pairs=_BELOW, bias_width=20
    ),
    "digits centroid, master 5": circuit(
        _D,
        Overflow.SATURATE,
        10,
        Rounding.TIES_EVEN,
        **{**_CENTROID, "windows": (0, 3, 3, 1, 1, 0), "padding": True},
        master_width=5,
        pairs=((2, 5), (1, 3), (4, 2)),
        columns=3,
    ),
}


@cache
def layers(name: str) -> tuple[dict[str, int], tuple[LayerVector, ...]]:
    """Return the parameters of a circuit and its corner layers."""
    made = CIRCUITS[name]
    found: list[LayerVector] = []
    hardware: dict[str, int] = {}
    for number, pair in enumerate(made.pairs):
        for kind in ("conv", ("pointwise", "gemm", "logits")[number % 3]):
            compiled = made.plan(pair, kind)
            hardware |= vectors.parameters(compiled)
            shape = compiled.graph.input.shape
            (vector,) = vectors.record(compiled, np.zeros(shape, np.uint8))
            first = 100 * list(CIRCUITS).index(name) + 10 * number + 3 * (kind == "conv")
            kinds: tuple[dict[str, bool], ...] = ({}, {"plain_shift": True}, {"extreme": True})
            found += [corner(compiled, vector, first + k, **how) for k, how in enumerate(kinds)]
    return hardware, tuple(_in_circuit(vector, hardware) for vector in found)


def _in_circuit(vector: LayerVector, hardware: Mapping[str, int]) -> LayerVector:
    """Return a layer without padding codes as its vectors are in a circuit that has them: it pads by the zero point."""
    if "PADDING" not in hardware or "padding" in vector.arrays:
        return vector
    padding = np.full(vector.config["groups"] * vector.config["channels"], vector.config["z_x"], np.uint8)
    return replace(vector, arrays={**vector.arrays, "padding": padding})


def faults(name: str, simulator: str, sources: Path = cosim.FOLDER) -> list[str]:
    """Return what is wrong with the corner layers of a circuit built from `sources`, stopping at the first."""
    hardware, corner_layers = layers(name)
    bench = cosim.build(hardware, corner_layers, simulator, sources)
    for number, vector in enumerate(corner_layers):
        fault = cosim.simulate(bench, hardware, vector).fault
        if fault:
            return [f"layer {number} ({vector.operator} {vector.widths}): {fault}"]
    return []

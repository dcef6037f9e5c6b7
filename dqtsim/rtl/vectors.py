"""Vectors of a layer: all inputs of a circuit and all expected outputs, as text and binary files.

The files are described in `rtl/README.md`, for readers without dqtsim.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .. import numbers, spec
from ..counting.counts import cycles
from ..engines.names import DEFAULT
from ..engines.registry import traced
from ..errors import InputError, TargetError
from ..graph.model import Array, Node, Widths
from ..graph.rows import rows_of, window_of
from ..ops.operator import Machine
from ..outputs import Kind
from ..planner import Plan, Step
from ..spec.mac import Flags
from ..target import Target
from .sums import column_sums, has_column_of_ones

MOST_TAPS, MOST_CHANNELS, MOST_ELEMENTS = (1 << 16) - 1, 4096, 4096
# of the folder, and of a layer that needs nothing newer
FORMAT = 1
# of a layer with row pairs, or in a circuit with windows, padding codes or a column of ones
OPTIONS_FORMAT = 2
# the words of config.hex, in order, and `j` after them in a circuit with windows; the test bench relies on this order
CONFIG = (
    *("b_w", "b_a", "z_x", "z_y", "lo", "hi", "groups", "height", "width", "out_height", "out_width", "channels"),
    *("outputs", "kernel_y", "kernel_x", "stride_y", "stride_x", "dilation_y", "dilation_x", "pad_top", "pad_left"),
    *("logits", "cycles"),
)
ORDER = {
    "x": "channel, row, column",
    "w": "output channel, input channel of the group, kernel row, kernel column",
    "bias": "output channel",
    "m": "output channel",
    "s": "output channel",
    "acc": "output channel, row, column",
    "y": "output channel, row, column",
}
# the arrays of circuits with padding codes, and with a column of ones
OPTIONAL_ORDER = {"padding": "channel", "u": "group, row, column"}
_ORDERS = {**ORDER, **OPTIONAL_ORDER}
# the parameters of a circuit that has what a part of a layer's form needs
_OPTIONS = {"windows": "WINDOWS", "padding": "PADDING"}
_FILES = ("layer.json", "config.hex", *(f"{name}.{ending}" for name in _ORDERS for ending in ("bin", "hex")))
# a folder with one subfolder for each layer
FOLDER = Kind(
    ("format", "model", "model_sha256", "bits", "target", "seed", "layers"),
    lambda manifest: [f"{layer}/{name}" for layer in manifest["layers"] for name in _FILES],
)


@dataclass(frozen=True, eq=False)
class LayerVector:
    """One layer in one run.

    `arrays` has the keys of ORDER, and those of OPTIONAL_ORDER that its circuit needs; `flags` are those of the
    engine's accumulators. `rules` says by which rules its codes are nested, and which row its widths select; it is
    empty for a layer of FORMAT.
    """

    name: str
    operator: str
    config: Mapping[str, int]
    arrays: Mapping[str, Array]
    flags: Flags | None
    rules: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def widths(self) -> Widths:
        """Return the widths of weights and activations."""
        return self.config["b_w"], self.config["b_a"]


def parameters(plan: Plan) -> dict[str, int]:
    """Return the parameters of `dqt_layer` for a plan. Raises TargetError for arrays too large to simulate."""
    return parameters_of(plan.machine, plan.target, plan.graph.nodes)


def parameters_of(machine: Machine, target: Target, nodes: Iterable[Node] = ()) -> dict[str, int]:
    """Return the parameters of `dqt_layer` for one arithmetic on a target. Raises TargetError as `parameters` does.

    What only some layers need, windows and padding codes, is there if one of `nodes` needs it.
    """
    if target.rows * target.columns > MOST_ELEMENTS:
        raise TargetError(
            f"a simulated tile has at most {MOST_ELEMENTS} elements; target '{target.name}' has "
            f"{target.rows} x {target.columns}."
        )
    parts = {part for node in nodes for part in node.form}
    return {
        "R": target.rows,
        "C": target.columns,
        "N": machine.n,
        "WEIGHT_RULE": numbers.of_nesting(machine.weight_rule),
        "ACTIVATION_RULE": numbers.of_nesting(machine.activation_rule),
        "MODE": numbers.of_mode(target.mode),
        "OVERFLOW": numbers.of_overflow(machine.overflow),
        "TAP_ORDER": numbers.of_tap_order(machine.tap_order),
        "ACC_W": machine.accumulator_width,
        "BIAS_W": machine.bias_width,
        "M_W": target.multiplier_width,
        "ROUNDING": numbers.of_rounding(machine.rounding),
        **{name: 1 for part, name in _OPTIONS.items() if part in parts},
    }


def record(plan: Plan, sample: Array, layers: Sequence[str] = (), engine: str = DEFAULT) -> list[LayerVector]:
    """Run one sample and return the vectors of its layers, or of those named, in execution order."""
    known = [step.node.name for step in plan.layer_steps()]
    unknown = [name for name in layers if name not in known]
    if unknown:
        raise InputError(f"'{unknown[0]}' is no nested layer; the model has {', '.join(known)}.")
    result, tensors = traced(plan, sample, engine)
    tensors = {**plan.graph.initializers, **tensors}
    return [
        _vector(plan, step, tensors, result.flags[step.node.name])
        for step in plan.layer_steps()
        if not layers or step.node.name in layers
    ]


def _vector(plan: Plan, step: Step, tensors: Mapping[str, Array], flags: Flags | None) -> LayerVector:
    node, machine = step.node, plan.machine
    inputs = node.operands_in(tensors)
    x, w = inputs["x"], inputs["w"]
    b_w, b_a = inputs["widths"].tolist()
    pair = b_w, b_a
    rows = rows_of(node, inputs)
    row = spec.select_pair_row(*pair, rows.pairs) if rows.pairs else spec.select_row(*pair, rows.widths)
    logits = node.operator == "NestedLogits"
    zeros = np.zeros(w.shape[0], np.int64)
    config = {
        "b_w": pair[0],
        "b_a": pair[1],
        "z_x": int(inputs["x_zero_point"]),
        "z_y": 0 if logits else int(inputs["y_zero_point"]),
        "lo": 0 if logits else node.integer("low"),
        "hi": 0 if logits else node.integer("high"),
        **_geometry(node, x.shape, w.shape, step.call.type.shape),
        "logits": int(logits),
        "cycles": cycles(step, plan.target, pair),
        "j": window_of(node, inputs, b_a),
    }
    if prod(w.shape[1:]) > MOST_TAPS or w.shape[0] > MOST_CHANNELS:
        raise TargetError(
            f"the circuit takes at most {MOST_TAPS} taps and {MOST_CHANNELS} output channels; {node.title} has "
            f"{prod(w.shape[1:])} and {w.shape[0]}."
        )
    arrays = {
        "x": x[0],
        "w": w,
        "bias": bias_register(inputs["bias"][row], machine),
        "m": zeros if logits else inputs["multiplier"][row],
        "s": zeros if logits else inputs["shift"][row],
        "acc": tensors[f"{node.name}.acc"][0],
        "y": tensors[node.outputs[0]][0],
    }
    hardware, padding = parameters(plan), inputs.get("padding", np.full((x.shape[1],), config["z_x"], np.uint8))
    if "PADDING" in hardware:
        arrays["padding"] = padding
    if has_column_of_ones(machine.weight_rule):
        arrays["u"] = column_sums(config, x[0], padding, config["j"], machine)
    words = (*CONFIG, *(["j"] if "WINDOWS" in hardware else []))
    vector = LayerVector(node.name, node.operator, {name: config[name] for name in words}, arrays, flags)
    if "row_pairs" not in node.form and arrays.keys() == ORDER.keys() and "j" not in words:
        return vector
    return replace(
        vector, rules={"weight_rule": machine.weight_rule, "activation_rule": machine.activation_rule, "row": row}
    )


def _geometry(node: Node, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...]) -> dict[str, int]:
    """Return the geometry of a layer; a fully connected one is the convolution of a 1 x 1 picture."""
    picture = len(x) == 4
    groups = node.integer("group") if picture else 1
    (stride_y, stride_x), (dilation_y, dilation_x) = (
        (node.pair("strides"), node.pair("dilations")) if picture else ((1, 1), (1, 1))
    )
    pads = node.integers("pads") if picture else (0, 0, 0, 0)
    height, width, out_height, out_width, kernel_y, kernel_x = (*x[2:], *y[2:], *w[2:]) if picture else (1,) * 6
    return {
        "groups": groups,
        "height": height,
        "width": width,
        "out_height": out_height,
        "out_width": out_width,
        "channels": w[1],
        "outputs": w[0] // groups,
        "kernel_y": kernel_y,
        "kernel_x": kernel_x,
        "stride_y": stride_y,
        "stride_x": stride_x,
        "dilation_y": dilation_y,
        "dilation_x": dilation_x,
        "pad_top": pads[0],
        "pad_left": pads[1],
    }


def bias_register(biases: Array, machine: Machine) -> Array:
    """Return biases int64 (O) as the bias register holds them, by the law (B3)."""
    return np.array([spec.saturate(b, machine.bias_width) for b in biases.tolist()], np.int64)


def write(vector: LayerVector, hardware: Mapping[str, int], folder: Path) -> None:
    """Write the files of one layer into `folder`, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, Any]] = {}
    widths = {
        **{"x": hardware["N"], "w": hardware["N"], "bias": hardware["BIAS_W"], "m": hardware["M_W"], "s": 6},
        **{"acc": hardware["ACC_W"], "y": 32 if vector.config["logits"] else hardware["N"]},
        **{"padding": hardware["N"], "u": hardware["N"] + 17},
    }
    dtypes = {"bias": "<i8", "m": "<u4", "acc": "<i8", "u": "<i4"}
    for name, array in vector.arrays.items():
        dtype = "<i4" if array.dtype == np.int32 else dtypes.get(name, "|u1")
        data = np.ascontiguousarray(array).astype(dtype).tobytes()
        (folder / f"{name}.bin").write_bytes(data)
        _write_hex(folder / f"{name}.hex", array.reshape(-1).tolist(), widths[name])
        files[name] = {
            "shape": list(array.shape),
            "order": _ORDERS[name],
            "hex_bits": widths[name],
            "signed": name in ("bias", "acc") or dtype == "<i4",
            "binary": dtype,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    _write_hex(folder / "config.hex", list(vector.config.values()), 32)
    layer = {
        **{"format": OPTIONS_FORMAT if vector.rules else FORMAT, "layer": vector.name, "operator": vector.operator},
        **{"cycles": vector.config["cycles"], **vector.rules},
        **{"parameters": dict(hardware), "config": dict(vector.config), "arrays": files},
    }
    (folder / "layer.json").write_text(json.dumps(layer, indent=1) + "\n", encoding="utf-8")


def folder_name(index: int, vector: LayerVector) -> str:
    """Return the folder of the layer that is executed as number `index`."""
    return f"{index:02}-" + re.sub(r"[^A-Za-z0-9._-]", "_", vector.name)


def _write_hex(path: Path, values: Sequence[int], bits: int) -> None:
    mask, digits = (1 << bits) - 1, -(-bits // 4)
    path.write_text("".join(f"{value & mask:0{digits}x}\n" for value in values), encoding="ascii")

"""Vectors of a layer: all inputs of a circuit and all expected outputs, as text and binary files.

The files are described in `rtl/README.md`, for readers without dqtsim.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from ..graph.rows import rows_of
from ..ops.nested import layer_bound
from ..ops.operator import Call, Machine
from ..outputs import Kind
from ..planner import Plan, Step
from ..spec.mac import Flags
from ..target import Target

MOST_TAPS, MOST_CHANNELS, MOST_ELEMENTS = (1 << 16) - 1, 4096, 4096
FORMAT = 1
# the words of config.hex, in order; the test bench relies on this order
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
_FILES = ("layer.json", "config.hex", *(f"{name}.{ending}" for name in ORDER for ending in ("bin", "hex")))
# a folder with one subfolder for each layer
FOLDER = Kind(
    ("format", "model", "model_sha256", "bits", "target", "seed", "layers"),
    lambda manifest: [f"{layer}/{name}" for layer in manifest["layers"] for name in _FILES],
)


@dataclass(frozen=True, eq=False)
class LayerVector:
    """One layer in one run. `arrays` has the keys of ORDER; `flags` are those of the engine's accumulators."""

    name: str
    operator: str
    config: Mapping[str, int]
    arrays: Mapping[str, Array]
    flags: Flags | None

    @property
    def widths(self) -> Widths:
        """Return the widths of weights and activations."""
        return self.config["b_w"], self.config["b_a"]


def parameters(plan: Plan) -> dict[str, int]:
    """Return the parameters of `dqt_layer` for a plan. Raises TargetError for arrays too large to simulate."""
    return parameters_of(plan.machine, plan.target)


def parameters_of(machine: Machine, target: Target) -> dict[str, int]:
    """Return the parameters of `dqt_layer` for one arithmetic on a target. Raises TargetError as `parameters` does."""
    if target.rows * target.columns > MOST_ELEMENTS:
        raise TargetError(
            f"a simulated tile has at most {MOST_ELEMENTS} elements; target '{target.name}' has "
            f"{target.rows} x {target.columns}."
        )
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
    if machine.weight_rule == spec.Nesting.CENTROID:
        raise TargetError(f"the circuit has no CENTROID weights; {node.title} has them.")
    lacking = [part for part in node.form if part in ("windows", "padding")]
    if lacking:
        raise TargetError(f"the circuit has no {' and no '.join(lacking)}; {node.title} has them.")
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
    }
    if prod(w.shape[1:]) > MOST_TAPS or w.shape[0] > MOST_CHANNELS:
        raise TargetError(
            f"the circuit takes at most {MOST_TAPS} taps and {MOST_CHANNELS} output channels; {node.title} has "
            f"{prod(w.shape[1:])} and {w.shape[0]}."
        )
    arrays = {
        "x": x[0],
        "w": w,
        "bias": _bias_register(inputs["bias"][row], machine),
        "m": zeros if logits else inputs["multiplier"][row],
        "s": zeros if logits else inputs["shift"][row],
        "acc": tensors[f"{node.name}.acc"][0],
        "y": tensors[node.outputs[0]][0],
    }
    return LayerVector(node.name, node.operator, {name: config[name] for name in CONFIG}, arrays, flags)


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


def _bias_register(biases: Array, machine: Machine) -> Array:
    """Return biases int64 (O) as the bias register holds them, by the law (B3)."""
    return np.array([spec.saturate(b, machine.bias_width) for b in biases.tolist()], np.int64)


def corner(
    plan: Plan, vector: LayerVector, seed: int, *, plain_shift: bool = False, extreme: bool = False
) -> LayerVector:
    """Return `vector` with the corners of every range in place of its codes and tables; same shapes and widths.

    Accumulators come from the layer's kernel, outputs from the law. `plain_shift` makes every multiplier a power of
    two and keeps shifts small, so that ties are frequent. `extreme` makes the sums as large as they can get.
    """
    from ..engines.numba.table import KERNELS

    rng, n, machine = np.random.default_rng(seed), plan.machine.n, plan.machine
    step = next(step for step in plan.layer_steps() if step.node.name == vector.name)
    top, old = (1 << n) - 1, vector.arrays
    codes = np.array([0, 1, top // 2, top // 2 + 1, top - 1, top], np.uint8)
    x, w = (_mixed(rng, codes, rng.integers(0, top, old[name].shape, np.uint8, endpoint=True)) for name in "xw")
    if extreme or rng.integers(2):
        w[: len(w) // 2] = 0 if extreme else rng.choice(np.array([0, top], np.uint8))
    z_x, z_y = (int(rng.choice([0, 1 << (n - 1), int(rng.integers(top + 1))])) for _ in range(2))
    if extreme:
        x[:], z_x = top, 0
    lo, hi = sorted(int(z) for z in rng.integers(0, top, 2, endpoint=True)) if rng.integers(2) else (0, top)
    logits, channels = bool(vector.config["logits"]), w.shape[0]
    half = 1 << (min(machine.bias_width, 30 if logits else 48) - 1)
    bias = _mixed(rng, np.array([-half, half - 1, 0, 1, -1]), rng.integers(-half, half, (channels,)))
    full = (1 << plan.target.multiplier_width) - 1
    m = _mixed(rng, np.array([0, 1, full, full // 2 + 1]), rng.integers(0, full, (channels,), endpoint=True))
    s = _mixed(rng, np.array([0, 1, 2, 61, 62]), rng.integers(0, 63, (channels,)))
    if plain_shift:
        m, s, bias = (
            np.ones((channels,), np.int64),
            rng.integers(0, 12, (channels,)),
            rng.integers(-512, 512, (channels,)),
        )
    constants = {**plan.graph.constants(step.node), "w": w, "x_zero_point": np.array(z_x, np.uint8)}
    bounds = {vector.widths: layer_bound(step.node, constants, 0, top, machine, vector.widths)}
    call = Call(step.node, machine, step.call.type, bounds)
    # below, the law computes everything after the accumulators; the kernel's own outputs are not used
    table = np.zeros((len(rows_of(step.node, constants)), channels), np.int64)
    inputs = {**constants, "x": x[None], "bias": table}
    inputs["widths"] = np.array(vector.widths, np.int64)
    if not logits:
        inputs |= {"y_zero_point": np.array(z_y, np.uint8), "multiplier": table, "shift": table}
    outcome = KERNELS[step.node.domain, step.node.operator](call, inputs)
    assert outcome.accumulator is not None
    acc = outcome.accumulator[0].astype(np.int64)
    align = sum(
        spec.exponent(b, n, rule)
        for b, rule in zip(vector.widths, (machine.weight_rule, machine.activation_rule), strict=True)
    )
    y = np.empty(acc.shape, np.int32 if logits else np.uint8)
    for o in range(channels):
        factors = int(m[o]), int(s[o]), z_y, lo, hi, machine.rounding
        totals = [spec.add_bias(p << align, int(bias[o]), machine.bias_width) for p in acc[o].reshape(-1).tolist()]
        y[o] = np.reshape(totals if logits else [spec.requantize(t, *factors) for t in totals], acc.shape[1:])
    limits = {} if logits else {"z_y": z_y, "lo": lo, "hi": hi}
    arrays = {
        "x": x,
        "w": w,
        "bias": _bias_register(bias, machine),
        "m": old["m"] if logits else m,
        "s": old["s"] if logits else s,
    }
    config = {**vector.config, **limits, "z_x": z_x}
    return replace(vector, config=config, arrays={**arrays, "acc": acc, "y": y}, flags=outcome.flags)


def _mixed(rng: np.random.Generator, corners: Array, values: Array) -> Array:
    """Return `values` with about half of them replaced by corners."""
    return np.where(rng.integers(0, 2, values.shape) == 1, rng.choice(corners, values.shape), values)


def write(vector: LayerVector, hardware: Mapping[str, int], folder: Path) -> None:
    """Write the files of one layer into `folder`, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, Any]] = {}
    widths = {
        **{"x": hardware["N"], "w": hardware["N"], "bias": hardware["BIAS_W"], "m": hardware["M_W"], "s": 6},
        **{"acc": hardware["ACC_W"], "y": 32 if vector.config["logits"] else hardware["N"]},
    }
    dtypes = {"bias": "<i8", "m": "<u4", "acc": "<i8"}
    for name, array in vector.arrays.items():
        dtype = "<i4" if array.dtype == np.int32 else dtypes.get(name, "|u1")
        data = np.ascontiguousarray(array).astype(dtype).tobytes()
        (folder / f"{name}.bin").write_bytes(data)
        _write_hex(folder / f"{name}.hex", array.reshape(-1).tolist(), widths[name])
        files[name] = {
            "shape": list(array.shape),
            "order": ORDER[name],
            "hex_bits": widths[name],
            "signed": name in ("bias", "acc") or dtype == "<i4",
            "binary": dtype,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    _write_hex(folder / "config.hex", list(vector.config.values()), 32)
    layer = {
        **{"format": FORMAT, "layer": vector.name, "operator": vector.operator, "cycles": vector.config["cycles"]},
        **{"parameters": dict(hardware), "config": dict(vector.config), "arrays": files},
    }
    (folder / "layer.json").write_text(json.dumps(layer, indent=1) + "\n", encoding="utf-8")


def folder_name(index: int, vector: LayerVector) -> str:
    """Return the folder of the layer that is executed as number `index`."""
    return f"{index:02}-" + re.sub(r"[^A-Za-z0-9._-]", "_", vector.name)


def _write_hex(path: Path, values: Sequence[int], bits: int) -> None:
    mask, digits = (1 << bits) - 1, -(-bits // 4)
    path.write_text("".join(f"{value & mask:0{digits}x}\n" for value in values), encoding="ascii")

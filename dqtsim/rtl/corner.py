"""Corner cases for a layer's vectors: codes and tables at the ends of every range, in place of the model's."""

from dataclasses import replace

import numpy as np

from .. import spec
from ..graph.model import Array
from ..graph.rows import rows_of, window_of
from ..ops.nested import layer_bound
from ..ops.operator import Call
from ..planner import Plan, Step
from .sums import column_sums, has_column_of_ones
from .vectors import LayerVector, bias_register


def corner(
    plan: Plan, vector: LayerVector, seed: int, *, plain_shift: bool = False, extreme: bool = False
) -> LayerVector:
    """Return `vector` with the corners of every range in place of its codes and tables; same shapes and widths.

    Accumulators come from the layer's kernel, outputs from the law. `plain_shift` makes every multiplier a power of
    two and keeps shifts small, so that ties are frequent. `extreme` makes the sums as large as they can get.
    """
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
    padding = np.full((x.shape[0],), z_x, np.uint8)
    if "padding" in step.node.form:
        padding = _mixed(rng, codes, rng.integers(0, top, padding.shape, np.uint8, endpoint=True))
        if extreme:
            padding[:] = top
    limits = {} if logits else {"z_y": z_y, "lo": lo, "hi": hi}
    arrays = {
        "x": x,
        "w": w,
        "bias": bias_register(bias, machine),
        "m": old["m"] if logits else m,
        "s": old["s"] if logits else s,
        **({"padding": padding} if "padding" in old else {}),
    }
    made = replace(vector, config={**vector.config, **limits, "z_x": z_x}, arrays=arrays, flags=None)
    return _computed(plan, step, made, padding)


def _mixed(rng: np.random.Generator, corners: Array, values: Array) -> Array:
    """Return `values` with about half of them replaced by corners."""
    return np.where(rng.integers(0, 2, values.shape) == 1, rng.choice(corners, values.shape), values)


def _computed(plan: Plan, step: Step, vector: LayerVector, padding: Array) -> LayerVector:
    """Return `vector` with what its circuit gives: accumulators of the layer's kernel, the rest by the law."""
    from ..engines.numba.table import KERNELS

    node, machine, config, arrays = step.node, plan.machine, vector.config, dict(vector.arrays)
    logits, pair, w = config["logits"], vector.widths, arrays["w"]
    constants = plan.graph.constants(node)
    # below, the law computes everything after the accumulators; the kernel's own outputs are not used
    table = np.zeros((len(rows_of(node, constants)), w.shape[0]), np.int64)
    inputs = {**constants, "x": arrays["x"][None], "w": w, "x_zero_point": np.array(config["z_x"], np.uint8)}
    inputs |= {"bias": table, "widths": np.array(pair, np.int64)}
    if not logits:
        inputs |= {"y_zero_point": np.array(config["z_y"], np.uint8), "multiplier": table, "shift": table}
    if "padding" in node.form:
        inputs["padding"] = padding
    bounds = {pair: layer_bound(node, inputs, 0, (1 << machine.n) - 1, machine, pair)}
    outcome = KERNELS[node.domain, node.operator](Call(node, machine, step.call.type, bounds), inputs)
    assert outcome.accumulator is not None
    arrays["acc"] = outcome.accumulator[0].astype(np.int64)
    j = window_of(node, constants, pair[1])
    ones = has_column_of_ones(machine.weight_rule)
    if ones:
        arrays["u"] = column_sums(config, arrays["x"], padding, j, machine)
    arrays["y"] = _outputs(plan, vector, arrays, j)
    return replace(vector, arrays=arrays, flags=outcome.flags)


def _outputs(plan: Plan, vector: LayerVector, arrays: dict[str, Array], j: int) -> Array:
    """Return the outputs by the law (B2 to B4, B2') from accumulators and, with a column of ones, from `u`."""
    machine, config, (b_w, b_a) = plan.machine, vector.config, vector.widths
    e_w = spec.exponent(b_w, machine.n, machine.weight_rule)
    e_a = spec.exponent(b_a + j, machine.n, machine.activation_rule)
    acc, logits = arrays["acc"], config["logits"]
    z_y, lo, hi = (config[name] for name in ("z_y", "lo", "hi"))
    y = np.empty(acc.shape, np.int32 if logits else np.uint8)
    for o, (bias, m, s) in enumerate(zip(*(arrays[name].tolist() for name in ("bias", "m", "s")), strict=True)):
        aligned = [spec.align(p, e_w, e_a) for p in acc[o].reshape(-1).tolist()]
        if spec.takes_half(b_w, machine.n, machine.weight_rule):
            sums = arrays["u"][o // config["outputs"]].reshape(-1).tolist()
            aligned = [spec.take_half(a, u, e_a) for a, u in zip(aligned, sums, strict=True)]
        totals = [spec.add_bias(a, bias, machine.bias_width) for a in aligned]
        found = totals if logits else [spec.requantize(t, m, s, z_y, lo, hi, machine.rounding) for t in totals]
        y[o] = np.reshape(found, acc.shape[1:])
    return y

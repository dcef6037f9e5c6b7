"""Operators on codes by the kernels: additions, products, pools, requantization, tables, decisions (B4-B10)."""

from collections.abc import Mapping

import numpy as np

from ...graph.schema import DOMAIN
from ...numbers import of_rounding
from ...ops import Arrays, Call, Execute, Outcome, scalars
from ...ops.max_pool import max_pool_window
from ...ops.nested_average_pool import pool_window
from . import add as addition
from . import decision, pool, requantize
from . import multiply as multiplication


def add(call: Call, inputs: Arrays) -> Outcome:
    """Return B5 of codes `a` and `b`."""
    a, b = (inputs[role].reshape(-1) for role in "ab")
    z_a, z_b, z_y = scalars(inputs, "a_zero_point", "b_zero_point", "y_zero_point")
    m_a, m_b, s = scalars(inputs, "a_multiplier", "b_multiplier", "shift")
    low, high = call.node.integer("low"), call.node.integer("high")
    y = np.empty(a.size, np.uint8)
    addition.add(a, b, (z_a, z_b, z_y), (m_a, m_b), s, low, high, of_rounding(call.machine.rounding), y)
    return Outcome(y.reshape(call.type.shape))


def average_pool(call: Call, inputs: Arrays) -> Outcome:
    """Return B6 or B6' of the codes `x`."""
    z_x, z_y, s = scalars(inputs, "x_zero_point", "y_zero_point", "shift")
    node, window = call.node, pool_window(call.node)
    y = np.empty(call.type.shape, np.uint8)
    pool.average_pool(
        inputs["x"][0],
        window.kernel,
        window.strides,
        window.pads[:2],
        (z_x, z_y),
        np.atleast_2d(inputs["multiplier"]),
        s,
        node.integer("low"),
        node.integer("high"),
        of_rounding(call.machine.rounding),
        y[0],
    )
    return Outcome(y)


def requantize_codes(call: Call, inputs: Arrays) -> Outcome:
    """Return the codes `x` on another grid (B4)."""
    z_x, z_y, m, s = scalars(inputs, "x_zero_point", "y_zero_point", "multiplier", "shift")
    low, high = call.node.integer("low"), call.node.integer("high")
    y = np.empty(inputs["x"].size, np.uint8)
    rounding = of_rounding(call.machine.rounding)
    requantize.requantize_codes(inputs["x"].reshape(-1), z_x, m, s, z_y, low, high, rounding, y)
    return Outcome(y.reshape(call.type.shape))


def max_pool(call: Call, inputs: Arrays) -> Outcome:
    """Return the greatest code of every window (B6)."""
    window = max_pool_window(call.node)
    y = np.empty(call.type.shape, np.uint8)
    pool.max_pool(inputs["x"][0], window.kernel, window.strides, window.dilations, window.pads[:2], y[0])
    return Outcome(y)


def argmax(call: Call, inputs: Arrays) -> Outcome:
    """Return the index of the greatest entry along the last axis, the lowest on a tie (B7, B8)."""
    x = inputs["data"]
    best = np.empty(x.size // x.shape[-1], np.int64)
    decision.argmax(np.ascontiguousarray(x.reshape(-1, x.shape[-1])), best)
    return Outcome(best.reshape(call.type.shape))


def look_up(call: Call, inputs: Arrays) -> Outcome:
    """Return the table's entry for each code (B9), in the row of its channel if there is one per channel (B9')."""
    x, table = inputs["x"], inputs["table"]
    if "channels" not in call.node.form:
        return Outcome(np.take(table, x))
    channels, codes = table.shape
    # the tables of all channels behind each other
    first = np.arange(channels).reshape(channels, *[1] * (x.ndim - 2)) * codes
    return Outcome(np.take(table.reshape(-1), x + first))


def multiply(call: Call, inputs: Arrays) -> Outcome:
    """Return B10 of codes `a`, and `b` of the same shape or one code per channel."""
    a, b = inputs["a"], inputs["b"]
    z_a, z_b, z_y = scalars(inputs, "a_zero_point", "b_zero_point", "y_zero_point")
    m, s = scalars(inputs, "multiplier", "shift")
    low, high = call.node.integer("low"), call.node.integer("high")
    # one row per channel, or all in one row
    rows = a.shape[1] if b.shape != a.shape else 1
    y = np.empty((rows, a.size // rows), np.uint8)
    rounding = of_rounding(call.machine.rounding)
    multiplication.multiply(a.reshape(y.shape), b.reshape(rows, -1), (z_a, z_b, z_y), m, s, low, high, rounding, y)
    return Outcome(y.reshape(call.type.shape))


KERNELS: Mapping[tuple[str, str], Execute] = {
    (DOMAIN, "NestedAdd"): add,
    (DOMAIN, "NestedAveragePool"): average_pool,
    (DOMAIN, "NestedRequantize"): requantize_codes,
    (DOMAIN, "NestedTable"): look_up,
    (DOMAIN, "NestedMultiply"): multiply,
    ("", "MaxPool"): max_pool,
    ("", "ArgMax"): argmax,
}

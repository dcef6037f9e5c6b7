"""What one execution of an operator costs, from shapes and widths alone. Everything is a Python int.

The definitions, one sentence each, are the tables in README.md beside this file; `counting/by_execution.py` counts the
same primitives while the law executes, and both must agree exactly.
"""

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import assert_never

from ..graph.model import Node, Widths
from ..graph.rows import window_of
from ..spec.rules import Nesting, Rounding
from ..spec.window import Window
from .operator import Arrays, Machine, TensorType, Types
from .primitives import (
    ACTIVATION_CLIP,
    ACTIVATION_INCREMENT,
    ACTIVATION_SHIFT,
    ALIGN_SHIFT,
    BIAS_ADD,
    COLUMN_ADD,
    COMPARE,
    HALF_SHIFT,
    HALF_SUBTRACT,
    POOL_ADD,
    REQUANTIZE_ADD,
    REQUANTIZE_CLIP,
    REQUANTIZE_MULTIPLY,
    REQUANTIZE_SHIFT,
    RESIDUAL_ADD,
    RESIDUAL_MULTIPLY,
    WEIGHT_CLIP,
    WEIGHT_INCREMENT,
    WEIGHT_OR,
    WEIGHT_SHIFT,
    Cost,
    Primitive,
)


def nested_layer(
    node: Node, inputs: Types, constants: Arrays, output: TensorType, machine: Machine, widths: Widths
) -> Cost:
    """Return the cost of a requantized convolution or fully connected layer."""
    cost = _until_bias(node, inputs, constants, output, machine, widths)
    cost.primitives.update(_requantized(prod(output.shape), machine))
    return cost


def nested_logits(
    node: Node, inputs: Types, constants: Arrays, output: TensorType, machine: Machine, widths: Widths
) -> Cost:
    """Return the cost of a layer that ends with its bias (B7)."""
    return _until_bias(node, inputs, constants, output, machine, widths)


def nested_add(
    _node: Node, _inputs: Types, _constants: Arrays, output: TensorType, machine: Machine, _widths: Widths
) -> Cost:
    """Return the cost of B5: two multiplications and one addition, then the shift of B4 without its multiplication."""
    elements = prod(output.shape)
    cost = Cost(primitives=_requantized(elements, machine))
    del cost.primitives[REQUANTIZE_MULTIPLY]
    cost.primitives[RESIDUAL_MULTIPLY] = 2 * elements
    cost.primitives[RESIDUAL_ADD] = elements
    return cost


def nested_requantize(
    _node: Node, _inputs: Types, _constants: Arrays, output: TensorType, machine: Machine, _widths: Widths
) -> Cost:
    """Return the cost of B4 on codes."""
    return Cost(primitives=_requantized(prod(output.shape), machine))


def average_pool(
    node: Node, inputs: Types, _constants: Arrays, output: TensorType, machine: Machine, _widths: Widths
) -> Cost:
    """Return the cost of B6: one addition for each tap inside the picture, then B4."""
    cost = Cost(primitives=_requantized(prod(output.shape), machine))
    cost.primitives[POOL_ADD] = _taps_inside(node, (1, 1), inputs["x"].shape, output.shape)
    return cost


def max_pool(
    node: Node, inputs: Types, _constants: Arrays, output: TensorType, _machine: Machine, _widths: Widths
) -> Cost:
    """Return the cost of a maximum: one comparison fewer than there are taps inside the picture."""
    taps = _taps_inside(node, node.pair("dilations"), inputs["x"].shape, output.shape)
    return Cost(primitives=Counter({COMPARE: taps - prod(output.shape)}))


def argmax(
    _node: Node, inputs: Types, _constants: Arrays, output: TensorType, _machine: Machine, _widths: Widths
) -> Cost:
    """Return the cost of a decision: one comparison fewer than there are candidates."""
    return Cost(primitives=Counter({COMPARE: prod(inputs["data"].shape) - prod(output.shape)}))


def movement(
    _node: Node, _inputs: Types, _constants: Arrays, _output: TensorType, _machine: Machine, _widths: Widths
) -> Cost:
    """Return no cost: the operator only moves data."""
    return Cost()


def nesting(elements: int, b: int, n: int, rule: Nesting, *, weights: bool) -> Counter[Primitive]:
    """Return what nesting `elements` master codes to width `b` costs (A1-A3)."""
    counts: Counter[Primitive] = Counter()
    if b == n:
        return counts
    counts[WEIGHT_SHIFT if weights else ACTIVATION_SHIFT] = elements
    match rule:
        case Nesting.TIES_UP:
            counts[WEIGHT_INCREMENT if weights else ACTIVATION_INCREMENT] = elements
            counts[WEIGHT_CLIP if weights else ACTIVATION_CLIP] = elements
        case Nesting.FLOOR:
            pass
        case Nesting.MIDPOINT | Nesting.CENTROID:
            counts[WEIGHT_OR] = elements
        case _:
            assert_never(rule)
    return counts


def _exponent(b: int, n: int, rule: Nesting) -> int:
    """Return the exponent of an operand: the bits that were dropped, one less for the odd operand of a middle (A5)."""
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR:
            return n - b
        case Nesting.MIDPOINT | Nesting.CENTROID:
            return n - b - (b < n)
        case _:
            assert_never(rule)


def _until_bias(
    node: Node, inputs: Types, constants: Arrays, output: TensorType, machine: Machine, widths: Widths
) -> Cost:
    """Return the cost of B1-B3, B2' included."""
    b_w, b_a = widths
    w, outputs = inputs["w"].shape, prod(output.shape)
    cost = Cost(Counter({widths: outputs * prod(w[1:])}))
    cost.primitives.update(nesting(prod(w), b_w, machine.n, machine.weight_rule, weights=True))
    read = prod(inputs["x"].shape) + (len(constants["padding"]) if "padding" in node.form else 0)
    cost.primitives.update(nesting(read, b_a, machine.n, machine.activation_rule, weights=False))
    if "windows" in node.form and b_a < machine.n:
        # the clip of a window includes that of A1
        cost.primitives[ACTIVATION_CLIP] = read
    n, lower = machine.n, window_of(node, constants, b_a)
    if _exponent(b_w, n, machine.weight_rule) + _exponent(b_a + lower, n, machine.activation_rule) > 0:
        cost.primitives[ALIGN_SHIFT] = outputs
    match machine.weight_rule:
        case Nesting.TIES_UP | Nesting.FLOOR | Nesting.MIDPOINT:
            pass
        case Nesting.CENTROID:
            if b_w < n:
                windows = outputs // w[0] * (node.integer("group") if "group" in node.attributes else 1)
                cost.primitives[COLUMN_ADD] = windows * prod(w[1:])
                cost.primitives[HALF_SHIFT] = cost.primitives[HALF_SUBTRACT] = outputs
        case _:
            assert_never(machine.weight_rule)
    cost.primitives[BIAS_ADD] = outputs
    return cost


def _requantized(elements: int, machine: Machine) -> Counter[Primitive]:
    """Return the cost of B4: a multiplication, the half (not under FLOOR) and the zero point added, a shift, a clip."""
    match machine.rounding:
        case Rounding.FLOOR:
            added = 1
        case Rounding.TIES_UP | Rounding.TIES_AWAY | Rounding.TIES_EVEN:
            added = 2
        case _:
            assert_never(machine.rounding)
    return Counter(
        {
            REQUANTIZE_MULTIPLY: elements,
            REQUANTIZE_ADD: elements * added,
            REQUANTIZE_SHIFT: elements,
            REQUANTIZE_CLIP: elements,
        }
    )


def _taps_inside(node: Node, dilations: tuple[int, int], x: Sequence[int], y: Sequence[int]) -> int:
    """Return the taps inside the picture over all windows: rows and columns are independent, so counts multiply."""
    top, left, bottom, right = node.integers("pads")
    window = Window(node.pair("kernel_shape"), node.pair("strides"), dilations, (top, left, bottom, right))
    per_axis = []
    for axis, begin in ((0, top), (1, left)):
        starts = range(-begin, -begin + y[2 + axis] * window.strides[axis], window.strides[axis])
        reach = range(0, window.kernel[axis] * window.dilations[axis], window.dilations[axis])
        per_axis.append(sum(0 <= start + offset < x[2 + axis] for start in starts for offset in reach))
    return x[1] * per_axis[0] * per_axis[1]

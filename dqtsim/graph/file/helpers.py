"""The functions of domain `dqtsim` that the bodies of operators call: nesting, alignment, rows, requantization.

As the bodies they are text in the syntax of `onnx.parser`, stated independently of `spec`; see bodies.py.
"""

from typing import assert_never

from ...spec.rules import Nesting, Rounding
from ..model import Arithmetic

# A1: for codes >= 0 the truncating division by 2^k is the shift, and adding 2^k / 2 first makes ties go up.
_NEST_TIES_UP = """
  one = Constant <value = int64 {1}> ()
  two = Constant <value = int64 {2}> ()
  half = Div (step, two)
  moved = Add (master, half)
  shifted = Div (moved, step)
  range = Pow (two, width)
  top = Sub (range, one)
  nested = Min (shifted, top)
"""
# A2
_NEST_FLOOR = """
  nested = Div (master, step)
"""

# A1, A2, A4, A5 for activations: codes and zero point at the width, and the exponent k.
_NEST_ACTIVATION = """
NestActivation (q, z, width) => (q_b, z_b, exponent)
{
  two = Constant <value = int64 {2}> ()
  n = Constant <value = int64 {@n}> ()
  exponent = Sub (n, width)
  step = Pow (two, exponent)
  q_b = dqtsim.NestCodes (q, step, width)
  z_b = dqtsim.NestCodes (z, step, width)
}
"""
_NEST_CODES = """
NestCodes (q, step, width) => (q_b)
{
  master = Cast <to: int = 7> (q)
@nest
  q_b = Cast <to: int = 2> (nested)
}
"""
# A6: codes and zero point at width b + j are moved so that the zero point is where it is at width b; what leaves the b
# bits is clipped.
_NEST_WINDOW = """
NestWindow (q, z, width, windows) => (q_b, z_b, exponent)
{
  zero = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  two = Constant <value = int64 {2}> ()
  n = Constant <value = int64 {@n}> ()
  lower = Gather <axis: int = 0> (windows, width)
  fine_width = Add (width, lower)
  exponent = Sub (n, fine_width)
  fine_step = Pow (two, exponent)
  dropped = Sub (n, width)
  step = Pow (two, dropped)
  fine = dqtsim.NestCodes (q, fine_step, fine_width)
  z_fine = dqtsim.NestCodes (z, fine_step, fine_width)
  z_b = dqtsim.NestCodes (z, step, width)
  wide = Cast <to: int = 7> (fine)
  z_wide = Cast <to: int = 7> (z_fine)
  z_narrow = Cast <to: int = 7> (z_b)
  centred = Sub (wide, z_wide)
  code = Add (centred, z_narrow)
  range = Pow (two, width)
  top = Sub (range, one)
  raised = Max (code, zero)
  clipped = Min (raised, top)
  q_b = Cast <to: int = 2> (clipped)
}
"""
# B1': the codes, with a border of each channel's padding code around them.
_BORDER = """
Border <pads> (x, padding) => (y)
{
  ends = Constant <value_ints: ints = @pads> ()
  at_begin = Constant <value = int64[2] {0, 1}> ()
  at_end = Constant <value = int64[2] {2, 3}> ()
  none = Constant <value = int64[2] {0, 0}> ()
  begins = Gather <axis: int = 0> (ends, at_begin)
  stops = Gather <axis: int = 0> (ends, at_end)
  all = Concat <axis: int = 0> (none, begins, none, stops)
  shape = Shape (x)
  ones = ConstantOfShape <value = uint8[1] {1}> (shape)
  nothing = Constant <value = uint8 {0}> ()
  marked = Pad (ones, all, nothing)
  inside = Cast <to: int = 9> (marked)
  wide = Pad (x, all, nothing)
  per_channel = Constant <value = int64[4] {1, -1, 1, 1}> ()
  outside = Reshape (padding, per_channel)
  y = Where (inside, wide, outside)
}
"""
# A1-A5 for weights: operands as codes minus a zero point, and the exponent.
_NEST_WEIGHT = """
NestWeight (q, width) => (q_b, z_b, exponent)
{
  n = Constant <value = int64 {@n}> ()
  two = Constant <value = int64 {2}> ()
  z = Constant <value = uint8 {@z}> ()
  exponent = Sub (n, width)
  step = Pow (two, exponent)
  q_b = dqtsim.NestWeightCodes (q, step, width)
  z_b = dqtsim.NestWeightCodes (z, step, width)
}
"""
# A3, A5: 2(q_b - z_b) + 1 = ((q >> (k-1)) | 1) - 2 z_b: one shift and one OR; at k = 0 the code itself.
_NEST_WEIGHT_MIDPOINT = """
NestWeight (q, width) => (q_b, z_b, exponent)
{
  n = Constant <value = int64 {@n}> ()
  zero = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  z = Constant <value = uint8 {@z}> ()
  k = Sub (n, width)
  k_less_1 = Sub (k, one)
  exponent = Max (k_less_1, zero)
  shift = Cast <to: int = 2> (exponent)
  any = Min (k, one)
  lowest_bit = Cast <to: int = 2> (any)
  upper = BitShift <direction: string = "RIGHT"> (q, shift)
  q_b = BitwiseOr (upper, lowest_bit)
  z_b = BitShift <direction: string = "RIGHT"> (z, shift)
}
"""

# B2, B3, B3': A + B in int64, with the bias row of the widths; the row comes back for M and S.
_ALIGN = """
Align (p, e_w, e_a) => (a)
{
  two = Constant <value = int64 {2}> ()
  exponent = Add (e_w, e_a)
  factor = Pow (two, exponent)
  wide = Cast <to: int = 7> (p)
  a = Mul (wide, factor)
}
"""
# B2': the column of ones, and half of its sum by a division with the remainder taken off first, where the law shifts.
_ONES = """
Ones (w) => (ones)
{
  shape = Shape (w)
  ones = ConstantOfShape <value = uint8[1] {1}> (shape)
}
"""
_TAKE_HALF = """
TakeHalf (full, u, width, e_a) => (a)
{
  one = Constant <value = int64 {1}> ()
  two = Constant <value = int64 {2}> ()
  n = Constant <value = int64 {@n}> ()
  step = Pow (two, e_a)
  wide = Cast <to: int = 7> (u)
  steps = Mul (wide, step)
  moved = Add (steps, one)
  rest = Mod (moved, two)
  even = Sub (moved, rest)
  half = Div (even, two)
  dropped = Sub (n, width)
  any = Min (dropped, one)
  taken = Mul (half, any)
  a = Sub (full, taken)
}
"""
_SELECT_ROW = """
SelectRow <row_widths> (table, b_w, b_a) => (entries)
{
  rows = Constant <value_ints: ints = @row_widths> ()
  one = Constant <value = int64 {1}> ()
  count = Size (rows)
  last = Sub (count, one)
  narrower = Min (b_w, b_a)
  less = Less (rows, narrower)
  ones = Cast <to: int = 7> (less)
  passed = ReduceSum <keepdims: int = 0> (ones)
  row = Min (passed, last)
  entries = Gather <axis: int = 0> (table, row)
}
"""

# B3'' as a score: the pair itself has its place, 0 to R - 1; one that is only wide enough its place after those; one
# that is too narrow comes after all these, and the last of the list first. The least score decides.
_SELECT_PAIR_ROW = """
SelectPairRow (table, row_pairs, b_w, b_a) => (entries)
{
  zero = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  three = Constant <value = int64 {3}> ()
  columns = Constant <value = int64[1] {1}> ()
  list = Constant <value = int64[1] {-1}> ()
  wanted_w = Reshape (b_w, list)
  wanted_a = Reshape (b_a, list)
  wanted = Concat <axis: int = 0> (wanted_w, wanted_a)
  missing = Sub (wanted, row_pairs)
  most = ReduceMax <keepdims: int = 0> (missing, columns)
  size = Abs (missing)
  distance = ReduceMax <keepdims: int = 0> (size, columns)
  is_other = Greater (distance, zero)
  is_narrow = Greater (most, zero)
  shape = Shape (row_pairs)
  rows = Gather <axis: int = 0> (shape, zero)
  place = Range (zero, rows, one)
  after = Add (place, rows)
  end = Mul (rows, three)
  from_the_end = Sub (end, place)
  of_wide = Where (is_other, after, place)
  score = Where (is_narrow, from_the_end, of_wide)
  row = ArgMin <axis: int = 0, keepdims: int = 0> (score)
  entries = Gather <axis: int = 0> (table, row)
}
"""

# B4: floor(x / 2^S) is (x - Mod(x, 2^S)) / 2^S, because Mod takes the sign of the divisor. The clip is by comparison:
# onnxruntime's int64 Clip, Min and Max misjudge numbers of 32 bits on x86 (microsoft/onnxruntime pull request 32475).
_REQUANTIZE = """
Requantize <low, high> (total, multiplier, shift, zero_point) => (y)
{
  two = Constant <value = int64 {2}> ()
  product = Mul (total, multiplier)
  divisor = Pow (two, shift)
@round
  base = Cast <to: int = 7> (zero_point)
  code = Add (base, quotient)
  lo = Constant <value_int: int = @low> ()
  hi = Constant <value_int: int = @high> ()
  too_low = Less (code, lo)
  raised = Where (too_low, lo, code)
  too_high = Less (hi, raised)
  clipped = Where (too_high, hi, raised)
  y = Cast <to: int = 2> (clipped)
}
"""
_ROUND_TIES_UP = """
  half = Div (divisor, two)
  moved = Add (product, half)
  rest = Mod (moved, divisor)
  multiple = Sub (moved, rest)
  quotient = Div (multiple, divisor)
"""
_ROUND_FLOOR = """
  rest = Mod (product, divisor)
  multiple = Sub (product, rest)
  quotient = Div (multiple, divisor)
"""
# floor + [2 rest + t > divisor], where t = 1 if a tie must go up and else 0
_ROUND_TIES_AWAY = """
  zero = Constant <value = int64 {0}> ()
  rest = Mod (product, divisor)
  multiple = Sub (product, rest)
  floor = Div (multiple, divisor)
  not_negative = GreaterOrEqual (product, zero)
  tie_up = Cast <to: int = 7> (not_negative)
  twice = Mul (rest, two)
  scale = Add (twice, tie_up)
  above = Greater (scale, divisor)
  increment = Cast <to: int = 7> (above)
  quotient = Add (floor, increment)
"""
_ROUND_TIES_EVEN = """
  rest = Mod (product, divisor)
  multiple = Sub (product, rest)
  floor = Div (multiple, divisor)
  tie_up = Mod (floor, two)
  twice = Mul (rest, two)
  scale = Add (twice, tie_up)
  above = Greater (scale, divisor)
  increment = Cast <to: int = 7> (above)
  quotient = Add (floor, increment)
"""


def helpers(arithmetic: Arithmetic) -> dict[str, str]:
    """Return the bodies of the helpers under these rules; each stands after those that it calls itself."""
    return {
        "NestCodes": _NEST_CODES.replace("@nest", _nesting(arithmetic.activation_rule).strip("\n")),
        "NestActivation": _NEST_ACTIVATION,
        "NestWindow": _NEST_WINDOW,
        "Border": _BORDER,
        **_nest_weight(arithmetic.weight_rule),
        "Align": _ALIGN,
        "Ones": _ONES,
        "TakeHalf": _TAKE_HALF,
        "SelectRow": _SELECT_ROW,
        "SelectPairRow": _SELECT_PAIR_ROW,
        "Requantize": _REQUANTIZE.replace("@round", _round(arithmetic.rounding).strip("\n")),
    }


def _nesting(rule: Nesting) -> str:
    """Return the nodes that nest codes; MIDPOINT and CENTROID differ from FLOOR in the operand only."""
    match rule:
        case Nesting.TIES_UP:
            return _NEST_TIES_UP
        case Nesting.FLOOR | Nesting.MIDPOINT | Nesting.CENTROID:
            return _NEST_FLOOR
        case _:
            assert_never(rule)


def _nest_weight(rule: Nesting) -> dict[str, str]:
    """Return the bodies that make operands of weights, helpers first."""
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR:
            nesting = _nesting(rule).strip("\n")
            codes = _NEST_CODES.replace("NestCodes", "NestWeightCodes").replace("@nest", nesting)
            return {"NestWeightCodes": codes, "NestWeight": _NEST_WEIGHT}
        case Nesting.MIDPOINT | Nesting.CENTROID:
            return {"NestWeight": _NEST_WEIGHT_MIDPOINT}
        case _:
            assert_never(rule)


def _round(rounding: Rounding) -> str:
    """Return the nodes that shift and round."""
    match rounding:
        case Rounding.TIES_UP:
            return _ROUND_TIES_UP
        case Rounding.FLOOR:
            return _ROUND_FLOOR
        case Rounding.TIES_AWAY:
            return _ROUND_TIES_AWAY
        case Rounding.TIES_EVEN:
            return _ROUND_TIES_EVEN
        case _:
            assert_never(rounding)

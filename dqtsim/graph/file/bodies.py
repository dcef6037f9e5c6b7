"""The model-local functions: every dqtsim operator stated once more, in standard ONNX integer operators.

A runtime that has never heard of dqtsim executes these bodies; stock onnxruntime is thereby an oracle that nobody here
wrote. dqtsim itself never interprets them: the reader only demands that a file carries exactly those of its format.

The bodies state the law with an unbounded accumulator for one picture. They are written independently of `spec` on
purpose (a division where the law shifts, a comparison where the law adds), because only two independent statements can
confirm each other. The text is the syntax of `onnx.parser`; equation numbers refer to spec/README.md.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from string import Template
from typing import TYPE_CHECKING, assert_never

from ...spec.rules import Nesting, Rounding
from ..model import Arithmetic, Graph
from ..schema import DOMAIN, SCHEMAS, Form, overload_of

if TYPE_CHECKING:
    import onnx

OPSET = 21
IR_VERSION = 10

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

_NESTED_CONV = """
$signature
{
  zero = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  b_w = Gather <axis: int = 0> (widths, zero)
  b_a = Gather <axis: int = 0> (widths, one)
  x_b, z_x, e_a = dqtsim.NestActivation (x, x_zero_point, b_a)
  w_b, z_w, e_w = dqtsim.NestWeight (w, b_w)
  p = ConvInteger <strides: ints = @strides, pads: ints = @pads, dilations: ints = @dilations, group: int = @group>
    (x_b, w_b, z_x, z_w)
  a = dqtsim.Align (p, e_w, e_a)
  bias_row = $select_row (bias$row_pairs, b_w, b_a)
  multiplier_row = $select_row (multiplier$row_pairs, b_w, b_a)
  shift_row = $select_row (shift$row_pairs, b_w, b_a)
  per_channel = Constant <value = int64[3] {-1, 1, 1}> ()
  b = Reshape (bias_row, per_channel)
  m = Reshape (multiplier_row, per_channel)
  s = Reshape (shift_row, per_channel)
  total = Add (a, b)
  y = dqtsim.Requantize <low: int = @low, high: int = @high> (total, m, s, y_zero_point)
}
"""
_NESTED_GEMM = """
$signature
{
  zero = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  b_w = Gather <axis: int = 0> (widths, zero)
  b_a = Gather <axis: int = 0> (widths, one)
  x_b, z_x, e_a = dqtsim.NestActivation (x, x_zero_point, b_a)
  w_b, z_w, e_w = dqtsim.NestWeight (w, b_w)
  w_t = Transpose <perm: ints = [1, 0]> (w_b)
  p = MatMulInteger (x_b, w_t, z_x, z_w)
  a = dqtsim.Align (p, e_w, e_a)
  b = $select_row (bias$row_pairs, b_w, b_a)
  m = $select_row (multiplier$row_pairs, b_w, b_a)
  s = $select_row (shift$row_pairs, b_w, b_a)
  total = Add (a, b)
  y = dqtsim.Requantize <low: int = @low, high: int = @high> (total, m, s, y_zero_point)
}
"""
# B7
_NESTED_LOGITS = """
$signature
{
  zero = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  b_w = Gather <axis: int = 0> (widths, zero)
  b_a = Gather <axis: int = 0> (widths, one)
  x_b, z_x, e_a = dqtsim.NestActivation (x, x_zero_point, b_a)
  w_b, z_w, e_w = dqtsim.NestWeight (w, b_w)
  w_t = Transpose <perm: ints = [1, 0]> (w_b)
  p = MatMulInteger (x_b, w_t, z_x, z_w)
  a = dqtsim.Align (p, e_w, e_a)
  b = $select_row (bias$row_pairs, b_w, b_a)
  total = Add (a, b)
  y = Cast <to: int = 6> (total)
}
"""
# B5
_NESTED_ADD = """
NestedAdd <low, high>
  (a, b, a_zero_point, b_zero_point, y_zero_point, a_multiplier, b_multiplier, shift) => (y)
{
  one = Constant <value = int64 {1}> ()
  q_a = Cast <to: int = 7> (a)
  q_b = Cast <to: int = 7> (b)
  z_a = Cast <to: int = 7> (a_zero_point)
  z_b = Cast <to: int = 7> (b_zero_point)
  s_a = Sub (q_a, z_a)
  s_b = Sub (q_b, z_b)
  part_a = Mul (s_a, a_multiplier)
  part_b = Mul (s_b, b_multiplier)
  total = Add (part_a, part_b)
  y = dqtsim.Requantize <low: int = @low, high: int = @high> (total, one, shift, y_zero_point)
}
"""
# B6: every plane is convolved with ones, so that padded taps hold the zero point and add 0.
_NESTED_AVERAGE_POOL = """
NestedAveragePool <kernel_shape, strides, pads, low, high>
  (x, x_zero_point, y_zero_point, multiplier, shift) => (y)
{
  planes = Constant <value = int64[1] {0}> ()
  single = Constant <value = int64[2] {1, 1}> ()
  kernel = Constant <value_ints: ints = @kernel_shape> ()
  ones_shape = Concat <axis: int = 0> (single, kernel)
  ones = ConstantOfShape <value = uint8[1] {1}> (ones_shape)
  apart = Transpose <perm: ints = [1, 0, 2, 3]> (x)
  sums = ConvInteger <strides: ints = @strides, pads: ints = @pads> (apart, ones, x_zero_point)
  together = Transpose <perm: ints = [1, 0, 2, 3]> (sums)
  total = Cast <to: int = 7> (together)
  y = dqtsim.Requantize <low: int = @low, high: int = @high> (total, multiplier, shift, y_zero_point)
}
"""
_NESTED_REQUANTIZE = """
NestedRequantize <low, high> (x, x_zero_point, y_zero_point, multiplier, shift) => (y)
{
  q = Cast <to: int = 7> (x)
  z = Cast <to: int = 7> (x_zero_point)
  total = Sub (q, z)
  y = dqtsim.Requantize <low: int = @low, high: int = @high> (total, multiplier, shift, y_zero_point)
}
"""
# B9
_NESTED_TABLE = """
NestedTable (x, table) => (y)
{
  q = Cast <to: int = 7> (x)
  y = Gather <axis: int = 0> (table, q)
}
"""


# the bodies by operator; a new operator is one entry here; functions of domain `dqtsim` that it calls are its helpers.
# Where a body depends on the form of the node, a $piece stands for what the form puts there.
OPERATORS: dict[str, str] = {
    "NestedConv": _NESTED_CONV,
    "NestedGemm": _NESTED_GEMM,
    "NestedLogits": _NESTED_LOGITS,
    "NestedAdd": _NESTED_ADD,
    "NestedAveragePool": _NESTED_AVERAGE_POOL,
    "NestedRequantize": _NESTED_REQUANTIZE,
    "NestedTable": _NESTED_TABLE,
}


# the pieces of the plain form, and what each part of a form puts in their place
_PLAIN: Mapping[str, str] = {"select_row": "dqtsim.SelectRow <row_widths: ints = @row_widths>", "row_pairs": ""}
_PIECES: Mapping[str, Mapping[str, str]] = {
    "row_pairs": {"select_row": "dqtsim.SelectPairRow", "row_pairs": ", row_pairs"},
}


def _operator(operator: str, form: Form) -> str:
    """Return the body of an operator in one form."""
    schema = SCHEMAS[DOMAIN, operator]
    attributes = ", ".join(schema.attributes_of(form))
    inputs = ", ".join(entry.name for entry in schema.inputs_of(form))
    pieces = {**_PLAIN, "signature": f"{operator} {f'<{attributes}>' if attributes else ''} ({inputs}) => (y)"}
    for part in form:
        pieces |= _PIECES.get(part, {})
    return Template(OPERATORS[operator]).substitute(pieces)


def _helpers(arithmetic: Arithmetic) -> dict[str, str]:
    """Return the bodies of the helpers under these rules; each stands after those that it calls itself."""
    return {
        "NestCodes": _NEST_CODES.replace("@nest", _nesting(arithmetic.activation_rule).strip("\n")),
        "NestActivation": _NEST_ACTIVATION,
        **_nest_weight(arithmetic.weight_rule),
        "Align": _ALIGN,
        "SelectRow": _SELECT_ROW,
        "SelectPairRow": _SELECT_PAIR_ROW,
        "Requantize": _REQUANTIZE.replace("@round", _round(arithmetic.rounding).strip("\n")),
    }


def _nesting(rule: Nesting) -> str:
    """Return the nodes that nest codes; MIDPOINT differs from FLOOR in the operand only."""
    match rule:
        case Nesting.TIES_UP:
            return _NEST_TIES_UP
        case Nesting.FLOOR | Nesting.MIDPOINT:
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
        case Nesting.MIDPOINT:
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


def forms_of(graph: Graph) -> set[tuple[str, Form]]:
    """Return the operators of the domain that `graph` uses, each with the forms in which it does."""
    return {(node.operator, node.form) for node in graph.nodes if node.domain == DOMAIN}


def full_name(function: "onnx.FunctionProto") -> str:
    """Return the name of a function with its overload, if it has one, as ONNX writes it."""
    return f"{function.name}:{function.overload}" if function.overload else str(function.name)


def functions(
    arithmetic: Arithmetic, version: int = 1, used: Iterable[tuple[str, Form]] = ()
) -> "tuple[onnx.FunctionProto, ...]":
    """Return the bodies that a file of format `version` carries, parsed and in the order of the file, helpers first.

    Version 1: those of every operator of version 1, used or not. From version 2 on: those of the operators `used`, in
    the forms in which they are used. In both cases with the helpers that these bodies call, directly or through another
    helper.
    """
    n = arithmetic.master_width
    helpers = _helpers(arithmetic)
    names: list[tuple[str, Form]] = [(name, ()) for name in helpers]
    if version == 1:
        used = [(schema.operator, ()) for schema in SCHEMAS.values() if schema.domain == DOMAIN and schema.since == 1]
    waiting = list(used)
    for operator in OPERATORS:
        parts = [part.name for part in SCHEMAS[DOMAIN, operator].parts]
        forms = {form for name, form in waiting if name == operator} | {()}
        names += [(operator, form) for form in sorted(forms, key=lambda form: [parts.index(name) for name in form])]
    found: dict[tuple[str, Form], onnx.FunctionProto] = {}
    while waiting:
        name, form = key = waiting.pop()
        if key not in found:
            text = helpers[name] if name in helpers else _operator(name, form)
            text = text.replace("{@n}", f"{{{n}}}").replace("{@z}", f"{{{1 << (n - 1)}}}")
            found[key] = _parsed(text, version, overload_of(form))
            waiting += [(node.op_type, ()) for node in found[key].node if node.domain == DOMAIN]
    return tuple(found[key] for key in names if key in found)


@cache
def _parsed(text: str, version: int, overload: str) -> "onnx.FunctionProto":
    from onnx import parser

    # the version of the domain is that of the format
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}, "{DOMAIN}" : {version}]>\n'
    function = parser.parse_function(header + text.strip())
    if overload:
        function.overload = overload
    return function

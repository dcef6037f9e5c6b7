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

from ...spec.rules import Nesting
from ..model import Arithmetic, Graph
from ..schema import DOMAIN, SCHEMAS, Form, overload_of
from .helpers import helpers as helpers_of

if TYPE_CHECKING:
    import onnx

OPSET = 21
IR_VERSION = 10

_NESTED_CONV = """
$signature
{
  zero = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  b_w = Gather <axis: int = 0> (widths, zero)
  b_a = Gather <axis: int = 0> (widths, one)
$border  x_b, z_x, e_a = $nest_x ($x, x_zero_point, b_a$windows)
  w_b, z_w, e_w = dqtsim.NestWeight (w, b_w)
  p = ConvInteger <strides: ints = @strides, ${pads}dilations: ints = @dilations, group: int = @group>
    (x_b, w_b, z_x, z_w)
$align_conv  bias_row = $select_row (bias$row_pairs, b_w, b_a)
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
  x_b, z_x, e_a = $nest_x (x, x_zero_point, b_a$windows)
  w_b, z_w, e_w = dqtsim.NestWeight (w, b_w)
  w_t = Transpose <perm: ints = [1, 0]> (w_b)
  p = MatMulInteger (x_b, w_t, z_x, z_w)
$align_gemm  b = $select_row (bias$row_pairs, b_w, b_a)
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
  x_b, z_x, e_a = $nest_x (x, x_zero_point, b_a$windows)
  w_b, z_w, e_w = dqtsim.NestWeight (w, b_w)
  w_t = Transpose <perm: ints = [1, 0]> (w_b)
  p = MatMulInteger (x_b, w_t, z_x, z_w)
$align_gemm  b = $select_row (bias$row_pairs, b_w, b_a)
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
# B6, B6': every plane is convolved with ones, so that padded taps hold the zero point and add 0. Multipliers of
# positions are spread over the channels by Mul itself.
_NESTED_AVERAGE_POOL = """
$signature
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
# B9, B9': with a table per channel, row c of the codes is looked up in row c of the table
_NESTED_TABLE = """
$signature
{
  q = Cast <to: int = 7> (x)
$look_up
}
"""
_LOOK_UP = """
  y = Gather <axis: int = 0> (table, q)
"""
_LOOK_UP_CHANNELS = """
  shape = Shape (x)
  tables = Shape <start: int = 0, end: int = 1> (table)
  rest = Constant <value = int64[1] {-1}> ()
  rows = Concat <axis: int = 0> (tables, rest)
  per_channel = Reshape (q, rows)
  found = GatherElements <axis: int = 1> (table, per_channel)
  y = Reshape (found, shape)
"""
# B10: a b of one code per channel is spread over the pixels by Mul itself
_NESTED_MULTIPLY = """
NestedMultiply <low, high>
  (a, b, a_zero_point, b_zero_point, y_zero_point, multiplier, shift) => (y)
{
  q_a = Cast <to: int = 7> (a)
  q_b = Cast <to: int = 7> (b)
  z_a = Cast <to: int = 7> (a_zero_point)
  z_b = Cast <to: int = 7> (b_zero_point)
  s_a = Sub (q_a, z_a)
  s_b = Sub (q_b, z_b)
  total = Mul (s_a, s_b)
  y = dqtsim.Requantize <low: int = @low, high: int = @high> (total, multiplier, shift, y_zero_point)
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
    "NestedMultiply": _NESTED_MULTIPLY,
}


# the pieces of the plain form, and what each part of a form puts in their place
_PLAIN: Mapping[str, str] = {
    "select_row": "dqtsim.SelectRow <row_widths: ints = @row_widths>",
    "row_pairs": "",
    "nest_x": "dqtsim.NestActivation",
    "windows": "",
    "x": "x",
    "border": "",
    "pads": "pads: ints = @pads, ",
    "look_up": _LOOK_UP.strip("\n"),
}
_PIECES: Mapping[str, Mapping[str, str]] = {
    "row_pairs": {"select_row": "dqtsim.SelectPairRow", "row_pairs": ", row_pairs"},
    "windows": {"nest_x": "dqtsim.NestWindow", "windows": ", windows"},
    "padding": {
        "x": "bordered",
        "border": "  bordered = dqtsim.Border <pads: ints = @pads> (x, padding)\n",
        "pads": "",
    },
    "channels": {"look_up": _LOOK_UP_CHANNELS.strip("\n")},
}


# B2, B2': the lines that align a sum, by the rule of weights
_ALIGN = "  a = dqtsim.Align (p, e_w, e_a)\n"
_ALIGN_CONV_LESS_HALF = """\
  ones = dqtsim.Ones (w)
  u = ConvInteger <strides: ints = @strides, ${pads}dilations: ints = @dilations, group: int = @group> (x_b, ones, z_x)
  full = dqtsim.Align (p, e_w, e_a)
  a = dqtsim.TakeHalf (full, u, b_w, e_a)
"""
_ALIGN_GEMM_LESS_HALF = """\
  ones = dqtsim.Ones (w_t)
  u = MatMulInteger (x_b, ones, z_x)
  full = dqtsim.Align (p, e_w, e_a)
  a = dqtsim.TakeHalf (full, u, b_w, e_a)
"""


def _aligned(rule: Nesting) -> dict[str, str]:
    """Return the pieces that align the sums of layers."""
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR | Nesting.MIDPOINT:
            return {"align_conv": _ALIGN, "align_gemm": _ALIGN}
        case Nesting.CENTROID:
            return {"align_conv": _ALIGN_CONV_LESS_HALF, "align_gemm": _ALIGN_GEMM_LESS_HALF}
        case _:
            assert_never(rule)


def _operator(operator: str, form: Form, rule: Nesting) -> str:
    """Return the body of an operator in one form, under a rule of weights."""
    schema = SCHEMAS[DOMAIN, operator]
    attributes = ", ".join(schema.attributes_of(form))
    inputs = ", ".join(entry.name for entry in schema.inputs_of(form))
    pieces = {**_PLAIN, "signature": f"{operator} {f'<{attributes}>' if attributes else ''} ({inputs}) => (y)"}
    for part in form:
        pieces |= _PIECES.get(part, {})
    # the pieces of a rule have pieces of the form in them
    text = Template(OPERATORS[operator]).safe_substitute(_aligned(rule))
    return Template(text).substitute(pieces)


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
    helpers = helpers_of(arithmetic)
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
            text = helpers[name] if name in helpers else _operator(name, form, arithmetic.weight_rule)
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

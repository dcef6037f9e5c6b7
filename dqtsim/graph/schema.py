"""The operators of a model file: their inputs, attributes and dtypes, as the reader demands them.

One table for the `dqtsim` domain and for the standard operators that may stand between nested ones. Shapes and ranges
are checked in `ops`; this file says what a node must look like before its meaning is considered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

DOMAIN = "dqtsim"
FORMATS = (1, 2)
Attribute = int | str | tuple[int, ...]
# the parts of an operator that a node uses beyond the plain form, in the order of its schema; () is the plain form
Form = tuple[str, ...]

CODES = "uint8"
WIDE = "int64"
LOGITS = "int32"


@dataclass(frozen=True)
class Input:
    """One input of an operator: its role, dtypes allowed, whether it must be an initializer, and the shape if so.

    A shape names what each dimension counts. Rows of (B, M, S), output channels and codes of the master width (2^n)
    are checked; other names are free.
    """

    name: str
    dtypes: tuple[str, ...]
    constant: bool = False
    shape: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Part:
    """A part that a node may use beyond the plain form of its operator, by which an `overload` in a file is made.

    `input` comes after the others; if an input of the plain form has its name, it stands in the place of that one.
    `replaces` names the attribute that a node with this part lacks. `since` is the first of the FORMATS that has it.
    """

    name: str
    input: Input
    replaces: str = ""
    since: int = 2


@dataclass(frozen=True)
class Schema:
    """What a node of one operator looks like.

    `attributes` maps each name to its default, or to REQUIRED. `since` is the first of the FORMATS that has
    the operator. `parts` are those that a node may use beyond the plain form. Raises KeyError for a form with others.
    """

    domain: str
    operator: str
    inputs: tuple[Input, ...]
    attributes: Mapping[str, Attribute | None] = field(default_factory=dict)
    variadic: bool = False
    since: int = 1
    parts: tuple[Part, ...] = ()

    @property
    def title(self) -> str:
        """Return the operator's name with its domain."""
        return f"{self.domain + '.' if self.domain else ''}{self.operator}"

    def roles(self, count: int, form: Form = ()) -> tuple[str, ...]:
        """Return the roles of a node's `count` inputs in order; a variadic operator numbers its one role: inputs.0."""
        if self.variadic:
            return tuple(f"{self.inputs[0].name}.{number}" for number in range(count))
        return tuple(entry.name for entry in self.inputs_of(form))

    def parts_of(self, form: Form) -> tuple[Part, ...]:
        """Return the parts that `form` names."""
        known = {part.name: part for part in self.parts}
        return tuple(known[name] for name in form)

    def inputs_of(self, form: Form) -> tuple[Input, ...]:
        """Return the inputs of a node of this form, in order."""
        found = {entry.name: entry for entry in self.inputs}
        return tuple((found | {part.input.name: part.input for part in self.parts_of(form)}).values())

    def attributes_of(self, form: Form) -> Mapping[str, Attribute | None]:
        """Return the attributes of a node of this form."""
        replaced = {part.replaces for part in self.parts_of(form)}
        return {name: default for name, default in self.attributes.items() if name not in replaced}

    def since_of(self, form: Form) -> int:
        """Return the first of the FORMATS that has this form."""
        return max([self.since, *(part.since for part in self.parts_of(form))])


REQUIRED = None

ROW, CHANNEL, CODE, PAIR, WIDTH = "row", "output channel", "code", "width of a pair", "width from 0 up"

_X = Input("x", (CODES,))
_CONV_WEIGHT = Input("w", (CODES,), constant=True, shape=(CHANNEL, "input channel", "kernel row", "kernel column"))
_GEMM_WEIGHT = Input("w", (CODES,), constant=True, shape=(CHANNEL, "input channel"))
_ROWS = tuple(Input(name, (WIDE,), constant=True, shape=(ROW, CHANNEL)) for name in ("bias", "multiplier", "shift"))
_WIDTHS = Input("widths", (WIDE,))
_ROW_PAIRS = Part("row_pairs", Input("row_pairs", (WIDE,), constant=True, shape=(ROW, PAIR)), replaces="row_widths")
_POSITIONS = Part("positions", Input("multiplier", (WIDE,), constant=True, shape=("output row", "output column")))
_CHANNELS = Part("channels", Input("table", (CODES,), constant=True, shape=("channel", CODE)))
_ANY = (CODES, LOGITS, WIDE)


_WINDOWS = Part("windows", Input("windows", (WIDE,), constant=True, shape=(WIDTH,)))
_PADDING = Part("padding", Input("padding", (CODES,), constant=True, shape=("input channel",)))


def _zero_point(name: str) -> Input:
    return Input(f"{name}_zero_point", (CODES,), constant=True, shape=())


def _scalar(name: str) -> Input:
    return Input(name, (WIDE,), constant=True, shape=())


def _axes(name: str) -> Input:
    return Input(name, (WIDE,), constant=True, shape=("axis",))


_SCHEMAS = (
    Schema(
        DOMAIN,
        "NestedConv",
        (_X, _CONV_WEIGHT, _zero_point("x"), _zero_point("y"), *_ROWS, _WIDTHS),
        {
            "strides": (1, 1),
            "pads": (0, 0, 0, 0),
            "dilations": (1, 1),
            "group": 1,
            "row_widths": REQUIRED,
            "low": REQUIRED,
            "high": REQUIRED,
        },
        parts=(_ROW_PAIRS, _WINDOWS, _PADDING),
    ),
    Schema(
        DOMAIN,
        "NestedGemm",
        (_X, _GEMM_WEIGHT, _zero_point("x"), _zero_point("y"), *_ROWS, _WIDTHS),
        {"row_widths": REQUIRED, "low": REQUIRED, "high": REQUIRED},
        parts=(_ROW_PAIRS, _WINDOWS),
    ),
    Schema(
        DOMAIN,
        "NestedLogits",
        (_X, _GEMM_WEIGHT, _zero_point("x"), _ROWS[0], _WIDTHS),
        {"row_widths": REQUIRED},
        parts=(_ROW_PAIRS, _WINDOWS),
    ),
    Schema(
        DOMAIN,
        "NestedAdd",
        (
            Input("a", (CODES,)),
            Input("b", (CODES,)),
            *(_zero_point(name) for name in "aby"),
            _scalar("a_multiplier"),
            _scalar("b_multiplier"),
            _scalar("shift"),
        ),
        {"low": REQUIRED, "high": REQUIRED},
    ),
    Schema(
        DOMAIN,
        "NestedAveragePool",
        (_X, _zero_point("x"), _zero_point("y"), _scalar("multiplier"), _scalar("shift")),
        {
            "kernel_shape": REQUIRED,
            "strides": (1, 1),
            "pads": (0, 0, 0, 0),
            "low": REQUIRED,
            "high": REQUIRED,
        },
        parts=(_POSITIONS,),
    ),
    Schema(
        DOMAIN,
        "NestedRequantize",
        (_X, _zero_point("x"), _zero_point("y"), _scalar("multiplier"), _scalar("shift")),
        {"low": REQUIRED, "high": REQUIRED},
    ),
    Schema(
        DOMAIN,
        "NestedTable",
        (_X, Input("table", (CODES,), constant=True, shape=(CODE,))),
        since=2,
        parts=(_CHANNELS,),
    ),
    Schema(
        DOMAIN,
        "NestedMultiply",
        (
            Input("a", (CODES,)),
            Input("b", (CODES,)),
            *(_zero_point(name) for name in "aby"),
            _scalar("multiplier"),
            _scalar("shift"),
        ),
        {"low": REQUIRED, "high": REQUIRED},
        since=2,
    ),
    Schema(
        "",
        "MaxPool",
        (_X,),
        {
            "kernel_shape": REQUIRED,
            "strides": (1, 1),
            "pads": (0, 0, 0, 0),
            "dilations": (1, 1),
            "ceil_mode": 0,
            "storage_order": 0,
            "auto_pad": "NOTSET",
        },
    ),
    Schema("", "ArgMax", (Input("data", (LOGITS, WIDE)),), {"axis": 0, "keepdims": 1, "select_last_index": 0}),
    Schema("", "Concat", (Input("inputs", _ANY),), {"axis": REQUIRED}, variadic=True),
    Schema("", "Flatten", (Input("input", _ANY),), {"axis": 1}),
    Schema("", "Gather", (Input("data", _ANY), Input("indices", (WIDE,))), {"axis": 0}),
    Schema("", "Identity", (Input("input", _ANY),)),
    Schema("", "Reshape", (Input("data", _ANY), _axes("shape")), {"allowzero": 0}),
    Schema(
        "",
        "Slice",
        (
            Input("data", _ANY),
            *(_axes(name) for name in ("starts", "ends", "axes", "steps")),
        ),
    ),
    Schema("", "Transpose", (Input("data", _ANY),), {"perm": REQUIRED}),
)
SCHEMAS: Mapping[tuple[str, str], Schema] = {(schema.domain, schema.operator): schema for schema in _SCHEMAS}
NESTED_LAYERS = ("NestedConv", "NestedGemm", "NestedLogits")


def overload_of(form: Form) -> str:
    """Return how a file writes a form: its parts joined by a plus sign, empty for the plain form."""
    return "+".join(form)


def form_of(overload: str) -> Form:
    """Return the form that a file writes as `overload`; whether an operator has it is checked elsewhere."""
    return tuple(overload.split("+")) if overload else ()


def schema_of(domain: str, operator: str) -> Schema | None:
    """Return the schema of an operator, or None when a model may not use it."""
    return SCHEMAS.get((domain, operator))

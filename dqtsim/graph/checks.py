"""The rules for a graph before it is planned. Each violation is one sentence that names the node and the tensor."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import assert_never

import numpy as np

from ..errors import ModelError, cut, listed
from ..spec.rules import Nesting
from .model import Array, Graph, Node
from .schema import CHANNEL, CODE, NESTED_LAYERS, PAIR, ROW, SCHEMAS, WIDTH, Input, Schema, overload_of, schema_of
from .widths import reachable_widths

LARGEST = (1 << 63) - 1


def check_graph(graph: Graph) -> None:
    """Raise ModelError for the first rule of the format that `graph` breaks."""
    _check_arithmetic(graph)
    _check_input(graph)
    known: dict[str, str] = {value.name: value.dtype for value in graph.inputs}
    known |= {name: array.dtype.name for name, array in graph.initializers.items()}
    seen: set[str] = set()
    for node in graph.nodes:
        schema = check_operator(node)
        if node.name in seen:
            raise ModelError(f"node names must be unique; {node.title} occurs twice.")
        seen.add(node.name)
        _check_inputs(graph, node, schema, known)
        for output in node.outputs:
            if output in known:
                raise ModelError(f"every tensor has one producer; {node.title} produces '{output}' a second time.")
            known[output] = _output_dtype(node, known)
    for value in graph.outputs:
        if sum(other.name == value.name for other in graph.outputs) > 1:
            raise ModelError(f"graph outputs have different names; '{value.name}' is named twice.")
        if value.name not in known:
            raise ModelError(f"every output has a producer; no node produces the graph output '{value.name}'.")
        if known[value.name] != value.dtype:
            raise ModelError(
                f"output '{value.name}' is declared as {value.dtype}; the graph makes it {known[value.name]}."
            )
    _check_layers(graph)
    reachable_widths(graph)
    for node in graph.nodes:
        _check_values(graph, node)


def check_operator(node: Node) -> Schema:
    """Return the schema of `node`; raise ModelError if no model may use its operator, or not in this form."""
    schema = schema_of(node.domain, node.operator)
    if schema is None:
        supported = ", ".join(sorted(s.title for s in SCHEMAS.values()))
        raise ModelError(
            f"a model may use only supported operators; node '{cut(node.name)}' is operator '{cut(node.operator)}' of "
            f"domain '{cut(node.domain or 'ai.onnx')}' (supported: {supported})."
        )
    _check_form(node, schema)
    return schema


def _check_form(node: Node, schema: Schema) -> None:
    """Refuse a form with parts that the operator lacks, with one twice, or in another order than that of the schema."""
    known = [part.name for part in schema.parts]
    if node.form == tuple(name for name in known if name in node.form):
        return
    found = cut(repr(overload_of(node.form)))
    if not known:
        raise ModelError(f"{node.title} has one form, without overload; found overload {found}.")
    raise ModelError(
        f"the overload of {node.title} joins some of {', '.join(known)} by '+', in this order; found {found}."
    )


def _check_arithmetic(graph: Graph) -> None:
    n = graph.arithmetic.master_width
    if not 2 <= n <= 8:
        raise ModelError(f"the master width is 2 to 8; metadata 'dqtsim.master_width' says {n}.")
    if not _nests_activations(graph.arithmetic.activation_rule):
        found = graph.arithmetic.activation_rule
        raise ModelError(
            f"{found} nests weights only; metadata 'dqtsim.activation_rule' must be TIES_UP or FLOOR, found {found}."
        )
    pairs = [*graph.candidates, *graph.pinned.values()]
    for pair in pairs:
        if not all(1 <= width <= n for width in pair):
            raise ModelError(f"widths lie between 1 and the master width {n}; metadata names the pair {pair}.")
    if not graph.candidates:
        raise ModelError("a model names its candidate widths; metadata 'dqtsim.candidates' is empty.")


def _nests_activations(rule: Nesting) -> bool:
    match rule:
        case Nesting.TIES_UP | Nesting.FLOOR:
            return True
        case Nesting.MIDPOINT | Nesting.CENTROID:
            return False
        case _:
            assert_never(rule)


def _check_input(graph: Graph) -> None:
    if len(graph.inputs) != 1:
        names = listed([cut(repr(value.name)) for value in graph.inputs])
        raise ModelError(f"a model has one input; found {len(graph.inputs)}: {names or 'none'}.")
    value = graph.input
    if value.dtype != "uint8" or len(value.shape) not in (2, 4) or value.shape[0] != 1 or min(value.shape) < 1:
        raise ModelError(
            f"the input is uint8 codes of one sample, shape (1, C, H, W) or (1, K); "
            f"'{value.name}' is {value.dtype} {value.shape}."
        )


def _check_inputs(graph: Graph, node: Node, schema: Schema, known: Mapping[str, str]) -> None:
    roles: list[Input] = list(schema.inputs_of(node.form))
    expected = len(roles)
    if schema.variadic:
        if not node.inputs:
            raise ModelError(f"{node.title} needs at least one input and has none.")
        roles = [schema.inputs[0]] * len(node.inputs)
    elif len(node.inputs) != expected:
        overload = f" with overload '{overload_of(node.form)}'" if node.form else ""
        raise ModelError(f"{node.title}{overload} takes {expected} inputs; found {len(node.inputs)}.")
    if len(node.outputs) != 1:
        raise ModelError(f"{node.title} has one output; found {len(node.outputs)}.")
    for role, name in zip(roles, node.inputs, strict=True):
        if role.constant and name not in graph.initializers:
            raise ModelError(f"{node.title} needs its input '{role.name}' as an initializer; '{name}' is none.")
        if name not in known:
            raise ModelError(f"{node.title} reads '{name}', which nothing before it produces.")
        if known[name] not in role.dtypes:
            raise ModelError(
                f"{node.title} takes '{role.name}' as {' or '.join(role.dtypes)}; tensor '{name}' is {known[name]}."
            )
        if role.constant and role.shape is not None and graph.initializers[name].ndim != len(role.shape):
            raise ModelError(
                f"{node.title} takes '{role.name}' with {len(role.shape)} dimensions; tensor '{name}' has shape "
                f"{graph.initializers[name].shape}."
            )
    if schema.variadic and len({known[name] for name in node.inputs}) > 1:
        raise ModelError(
            f"{node.title} joins tensors of one dtype; found {cut([known[name] for name in node.inputs])}."
        )


def _output_dtype(node: Node, known: Mapping[str, str]) -> str:
    if node.operator == "NestedLogits":
        return "int32"
    if node.operator == "ArgMax":
        return "int64"
    return "uint8" if node.domain else known[node.source]


def _check_layers(graph: Graph) -> None:
    nested = {node.name for node in graph.nodes if node.operator in NESTED_LAYERS}
    for name in graph.layers:
        if name not in nested:
            raise ModelError(f"metadata 'dqtsim.layers' names nested layers; no nested node is called '{name}'.")
    for name in graph.pinned:
        if name not in graph.layers:
            raise ModelError(f"metadata 'dqtsim.pinned' names entries of 'dqtsim.layers'; '{name}' is none.")
    if len(set(graph.layers)) != len(graph.layers):
        raise ModelError("metadata 'dqtsim.layers' names each layer once; a name occurs twice.")


def _check_geometry(node: Node) -> None:
    for name, entries, least in (("kernel_shape", 2, 1), ("strides", 2, 1), ("dilations", 2, 1), ("pads", 4, 0)):
        if name in node.attributes:
            value = node.integers(name)
            if len(value) != entries or min(value) < least:
                raise ModelError(
                    f"{node.title} takes '{name}' as {entries} integers from {least} up; found {cut(value)}."
                )
    if "group" in node.attributes and node.integer("group") < 1:
        raise ModelError(f"{node.title} takes 'group' from 1 up; found {node.integer('group')}.")


def _check_values(graph: Graph, node: Node) -> None:
    n = graph.arithmetic.master_width
    top = (1 << n) - 1
    demanded = {entry.name for entry in SCHEMAS[node.domain, node.operator].inputs_of(node.form) if entry.constant}
    constants = {role: array for role, array in graph.constants(node).items() if role in demanded}
    _check_geometry(node)
    if "low" in node.attributes:
        low, high = node.integer("low"), node.integer("high")
        if not 0 <= low <= high <= top:
            raise ModelError(f"{node.title} clips to 0 <= low <= high <= {top}; found low {low}, high {high}.")
    for role, array in constants.items():
        if array.dtype == np.uint8 and array.size and int(array.max()) > top:
            raise ModelError(
                f"{node.title} holds codes of {n} bits in '{role}'; the largest is {int(array.max())}, above {top}."
            )
    for name in sorted(set(node.inputs) & graph.initializers.keys()):
        array = graph.initializers[name]
        if array.dtype == np.uint8 and array.size and int(array.max()) > top:
            raise ModelError(
                f"{node.title} reads codes of {n} bits; the largest of '{name}' is {int(array.max())}, above {top}."
            )
    for role, array in constants.items():
        if "multiplier" in role:
            _check_range(node, role, array, 0, (1 << 31) - 1)
        if role == "shift":
            _check_range(node, role, array, 0, 62)
    _check_shapes(node, constants, n)
    if node.operator == "NestedLogits":
        _check_logit_scale(graph, node)
    if node.operator in NESTED_LAYERS:
        _check_sums(node, constants, n)
    elif "shift" in constants:
        _check_intermediate(node, constants, n)


def _check_logit_scale(graph: Graph, node: Node) -> None:
    weight = node.operand("w")
    quantization = graph.quantization.get(weight)
    if quantization and len(set(quantization.scale)) > 1:
        raise ModelError(
            f"{node.title} gives logits that are compared with each other, so its weights have one scale; "
            f"'{weight}' has {len(set(quantization.scale))}."
        )


def _check_range(node: Node, role: str, array: Array, low: int, high: int) -> None:
    if array.size and not low <= int(array.min()) <= int(array.max()) <= high:
        raise ModelError(
            f"{node.title} takes '{role}' between {low} and {high}; found {int(array.min())} to {int(array.max())}."
        )


def _check_row_widths(node: Node, n: int) -> None:
    row_widths = node.integers("row_widths")
    if not row_widths or any(a >= b for a, b in pairwise(row_widths)):
        raise ModelError(f"{node.title} takes ascending row_widths; found {cut(row_widths)}.")
    if not all(1 <= width <= n for width in row_widths):
        raise ModelError(f"{node.title} takes row_widths between 1 and the master width {n}; found {cut(row_widths)}.")


def _check_row_pairs(node: Node, row_pairs: Array, n: int) -> None:
    if not len(row_pairs):
        raise ModelError(f"{node.title} takes at least one pair of widths in 'row_pairs'; found none.")
    _check_range(node, "row_pairs", row_pairs, 1, n)
    for pair, times in Counter((b_w, b_a) for b_w, b_a in row_pairs.tolist()).items():
        if times > 1:
            raise ModelError(f"{node.title} takes each pair of 'row_pairs' once; {pair} occurs {times} times.")


def _check_windows(node: Node, windows: Sequence[int], n: int) -> None:
    for b, j in enumerate(windows):
        if not 0 <= j <= (n - b if b else 0):
            most = f"0 to {n - b}" if b else "0"
            raise ModelError(f"{node.title} takes 'windows' with {most} for width {b}; found {j}.")


def _check_shapes(node: Node, constants: Mapping[str, Array], n: int) -> None:
    sizes = {CODE: 1 << n, PAIR: 2, WIDTH: n + 1}
    if node.operator in NESTED_LAYERS:
        if "row_pairs" not in node.form:
            _check_row_widths(node, n)
        rows = constants["row_pairs"] if "row_pairs" in node.form else node.integers("row_widths")
        sizes |= {ROW: len(rows), CHANNEL: constants["w"].shape[0]}
    for role in SCHEMAS[node.domain, node.operator].inputs_of(node.form):
        if role.shape is None or role.name not in constants:
            continue
        found = constants[role.name].shape
        shape = tuple(sizes.get(counted, size) for counted, size in zip(role.shape, found, strict=True))
        if found != shape:
            entries = " and ".join(counted for counted in role.shape if counted in sizes)
            raise ModelError(
                f"{node.title} takes '{role.name}' with one entry a {entries}, shape {shape}; found {found}."
            )
    if "row_pairs" in constants:
        _check_row_pairs(node, constants["row_pairs"], n)
    if "windows" in constants:
        _check_windows(node, constants["windows"].tolist(), n)


def _check_sums(node: Node, constants: Mapping[str, Array], n: int) -> None:
    weight, bias = constants["w"], constants["bias"]
    if min(weight.shape) < 1:
        raise ModelError(f"{node.title} has an empty weight tensor of shape {weight.shape}.")
    taps = int(np.prod(weight.shape[1:]))
    # every operand stands for less than 2^n master steps of an activation and at most 2^(n-1) of a weight
    aligned = taps * (1 << n) * (1 << (n - 1))
    totals = [aligned + abs(int(b)) for b in bias.reshape(-1)]
    if node.operator == "NestedLogits":
        if max(totals) > (1 << 31) - 1:
            raise ModelError(f"{node.title} gives int32 logits; its shapes and bias allow {max(totals)}, past 31 bits.")
        return
    pairs = zip(totals, constants["multiplier"].reshape(-1), constants["shift"].reshape(-1), strict=True)
    _refuse_past_63(node, [total * int(m) + (1 << int(s)) for total, m, s in pairs])


def _check_intermediate(node: Node, constants: Mapping[str, Array], n: int) -> None:
    window = int(np.prod(node.integers("kernel_shape"))) if "kernel_shape" in node.attributes else 1
    multipliers = sum(int(array.max(initial=0)) for role, array in constants.items() if "multiplier" in role)
    # a product of two codes, else one code a tap
    largest = 1 << (2 * n if node.operator == "NestedMultiply" else n)
    _refuse_past_63(node, [window * largest * multipliers + (1 << int(constants["shift"]))])


def _refuse_past_63(node: Node, magnitudes: Sequence[int]) -> None:
    worst = max(magnitudes)
    if worst > LARGEST:
        raise ModelError(
            f"every intermediate fits in 63 bits; {node.title} allows a requantized sum of {worst.bit_length()} bits."
        )

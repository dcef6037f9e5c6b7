"""Inputs of operators are asked for by role, never by position: only the schema knows their order in a file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dqtsim
from dqtsim.graph.model import Node

ROOT = Path(dqtsim.__file__).parent
# the trainer's networks are PyTorch's, whose inputs have no roles; one of its files reads graphs
SOURCES = [s for s in sorted(ROOT.rglob("*.py")) if ROOT / "train" not in s.parents or s.name == "exact.py"]
# where a position has a reason, by file and function
ALLOWED = {
    "graph/schema.py:roles": "the one role of a variadic operator, in its schema",
    "graph/checks.py:_check_inputs": "the one role of a variadic operator, in its schema",
    "graph/model.py:operands": "positions become roles here",
    "graph/model.py:source": "standard operators move, pool or compare their first input, whatever ONNX calls it",
    "graph/model.py:input": "a graph has one input",
}


def is_inputs(node: ast.expr) -> bool:
    """Return whether an expression is called inputs: `inputs`, `node.inputs`, `step.input_types`."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name in ("inputs", "input_types")


def is_position(index: ast.expr) -> bool:
    if isinstance(index, ast.UnaryOp):
        index = index.operand
    return isinstance(index, ast.Slice) or (isinstance(index, ast.Constant) and isinstance(index.value, int))


def takes_by_position(node: ast.AST) -> bool:
    """Return whether a piece of code indexes inputs by number, unpacks them in order, or pairs them with others."""
    match node:
        case ast.Subscript(value=value, slice=index):
            return is_inputs(value) and is_position(index)
        case ast.Assign(targets=[ast.Tuple()], value=value):
            parts = value.generators[0].iter if isinstance(value, ast.GeneratorExp) else value
            return is_inputs(parts)
        case ast.Call(func=ast.Name(id="zip" | "enumerate"), args=arguments):
            return any(is_inputs(argument) for argument in arguments)
        case ast.Call(args=arguments):
            return any(isinstance(argument, ast.Starred) and is_inputs(argument.value) for argument in arguments)
        case _:
            return False


def positions(source: str) -> Iterator[str]:
    """Yield the innermost function around every piece of code that takes inputs by position."""

    def look(node: ast.AST, function: str) -> Iterator[str]:
        name = node.name if isinstance(node, ast.FunctionDef) else function
        if takes_by_position(node):
            yield name
        for child in ast.iter_child_nodes(node):
            yield from look(child, name)

    yield from look(ast.parse(source), "")


def test_inputs_are_never_taken_by_position() -> None:
    found = {
        f"{source.relative_to(ROOT)}:{function}"
        for source in SOURCES
        for function in positions(source.read_text(encoding="utf-8"))
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "inputs[0]",
        "step.node.inputs[-1]",
        "node.inputs[2:]",
        "step.input_types[1].shape",
        "x, w = inputs",
        "data, indices = step.node.inputs",
        "a, b = (int(constants[name]) for name in node.inputs)",
        "dict(zip(roles, node.inputs))",
        "for position, name in enumerate(node.inputs): pass",
        "f(*inputs)",
    ],
)
def test_the_rule_notices(source: str) -> None:
    assert list(positions(f"def f():\n    {source}")) == ["f"]


@pytest.mark.parametrize("source", ["inputs['x']", "node.operand('x')", "[f(name) for name in node.inputs]"])
def test_roles_are_free(source: str) -> None:
    assert list(positions(source)) == []


def test_a_node_knows_its_operands_by_role() -> None:
    node = Node("sum", "dqtsim", "NestedRequantize", ("a", "za", "zy", "m", "s"), ("sum",))
    assert node.operand("multiplier") == "m"
    assert node.operands_in({name: name.upper() for name in node.inputs})["y_zero_point"] == "ZY"
    with pytest.raises(KeyError) as caught:
        node.operand("bias")
    assert caught.value.args == (
        "node 'sum' (dqtsim.NestedRequantize) has no operand 'bias'; it has x, x_zero_point, y_zero_point, "
        "multiplier, shift.",
    )


def test_the_operands_of_a_concat_are_numbered() -> None:
    assert Node("all", "", "Concat", ("a", "b"), ("all",)).operands == {"inputs.0": "a", "inputs.1": "b"}

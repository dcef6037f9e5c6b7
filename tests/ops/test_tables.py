"""One case table per operator, every engine."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import pytest

from dqtsim.errors import TargetError
from dqtsim.graph import check_graph
from dqtsim.ops import operators
from tests.builders import compiled, run

from .case import Case
from .table_moves import TABLES as MOVES

OPERATOR_TABLES = [
    import_module(f"{__package__}.{path.stem}")
    for path in sorted(Path(__file__).parent.glob("table_*.py"))
    if path.stem != "table_moves"
]
TABLES: Mapping[tuple[str, str], list[Case]] = {
    **{table.OPERATOR: table.CASES for table in OPERATOR_TABLES},
    **{("", name): cases for name, cases in MOVES.items()},
}
CASES = [
    pytest.param(key, case, id=f"{key[1]}: {case.name}".replace(" ", "_"))
    for key, cases in TABLES.items()
    for case in cases
]


@pytest.mark.parametrize(("key", "case"), CASES)
def test_case(engine: str, key: tuple[str, str], case: Case) -> None:
    graph = case.graph()
    assert key in {(node.domain, node.operator) for node in graph.nodes}
    check_graph(graph)
    plan = compiled(graph, **case.target)
    if engine == "onnxruntime" and case.narrow:
        with pytest.raises(TargetError, match=r"^onnxruntime runs the file's bodies, which "):
            run(plan, engine, case.x)
        pytest.skip("onnxruntime runs the model's own rounding and unbounded registers only")
    try:
        result, tensors = run(plan, engine, case.x)
    except TargetError as error:
        assert engine == "torch"
        assert case.narrow
        assert str(error).startswith("torch runs the trainer's path, which ")
        pytest.skip("torch runs the model's own rounding and unbounded registers only")
    y = tensors["y"]
    assert y.reshape(-1).tolist() == list(case.expect)
    assert (y.dtype.name, y.shape) == (graph.outputs[0].dtype, graph.outputs[0].shape)
    assert result.outputs["y"] is y
    assert plan.types["y"].low <= y.min() <= y.max() <= plan.types["y"].high
    if case.sums is not None and engine != "onnxruntime":
        assert tensors["y.acc"].reshape(-1).tolist() == list(case.sums)


def test_every_operator_has_a_table() -> None:
    assert set(TABLES) == set(operators())
    assert all(len(cases) > 0 for cases in TABLES.values())


def test_case_names_are_unique() -> None:
    for cases in TABLES.values():
        assert len({case.name for case in cases}) == len(cases)

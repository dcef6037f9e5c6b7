"""NestedTable as a user meets it: a file with tables, the commands, the engines, golden vectors, the circuit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqtsim.bench.plain import Float
from dqtsim.bench.qlinear import FORMS
from dqtsim.engines.native.isa import ISAS
from dqtsim.engines.native.lower import lower as driver
from dqtsim.engines.native.program import Fallback, Program
from dqtsim.engines.registry import ENGINES, run, traced
from dqtsim.errors import InputError, ModelError
from dqtsim.golden import verify
from dqtsim.graph import GraphBuilder, load, save
from dqtsim.planner import plan
from dqtsim.rtl import cosim, vectors
from dqtsim.spec import Rounding
from dqtsim.target import load_target

from .builders import Array, compiled, pooled, tabled, tables
from .cli.conftest import Command, command
from .ops.table_nested_table import one as per_channel
from .rtl.conftest import need
from .vectorkernels import kernel, kernels
from .vectors import Folder

__all__ = ["command"]
LAYERS = ["conv", "result"]


def codes(shape: tuple[int, ...], n: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 1 << n, shape, np.uint8)


def native_program() -> Program:
    return driver.lower(compiled(tables()), ISAS[-1])


@pytest.fixture
def without_a_native_form(monkeypatch: pytest.MonkeyPatch) -> None:
    left = {name: handler for name, handler in driver.HANDLERS.items() if name != "NestedTable"}
    monkeypatch.setattr(driver, "HANDLERS", left)


def assert_all_engines_agree(channels: int, n: int) -> None:
    """Every tensor of every engine equals the law's; so do outputs where nothing is observed."""
    ready = compiled(tables(channels=channels, n=n, seed=channels))
    for seed in range(2):
        x = codes(ready.graph.input.shape, n, seed)
        _, expected = traced(ready, x, "spec")
        for name in ENGINES:
            for isa in kernels() if name == "native" else [""]:
                with kernel(isa or kernels()[-1]):
                    _, tensors = traced(ready, x, name)
                    (result,) = run(ready, x, name)
                for key, array in tensors.items():
                    assert np.array_equal(array, expected[key]), (name, isa, key)
                assert np.array_equal(result.outputs["result"], expected["result"]), (name, isa)


@pytest.mark.parametrize("n", [8, 5, 2])
@pytest.mark.parametrize("channels", [1, 3, 5, 17])
def test_all_engines_agree_where_channels_leave_gaps_and_layers_have_borders(channels: int, n: int) -> None:
    assert_all_engines_agree(channels, n)


def test_a_table_has_a_native_form() -> None:
    assert not [operation for operation in native_program().operations if isinstance(operation, Fallback)]


@pytest.mark.parametrize("n", [8, 5])
@pytest.mark.parametrize("shape", [(5, 3, 2), (17, 1, 1), (7,)])
def test_a_table_per_channel_has_a_native_form(shape: tuple[int, ...], n: int) -> None:
    table = np.random.default_rng(n).integers(0, 1 << n, (shape[0], 1 << n), np.uint8)
    program = driver.lower(compiled(per_channel(shape, table, n=n)), ISAS[-1])
    assert not [operation for operation in program.operations if isinstance(operation, Fallback)]


def test_a_pool_with_a_multiplier_per_position_has_a_native_form() -> None:
    how: dict[str, Any] = {"kernel": (2, 2), "strides": (2, 2), "multiplier": [[1, 2], [3, 4]]}
    program = driver.lower(compiled(pooled((3, 4, 4), "average_pool", **how)), ISAS[-1])
    assert not [operation for operation in program.operations if isinstance(operation, Fallback)]


@pytest.mark.usefixtures("without_a_native_form")
def test_a_table_without_a_native_form_is_left_to_its_kernel() -> None:
    left = [operation.step for operation in native_program().operations if isinstance(operation, Fallback)]
    assert left == ["before", "left", "right", "after", "hidden"]
    assert_all_engines_agree(3, 5)


def test_the_range_of_a_table_is_that_of_the_entries_that_can_be_reached() -> None:
    """A layer behind it is proven for these codes alone."""
    b = GraphBuilder("reach", candidates=((8, 8),))
    x = b.input("x", (1, 2), zero_point=0, scale=1.0)
    low = b.requantize("low", x, multiplier=1, shift=0, zero_point=0, scale=1.0, clip=(10, 20))
    b.output(tabled(b, "y", low, [200 if q < 10 else 3 * q if q <= 20 else 255 for q in range(256)]))
    kind = compiled(b.build()).types["y"]
    assert (kind.low, kind.high) == (30, 60)


def test_a_concat_joins_tables_of_one_scale_only() -> None:
    b = GraphBuilder("unlike", candidates=((8, 8),))
    x = b.input("x", (1, 1, 2, 2), zero_point=0, scale=1.0)
    b.output(b.concat("both", [tabled(b, "left", x, range(256)), tabled(b, "right", x, range(256), zero_point=9)]))
    with pytest.raises(ModelError) as caught:
        compiled(b.build())
    assert str(caught.value) == (
        "node 'both' (Concat) joins codes of one scale and zero point; 'left' has 1 and 0, 'right' has 1 and 9."
    )


def test_an_entry_that_no_byte_holds_is_refused_by_the_builder() -> None:
    b = GraphBuilder("wide", candidates=((8, 8),))
    x = b.input("x", (1, 2), zero_point=0, scale=1.0)
    with pytest.raises(ModelError) as caught:
        tabled(b, "y", x, range(1, 257))
    assert str(caught.value) == "'table' of 'y' holds numbers that are no uint8."


@pytest.mark.parametrize("form", [Float, *FORMS.values()])
def test_other_runtimes_have_no_form_of_a_table(form: type[Float]) -> None:
    with pytest.raises(InputError) as caught:
        form(compiled(tables()), 1).model()
    assert str(caught.value) == "node 'before' (dqtsim.NestedTable) has no form in standard operators."


@pytest.mark.parametrize("engine", ENGINES)
def test_golden_vectors_with_tables(tmp_path: Path, engine: str) -> None:
    folder = Folder(tmp_path, tables(width=6))
    verdicts = list(verify(folder.model, load(folder.model), load_target("default"), engine, (folder.path,)))
    assert [(verdict.first, verdict.different_elements) for verdict in verdicts] == [(None, 0)] * 2
    changed = folder.tensors("static")
    changed["after"][0, 2, 1, 0] ^= 1
    folder.write("static", changed)
    _, verdict = verify(folder.model, load(folder.model), load_target("default"), engine, (folder.path,))
    assert verdict.first is not None
    assert (verdict.first.tensor, verdict.different_elements) == ("after", 1)


def test_the_circuit_runs_the_layers_and_takes_tables_as_data() -> None:
    """Its vectors are those of the layers; what a table gave is what the next layer reads."""
    need("icarus")
    target = replace(load_target("default"), rows=2, columns=2, rounding=Rounding.TIES_EVEN)
    ready = plan(tables(), target)
    x = codes(ready.graph.input.shape, 8, 1)
    recorded = vectors.record(ready, x)
    _, tensors = traced(ready, x, "spec")
    assert [vector.name for vector in recorded] == LAYERS
    assert np.array_equal(recorded[0].arrays["x"], tensors["before"][0])
    assert np.array_equal(recorded[1].arrays["x"], tensors["hidden"][0])
    hardware = vectors.parameters(ready)
    bench = cosim.build(hardware, recorded, "icarus")
    assert [cosim.simulate(bench, hardware, vector).fault for vector in recorded] == ["", ""]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save(tables(), tmp_path / "tables.onnx")
    np.save(tmp_path / "one.npy", codes((3, 6, 5), 8, 4))
    return tmp_path / "tables.onnx"


def test_the_commands(command: Command, model: Path) -> None:
    picture = model.with_name("one.npy")
    shown = command("info", model)
    assert (shown.exit_code, shown.stdout.count("NestedTable")) == (0, 5)
    every = "spec,native,numba,onnxruntime,torch"
    same = command("compare", model, "--input", picture, "--engines", every)
    assert (same.exit_code, same.stderr) == (0, "")
    assert command("count-ops", model, "--input", picture, "--check").exit_code == 0
    by_node = command("count-ops", model, "--csv").stdout.splitlines()
    assert "table_look_ups" in by_node[0]
    page = command("report", model, "-o", model.with_name("page.html"))
    assert (page.exit_code, page.stderr) == (0, "")
    assert command("vectors", model, "--input", picture, "-o", model.with_name("vectors")).exit_code == 0
    assert sorted(path.name for path in model.with_name("vectors").iterdir() if path.is_dir()) == [
        "00-conv",
        "01-result",
    ]


def test_a_table_is_no_layer_of_the_circuit(command: Command, model: Path) -> None:
    result = command("cosim", model, "--input", model.with_name("one.npy"), "--layers", "before")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: 'before' is no nested layer; the model has conv, result.\n"

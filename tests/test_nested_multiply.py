"""NestedMultiply as a user meets it: a file with products, the commands, the engines, golden vectors, the circuit."""

from pathlib import Path

import numpy as np
import pytest

from dqtsim.counting.by_execution import count_by_execution
from dqtsim.counting.counts import count
from dqtsim.engines.native.isa import ISAS
from dqtsim.engines.native.lower import lower as driver
from dqtsim.engines.native.program import Fallback, Program
from dqtsim.engines.registry import ENGINES, run, traced
from dqtsim.golden import verify
from dqtsim.graph import from_onnx, load, save, to_onnx
from dqtsim.ops.nested_multiply import CODE_MULTIPLY
from dqtsim.planner import Plan
from dqtsim.target import load_target

from .builders import Array, compiled
from .cli.conftest import Command, command
from .counting.conftest import PLAIN
from .products import products
from .vectorkernels import kernel, kernels
from .vectors import Folder

__all__ = ["command"]
PRODUCTS = ("gated", "both", "square")


def codes(ready: Plan, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 1 << ready.machine.n, ready.graph.input.shape, np.uint8)


def native_program() -> Program:
    return driver.lower(compiled(products()), ISAS[-1])


def assert_all_engines_agree(channels: int, n: int, rounding: str) -> None:
    """Every tensor of every engine equals the law's; so do outputs where nothing is observed."""
    ready = compiled(products(channels=channels, n=n, seed=channels, rounding=rounding))
    x = codes(ready, channels)
    _, expected = traced(ready, x, "spec")
    for name in ENGINES:
        for isa in kernels() if name == "native" else [""]:
            with kernel(isa or kernels()[-1]):
                _, tensors = traced(ready, x, name)
                (result,) = run(ready, x, name)
            for key, array in tensors.items():
                assert np.array_equal(array, expected[key]), (name, isa, key)
            for key, array in result.outputs.items():
                assert np.array_equal(array, expected[key]), (name, isa, key)


@pytest.mark.parametrize(("n", "rounding"), [(8, "TIES_UP"), (8, "TIES_EVEN"), (5, "TIES_AWAY"), (2, "FLOOR")])
@pytest.mark.parametrize("channels", [1, 3, 5, 17])
def test_all_engines_agree_where_channels_leave_gaps_and_layers_have_borders(
    channels: int, n: int, rounding: str
) -> None:
    assert_all_engines_agree(channels, n, rounding)


def test_a_product_has_a_native_form() -> None:
    operations = native_program().operations
    assert not [operation for operation in operations if isinstance(operation, Fallback)]
    named = [operation for operation in operations if getattr(operation, "function", "") == "multiply"]
    assert [operation.step for operation in named] == [*PRODUCTS]


def test_a_product_without_a_native_form_is_left_to_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    left = {name: handler for name, handler in driver.HANDLERS.items() if name != "NestedMultiply"}
    monkeypatch.setattr(driver, "HANDLERS", left)
    fallbacks = [operation.step for operation in native_program().operations if isinstance(operation, Fallback)]
    assert fallbacks == [*PRODUCTS]
    assert_all_engines_agree(3, 5, "TIES_UP")


def test_a_product_counts_two_ways() -> None:
    """17 channels of 6 x 5 pixels, gated and multiplied; 17 x 3 x 2 codes squared."""
    ready = compiled(products(channels=17))
    widths = dict.fromkeys(ready.graph.layers, (8, 8))
    items = {item.name: item for item in count(ready, widths, PLAIN)}
    _, executed = count_by_execution(ready, codes(ready, 1))
    assert [items[name].cost.primitives[CODE_MULTIPLY] for name in PRODUCTS] == [510, 510, 102]
    for name in PRODUCTS:
        assert +items[name].cost.primitives == +executed[name].primitives
    # both inputs are read: the gate's 17 codes only once
    assert items["gated"].traffic.activations_in == {8: (510 + 17) * 8}
    assert items["gated"].energy["requantize"] > items["square"].energy["requantize"] > 0


def test_a_file_with_products_is_of_format_2(tmp_path: Path) -> None:
    graph = from_onnx(to_onnx(products()))
    assert (graph, graph.format_version) == (products(), 2)
    save(graph, tmp_path / "again.onnx")
    assert load(tmp_path / "again.onnx") == graph


@pytest.mark.parametrize("engine", ENGINES)
def test_golden_vectors_with_products(tmp_path: Path, engine: str) -> None:
    folder = Folder(tmp_path, products(width=6))
    verdicts = list(verify(folder.model, load(folder.model), load_target("default"), engine, (folder.path,)))
    assert {(verdict.first, verdict.different_elements) for verdict in verdicts} == {(None, 0)}
    changed = folder.tensors("static")
    changed["gated"][0, 2, 1, 0] ^= 1
    folder.write("static", changed)
    *_, verdict = verify(folder.model, load(folder.model), load_target("default"), engine, (folder.path,))
    assert verdict.first is not None
    assert (verdict.first.tensor, verdict.different_elements) == ("gated", 1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save(products(), tmp_path / "products.onnx")
    np.save(tmp_path / "one.npy", codes(compiled(products()), 4)[0])
    return tmp_path / "products.onnx"


def test_the_commands(command: Command, model: Path) -> None:
    picture = model.with_name("one.npy")
    shown = command("info", model)
    assert (shown.exit_code, shown.stdout.count("NestedMultiply")) == (0, 3)
    every = "spec,native,numba,onnxruntime,torch"
    same = command("compare", model, "--input", picture, "--engines", every)
    assert (same.exit_code, same.stderr) == (0, "")
    assert command("count-ops", model, "--input", picture, "--check").exit_code == 0
    assert "code_multiplies" in command("count-ops", model, "--csv").stdout.splitlines()[0]
    page = command("report", model, "-o", model.with_name("page.html"))
    assert (page.exit_code, page.stderr) == (0, "")


def test_a_product_is_no_layer_of_the_circuit(command: Command, model: Path) -> None:
    result = command("cosim", model, "--input", model.with_name("one.npy"), "--layers", "gated")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: 'gated' is no nested layer; the model has stem, excite, branch, result.\n"

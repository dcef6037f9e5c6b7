"""Which native functions there are, and that nobody compiles those that a network does without."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llvmlite import ir

from dqtsim.engines.native.compile import cache
from dqtsim.engines.native.compile.build import choose, host, products
from dqtsim.engines.native.compile.functions import Functions
from dqtsim.engines.native.emit.libraries import (
    CENTROIDS,
    DEPTHWISE,
    MAIN,
    MOVES,
    REGISTERS,
    WINDOWS,
    emit_library,
    libraries,
    library_of,
)
from dqtsim.engines.native.isa import AND, ISAS, SMALL, XOR, Isa
from dqtsim.engines.registry import run
from dqtsim.planner import plan
from dqtsim.spec import Rounding
from dqtsim.target import load_target
from dqtsim.widths import apply_bits
from tests import builders
from tests.builders import Array
from tests.vectorkernels import kernel, kernels

NAMES = {
    "tile_6x4": MAIN,
    "logits_1x1": MAIN,
    "conv": MAIN,
    "bits": MAIN,
    "run": MAIN,
    "nothing": MAIN,
    "quads_4x4x16": DEPTHWISE,
    "depth_2x1": DEPTHWISE,
    "narrow": REGISTERS,
    "narrow_logits": REGISTERS,
    "each_depth": REGISTERS,
    "move": MOVES,
    "window_nest": WINDOWS,
    "columns": CENTROIDS,
    "centroid_logits": CENTROIDS,
    f"{SMALL}tile_6x1": SMALL,
    f"{SMALL}logits_1x1": SMALL,
    f"{AND}tile_6x1": AND,
    f"{XOR}tile_6x1": XOR,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_where_it_is(name: str) -> None:
    assert library_of(name) == NAMES[name]


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_libraries(isa: Isa) -> None:
    counts = (AND, XOR) if host()[1].get("avx512vpopcntdq") else ()
    assert products(isa) == {"avx2": (SMALL,), "vnni512": counts}.get(isa.name, ())
    assert libraries(products(isa)) == (MAIN, DEPTHWISE, REGISTERS, MOVES, WINDOWS, CENTROIDS, *products(isa))


@pytest.mark.parametrize("name", kernels())
def test_every_function_is_where_its_name_says(name: str) -> None:
    isa = next(isa for isa in ISAS if isa.name == name)
    functions = Functions(isa, Rounding.TIES_UP)
    names = list(functions)
    assert len(functions) == len(names) == len(set(names))
    assert {library_of(name) for name in names} == set(libraries(products(isa)))
    assert len({functions[name] for name in names}) == len(names)
    assert not any(name.startswith("out_") for name in names)
    for unknown in ("tile_9x9", "quads_9x9", f"{AND}tile_9x9", f"{SMALL}nothing"):
        with pytest.raises(KeyError):
            functions[unknown]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, and a process that has compiled nothing."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    monkeypatch.setattr(cache, "_LIBRARIES", {})
    yield tmp_path


def depthwise() -> Array:
    return np.ones((32, 1, 3, 3), int)


def test_only_what_a_network_needs_is_compiled(folder: Path) -> None:
    """Plain layers need one library; depthwise ones, and registers that can be left, one more each."""
    name = choose().isa.name
    wide = builders.compiled(apply_bits(builders.network(), "8")[0])
    codes = builders.picture()
    made = []
    with kernel(name):
        for each, given in (
            (wide, codes),
            (builders.compiled(builders.conv((32, 6, 6), depthwise(), group=32)), np.ones((1, 32, 6, 6), np.uint8)),
            (plan(apply_bits(builders.network(), "8")[0], load_target("acc16-wrap")), codes),
        ):
            list(run(each, given, "jit"))
            made.append(len(list(folder.glob(f"*{cache.SUFFIX}"))))
    assert made == [1, 2, 3]


def test_a_library_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="'small_' is no library of portable"):
        emit_library(ir.Module(), ISAS[-1], Rounding.TIES_UP, "small_", (), yields=True)

"""An instruction set is one file: nothing outside `isa/` asks what CPU this is, and one of a test runs like any."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite import ir

import dqtsim
from dqtsim.bench.peak import OPERAND, compiled
from dqtsim.engines.native import isa as sets
from dqtsim.engines.native.compile import build, cache
from dqtsim.engines.native.ir import I8, I32, Emitter, constant, vector
from dqtsim.engines.native.isa import ISAS, Isa
from dqtsim.engines.native.isa.base import PACKED, Depthwise, Packing, Quads
from dqtsim.engines.native.isa.portable import PORTABLE
from dqtsim.errors import InputError
from dqtsim.graph import GraphBuilder
from dqtsim.planner import Plan, plan
from dqtsim.target import load_target
from tests import builders
from tests.builders import Array

from .same import assert_native

ROOT = Path(dqtsim.__file__).parent
OUTSIDE = [path for path in sorted(ROOT.rglob("*.py")) if "isa" not in path.parts]

# ---- nothing outside asks what CPU this is ----

CPUS = re.compile(r"avx|amx|vnni|neon|sse\d|x86|aarch64|arm64|amd64|vpdp|vpmadd", re.IGNORECASE)
ASKS = {"get_host_cpu_features", "get_host_cpu_name", "get_process_triple", "platform.machine", "platform.processor"}
ALLOWED = {
    "train/device.py": "what oneDNN and PyTorch are fast at, which are no kernels of ours",
    "engines/native/compile/build.py": "the one place that asks LLVM what this computer is",
    "engines/native/compile/cache.py": "the computer is in the key of a compiled file",
    "report/text/machine.py": "the page about the computer",
}
WIDTHS = {4, 8, 16, 32, 64}


def docstrings(tree: ast.AST) -> set[int]:
    """Return the identities of all strings that stand alone, which say something and do nothing."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def offences(text: str) -> Iterator[str]:
    """Yield what a source does that only an instruction set's own file may do."""
    tree = ast.parse(text)
    said = docstrings(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(value)) if id(node) not in said and CPUS.search(value):
                yield f"names a CPU: {value}"
            case ast.Compare(left=left, comparators=others):
                if any(
                    isinstance(side, ast.Attribute) and side.attr in ("lanes", "name") and _is_isa(side.value)
                    for side in (left, *others)
                ):
                    yield f"compares: {ast.unparse(node)}"
            case ast.Dict(keys=keys) if len(keys) > 1:
                numbers = {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, int)}
                if len(numbers) == len(keys) and numbers <= WIDTHS:
                    yield f"is keyed by a number of lanes: {ast.unparse(node)}"
            case ast.Attribute(attr=name) | ast.Name(id=name) if {name, ast.unparse(node)} & ASKS:
                yield f"asks: {name}"


def _is_isa(node: ast.expr) -> bool:
    return ast.unparse(node).split(".")[-1] == "isa"


@pytest.mark.parametrize("source", OUTSIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_outside_asks_what_cpu_this_is(source: Path) -> None:
    found = list(offences(source.read_text(encoding="utf-8")))
    if source.relative_to(ROOT).as_posix() in ALLOWED:
        assert found, "it needs no permission"
    else:
        assert found == []


@pytest.mark.parametrize(
    "text",
    [
        'PAUSE = "llvm.x86.sse2.pause"',
        'f"llvm.x86.avx512.vpdpbusd.{bits}"',
        'wide = isa.name == "wide"',
        "if state.isa.lanes == lanes:\n    pass",
        "SHAPES = {16: (4, 1), 8: (2, 1)}",
        "SHAPES = {16: (4, 1), 8: (2, 1)}[isa.lanes]",
        "import platform\nplatform.machine()",
        "from llvmlite.binding import get_host_cpu_features as f\nget_host_cpu_features()",
        'if "AVX2" in features:\n    pass',
    ],
)
def test_the_rule_notices(text: str) -> None:
    assert list(offences(text))


@pytest.mark.parametrize(
    "text",
    ['"""What AVX2 does."""', "x = {1: 2, 3: 4}", "x = {4: 1}", "y = outputs % isa.lanes", "# AMX\nlanes = isa.lanes"],
)
def test_the_rule_lets_pass(text: str) -> None:
    assert not list(offences(text))


def test_adding_one_is_a_file_and_a_line() -> None:
    """Every set has a file of its own name or family, and stands in the one list."""
    files = {path.stem for path in Path(str(sets.__file__)).parent.glob("*.py")} - {"__init__", "base", "peak", "x86"}
    assert files == {isa.families[0] if isa.families else isa.name for isa in ISAS}
    assert [isa.name for isa in ISAS if not isa.needs and not isa.architecture] == [ISAS[-1].name]


# ---- sets of a test ----


def _wide(name: str, **changes: Any) -> Isa:
    """Return a set of eight lanes and odd shapes for any CPU."""
    given: dict[str, Any] = {
        "name": name,
        "says": "a set of a test",
        "lanes": 8,
        "shapes": {3: (2, 1), 2: (3, 2, 1), 1: (7, 3, 2, 1)},
        "depthwise": Depthwise(3),
    }
    return replace(PORTABLE, **(given | changes))


def _turns(lanes: int, turn: int) -> Packing:
    """Return a packing in the words of every CPU that takes `turn` lanes of each vector in turn."""

    def pack(e: Emitter, codes: list[Any]) -> Any:
        b, kind = e.builder, vector(I32, lanes)
        limited = [e.least(e.greatest(each, constant(kind, 0)), constant(kind, 255)) for each in codes]
        bytes_ = [b.trunc(each, vector(I8, lanes)) for each in limited]
        pairs = [
            b.shuffle_vector(bytes_[k], bytes_[k + 1], ir.Constant(vector(I32, 2 * lanes), [*range(2 * lanes)]))
            for k in (0, 2)
        ]
        order = [k * lanes + at + i for at in range(0, lanes, turn) for k in range(PACKED) for i in range(turn)]
        return b.shuffle_vector(*pairs, ir.Constant(vector(I32, 4 * lanes), order))

    def multiply_add(e: Emitter, one: Any, other: Any) -> Any:
        b, wide = e.builder, vector(I32, 2 * lanes)
        products = b.mul(b.sext(one, wide), b.sext(other, wide))
        nothing = ir.Constant(wide, ir.Undefined)
        halves = [
            b.shuffle_vector(products, nothing, ir.Constant(vector(I32, lanes), [*range(k, 2 * lanes, 2)]))
            for k in range(2)
        ]
        return b.add(*halves)

    return Packing(lanes, pack, multiply_add, turn)


def _four(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    dot = PORTABLE.dot
    return dot.add(e, accumulators, dot.pixels(e, pixels), dot.weights(e, weights))


PLAIN = _wide("plain")
# packs by all lanes of a vector in turn, which no CPU of ISAS does
PACKS = _wide(
    "packs",
    shapes={4: (2, 1), 3: (2, 1), 2: (3, 2, 1), 1: (5, 3, 2, 1)},
    depthwise=Depthwise(2, (Quads(8, _four), Quads(4, _four))),
    packings=(_turns(8, 8), _turns(4, 4)),
)


@pytest.fixture(params=[PLAIN, PACKS], ids=lambda isa: str(isa.name))
def toy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Isa:
    """A set of this file, the best of this computer."""
    isa: Isa = request.param
    monkeypatch.setattr(sets, "ISAS", (isa, *ISAS))
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    return isa


def layers() -> Iterator[tuple[Plan, Array]]:
    """Yield plans of all kinds of layers, and a picture for each."""
    draw = np.random.default_rng(8)
    for target in ("default", "acc16-wrap"):
        yield plan(builders.network(), load_target(target)), builders.picture()
    for channels, outputs, group in ((5, 70, 1), (33, 33, 33), (57, 57, 57), (8, 24, 2)):
        weights = draw.integers(-128, 128, (outputs, channels // group, 3, 3))
        graph = builders.conv((channels, 7, 6), weights, group=group, pads=(1, 1, 1, 1))
        yield builders.compiled(graph), draw.integers(0, 256, (1, channels, 7, 6), np.uint8)


def test_it_is_chosen_and_named(toy: Isa) -> None:
    assert build.choose({}).isa is toy
    assert build.choose({build.VARIABLE: toy.name}).why == f"DQTSIM_KERNEL is '{toy.name}'"
    with pytest.raises(InputError, match=f"is one of auto, vnni, {toy.name}, amx, vnni512"):
        build.choose({build.VARIABLE: "none"})


def test_it_computes_what_the_law_says(toy: Isa) -> None:
    for network, codes in layers():
        assert_native(network, codes, names=[toy.name], threads=(1, 2), reference="spec")


def test_a_fused_addition_is_made_of_its_products(toy: Isa) -> None:
    draw, channels = np.random.default_rng(4), 40
    b = GraphBuilder("sum", candidates=((4, 4),))
    x = b.input("x", (1, channels, 5, 4), zero_point=9, scale=1.0)
    y = b.conv(
        "y",
        x,
        weight=draw.integers(0, 256, (channels, channels, 1, 1), np.uint8),
        bias=draw.integers(-50000, 50000, (1, channels)),
        multiplier=draw.integers(1 << 15, 1 << 16, (1, channels)),
        shift=np.full((1, channels), 24),
        row_widths=(8,),
        zero_point=99,
        scale=1.0,
        clip=(3, 250),
    )
    factors = {"multiplier_a": 40001, "multiplier_b": 30000, "shift": 16}
    b.output(b.add("z", y, x, **factors, zero_point=77, scale=1.0, clip=(5, 240)))
    assert_native(
        builders.compiled(b.build([(8, 8)])),
        draw.integers(0, 256, (1, channels, 5, 4), np.uint8),
        names=[toy.name],
        reference="spec",
    )


def test_it_has_a_peak(toy: Isa) -> None:
    assert compiled(toy)(0, OPERAND) == 4 * sum(range(1, toy.peak.accumulators + 1))


def test_a_set_of_another_architecture_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it needs nothing beside it."""
    other = replace(PLAIN, architecture=("pdp11",))
    monkeypatch.setattr(sets, "ISAS", (other, *ISAS))
    assert build.choose({}).isa is not other
    with pytest.raises(InputError) as caught:
        build.choose({build.VARIABLE: "plain"})
    assert str(caught.value) == (
        "DQTSIM_KERNEL names a kernel that the CPU can run; found 'plain', but this CPU lacks pdp11 for plain."
    )
    monkeypatch.setattr(build, "architecture", lambda: "pdp11")
    assert build.choose({}).isa is other


# ---- the parts fit together ----


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lanes": 6}, "lanes are no multiple of 4"),
        ({"shapes": {3: (1,), 1: (1,)}}, "not all numbers of vectors up to the greatest have tiles"),
        ({"shapes": {1: (4,)}}, "a number of vectors has no tile of one pixel"),
        ({"shapes": {2: (4, 1), 1: (3, 1)}}, "fewer vectors lack a size of tiles that more have"),
        ({"shapes": {1: (16, 1)}}, "a tile needs 17 registers, and there are 16"),
        ({"packings": (_turns(4, 4),)}, "the widest packing is not of its vectors"),
        ({"packings": (_turns(8, 2),)}, "a packing parts four channels"),
        ({"packings": ()}, "a depthwise block cannot be packed"),
        ({"depthwise": Depthwise(2, (Quads(8, _four),))}, "the narrowest depthwise block is not of 4 lanes"),
        (
            {"depthwise": Depthwise(2, (Quads(4, _four),) * 2)},
            "a depthwise block does not divide the one before",
        ),
    ],
)
def test_a_set_whose_parts_do_not_fit_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        replace(PACKS, **changes)
    assert str(caught.value) == f"The parts of an instruction set fit together; in 'packs', {sentence}."


@pytest.mark.parametrize("packing", [p for isa in (*ISAS, PACKS) for p in isa.packings], ids=lambda p: str(p.lanes))
def test_an_order_has_every_channel_once_and_four_in_a_row(packing: Packing) -> None:
    order = packing.order()
    assert sorted(order) == list(range(PACKED * packing.lanes))
    fours = [order[at : at + 4] for at in range(0, len(order), 4)]
    assert all(b - a == 1 for four in fours for a, b in pairwise(four))

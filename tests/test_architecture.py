"""The shape of the package: who may import whom, no tolerances, integers where the law is, files of a readable size."""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import dqtsim

ROOT = Path(dqtsim.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
LONGEST = 450

# from left to right: a part imports parts of its own column or of columns to its left, never to its right
COLUMNS: tuple[tuple[str, ...], ...] = (
    ("spec", "errors", "limits", "outputs"),
    ("target", "graph", "energy", "numbers"),
    ("structures", "inputs", "frontends"),
    ("ops",),
    ("planner",),
    ("widths", "engines/names", "engines/result", "engines/steps"),
    ("engines/numba",),
    ("engines/native",),
    ("engines",),
    ("counting",),
    ("calibration", "compare", "fidelity", "golden", "rtl", "search", "sensitivity", "switched"),
    ("report", "bench"),
    ("cli", "__init__", "__main__"),
)
COLUMN = {part: index for index, parts in enumerate(COLUMNS) for part in parts}
# the trainer stands outside: it meets the rest in the model file, and one of its files in what that file costs
TRAIN_SEES = {"spec", "errors", "limits", "outputs", "target", "graph", "numbers", "structures", "inputs", "train"}
PRICING_SEES = TRAIN_SEES | {"search", "energy"}
TRAIN_SEEN_BY = {"train", "cli", "engines"}
TORCH = {"torch", "torchvision"}
# what lies in the package, what dqtsim or a program that it starts has just written, what the system says
READS_OWN_FILES = {
    "energy/__init__.py",
    "engines/native/compile/cache.py",
    "report/page/figures.py",
    "report/page/html.py",
    "report/text/machine.py",
    "rtl/area.py",
    "rtl/cosim.py",
    "target.py",
    "train/golden.py",
}
TOLERANCES = {
    "allclose",
    "isclose",
    "assert_allclose",
    "assert_almost_equal",
    "atol",
    "rtol",
    "approx",
    "rel_tol",
    "abs_tol",
}


def name_of(source: Path) -> str:
    return str(source.relative_to(ROOT))


def part_of(source: Path) -> str:
    """Return the folder or module of the top level to which a file belongs; an engine's folder is a part of its own."""
    return part_named(source.relative_to(ROOT).with_suffix("").parts)


def part_named(names: tuple[str, ...]) -> str:
    joined = "/".join(names[:2])
    return joined if joined in COLUMN else names[0]


def imports(source: Path) -> Iterator[tuple[str, ...]]:
    """Yield the dotted names that a file imports anywhere, those of dqtsim as ('dqtsim', part, ...)."""
    package = ("dqtsim", *source.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(entry.name.split(".")) for entry in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            # `from .. import x` names a part, `from ..x import y` something in it
            yield from [(*module, entry.name) for entry in node.names] if module == ("dqtsim",) else [module]


def parts_imported(source: Path) -> set[str]:
    """Return the parts of dqtsim that a file imports; names of the package itself, such as its version, are none."""
    found = {part_named(name[1:]) for name in imports(source) if name[0] == "dqtsim" and len(name) > 1}
    return {part for part in found if (ROOT / part).is_dir() or (ROOT / f"{part}.py").is_file()}


def strangers(source: Path) -> list[str]:
    """Return the parts that a file imports and must not."""
    part = part_of(source)
    found = parts_imported(source) - {part}
    if part == "train":
        return sorted(found - (PRICING_SEES if source.name == "pricing.py" else TRAIN_SEES))
    right = {other for other in found - {"train"} if COLUMN[other] > COLUMN[part]}
    return sorted(right | ({"train"} & found if part not in TRAIN_SEEN_BY else set()))


def test_every_part_has_its_place() -> None:
    assert {part_of(source) for source in SOURCES} - {"train"} <= set(COLUMN)


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_left_never_imports_right(source: Path) -> None:
    assert strangers(source) == []


def test_the_rule_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    for part in ("spec", "ops", "engines/numba", "train"):
        (tmp_path / part).mkdir(parents=True)
    for part in ("golden", "search"):
        (tmp_path / f"{part}.py").touch()
    for name, text, expected in (
        ("engines/numba/mac.py", "from ...engines import registry", ["engines"]),
        ("engines/numba/mac.py", "from ... import golden, __version__", ["golden"]),
        ("engines/numba/mac.py", "def f():\n    import dqtsim.train.loop", ["train"]),
        ("train/loop.py", "from dqtsim.engines.numba import mac\nfrom ..spec import nest", ["engines/numba"]),
        ("train/loop.py", "from dqtsim.search import costs", ["search"]),
        ("train/pricing.py", "from dqtsim.search import costs\nfrom ..engines import run", ["engines"]),
        ("ops/add.py", "from ..engines.numba import add", ["engines/numba"]),
        ("ops/add.py", "from .. import spec\nfrom . import nested", []),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert strangers(tmp_path / name) == expected


@pytest.mark.parametrize("source", sorted((ROOT / "spec").rglob("*.py")), ids=name_of)
def test_the_law_needs_the_standard_library_only(source: Path) -> None:
    for name in imports(source):
        assert name[:2] == ("dqtsim", "spec") or name[0] in sys.stdlib_module_names, name


def under(*parts: str) -> list[Path]:
    """Return all files of some parts, at any depth."""
    return [source for source in SOURCES if part_of(source) in parts]


# what engines may know of the law: its names, and the flags in which an engine reports
NAMES_OF_THE_LAW = {("dqtsim", "spec", "rules"), ("dqtsim", "spec", "mac")}
FLAGS = {"Flags"}


def of_the_law(source: Path) -> set[str]:
    """Return what a file takes of the law beyond its names: modules, and names out of `spec.mac` but the flags."""
    found = {".".join(name) for name in imports(source) if name[:2] == ("dqtsim", "spec")}
    found -= {".".join(name) for name in NAMES_OF_THE_LAW}
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("spec.mac"):
            found |= {entry.name for entry in node.names} - FLAGS
    return found


@pytest.mark.parametrize("source", under("engines/numba", "engines/native"), ids=name_of)
def test_engines_share_no_arithmetic_with_the_law(source: Path) -> None:
    assert of_the_law(source) == set()


# the kernels of both fast engines: of the native one, all that is emitted and compiled
KERNELS = (
    "engines/numba/",
    "engines/native/ir.py",
    "engines/native/isa/",
    "engines/native/emit/",
    "engines/native/compile/",
)


# what gives operators of a plan to kernels
ADAPTERS = {f"engines/numba/{name}.py" for name in ("table", "layers", "codes")}


@pytest.mark.parametrize(
    "source", [s for s in SOURCES if name_of(s).startswith(KERNELS) and name_of(s) not in ADAPTERS], ids=name_of
)
def test_kernels_know_nothing_of_graphs_or_files(source: Path) -> None:
    allowed = {("dqtsim", "spec", "rules"), ("dqtsim", "graph", "model"), ("dqtsim", "numbers")}
    # the choice of an instruction set can be refused, and a file of compiled code is one version's and has a limit
    allowed |= (
        {("dqtsim", "errors"), ("dqtsim", "__version__"), ("dqtsim", "limits")}
        if part_of(source) == "engines/native"
        else set()
    )
    others = {name for name in imports(source) if name[0] == "dqtsim" and part_named(name[1:]) != part_of(source)}
    assert others <= allowed


def test_only_the_trainer_imports_torch() -> None:
    for source in SOURCES:
        if part_of(source) != "train" and TORCH & {name[0] for name in imports(source)}:
            # asking whether it is installed is all that others may do
            assert name_of(source) == "cli/training.py"


# a path is joined with "/" there
JOINS_PATHS = {"engines/native/compile/cache.py"}


def no_integers(source: Path) -> list[str]:
    """Return where a file computes with anything but integers: a literal, a true division, a float type."""
    found = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        literal = isinstance(node, ast.Constant) and isinstance(node.value, float | complex)
        divides = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)
        named = isinstance(node, ast.Name | ast.Attribute) and _word(node).lower().startswith(("float", "double"))
        if literal or named or (divides and name_of(source) not in JOINS_PATHS):
            found.append(f"{name_of(source)}:{getattr(node, 'lineno', 0)}")
    return found


@pytest.mark.parametrize("source", under("spec", "engines/numba", "engines/native", "numbers"), ids=name_of)
def test_the_law_and_the_engines_are_integers(source: Path) -> None:
    assert no_integers(source) == []


@pytest.mark.parametrize(
    ("text", "law", "floats"),
    [
        ("x = 1 / 2", set(), 1),
        ("x = 0.5", set(), 1),
        ("kind = np.float32", set(), 1),
        ("kind = ir.DoubleType()", set(), 1),
        ("from ...spec import shift_right", {"dqtsim.spec"}, 0),
        ("from ... import spec", {"dqtsim.spec"}, 0),
        ("from ...spec.nest import nest", {"dqtsim.spec.nest"}, 0),
        ("from ...spec.mac import Flags, wrap", {"wrap"}, 0),
        ("def f():\n    from dqtsim.spec import requantize", {"dqtsim.spec"}, 0),
        ("from ...spec.rules import Rounding\nfrom ...spec.mac import Flags\nx = 7 // 2", set(), 0),
    ],
)
def test_the_rules_of_engines_notice(
    text: str, law: set[str], floats: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    source = tmp_path / "engines" / "numba" / "mac.py"
    source.parent.mkdir(parents=True)
    source.write_text(text, encoding="utf-8")
    assert of_the_law(source) == law
    assert len(no_integers(source)) == floats


# circles of imports that are still to be opened; no other may come, and one that is opened leaves this list
CIRCLES: list[set[str]] = []


def modules() -> dict[str, Path]:
    """Return every module by its dotted name inside the package, which itself is none: it only gathers names."""
    named = {name_of(source)[: -len(".py")].replace("/", ".").removesuffix(".__init__"): source for source in SOURCES}
    return {name: source for name, source in named.items() if name != "__init__"}


def imported(source: Path, known: Mapping[str, Path]) -> set[str]:
    """Return the modules that a file imports anywhere: in functions and for the type checker, too."""
    package = source.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {entry.name.removeprefix("dqtsim.") for entry in node.names if entry.name.startswith("dqtsim.")}
        elif isinstance(node, ast.ImportFrom):
            inside = node.level or (node.module or "").split(".")[0] == "dqtsim"
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = [*base, *(node.module or "").removeprefix("dqtsim").strip(".").split(".")]
            names = {".".join(filter(None, [*module, entry.name])) for entry in node.names}
            # what is no module is a name in one
            found |= {name if name in known else name.rpartition(".")[0] for name in names} if inside else set()
    return found & known.keys()


def circles(edges: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the largest sets of modules that all import each other, directly or not."""
    reach = {name: set(nexts) for name, nexts in edges.items()}
    for middle, behind in reach.items():
        for found in reach.values():
            if middle in found:
                found.update(behind)
    groups = {frozenset(other for other in reach[name] if name in reach[other]) for name in reach}
    return sorted((set(group) for group in groups if len(group) > 1), key=min)


def test_circles_of_imports_are_the_known_ones() -> None:
    known = modules()
    assert circles({name: imported(source, known) - {name} for name, source in known.items()}) == CIRCLES


def test_circles_are_noticed() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"g"}, "g": {"f"}}
    assert circles(edges) == [{"a", "b", "c"}, {"f", "g"}]


def _word(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


@pytest.mark.parametrize("source", [source for source in SOURCES if part_of(source) != "train"], ids=name_of)
def test_nothing_is_compared_with_a_tolerance(source: Path) -> None:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        names = {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "arg", None)}
        assert not names & TOLERANCES, f"line {getattr(node, 'lineno', 0)}"


@pytest.mark.parametrize("source", [s for s in SOURCES if name_of(s) not in READS_OWN_FILES], ids=name_of)
def test_files_from_outside_are_read_within_limits(source: Path) -> None:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "limits"):
            loads = node.attr == "load" and isinstance(node.value, ast.Name) and node.value.id in ("np", "numpy")
            assert not loads, f"line {node.lineno}"
            assert node.attr not in ("read_text", "read_bytes", "open_memmap", "memmap"), f"line {node.lineno}"


def test_files_are_short_enough_to_read() -> None:
    lengths = {name_of(source): len(source.read_text(encoding="utf-8").splitlines()) for source in SOURCES}
    assert {name: count for name, count in lengths.items() if count > LONGEST} == {}


def test_the_public_names_are_there() -> None:
    assert dir(dqtsim) == sorted(dqtsim.__all__)
    for name in dqtsim.__all__:
        assert getattr(dqtsim, name) is not None
    with pytest.raises(AttributeError) as caught:
        _ = dqtsim.simulate
    assert str(caught.value) == "module 'dqtsim' has no attribute 'simulate'"

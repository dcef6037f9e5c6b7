"""A tiny dynamic network for pictures of CIFAR's size, and such pictures on disk in CIFAR-10's binary layout."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from dqtsim.cli import main
from dqtsim.energy import load_energy
from dqtsim.graph import Graph, GraphBuilder, save
from dqtsim.inputs.dataset import CIFAR_CLASSES
from dqtsim.report.page.study import Study, check_pictures, prepare, run_over
from dqtsim.target import load_target
from tests.builders import Array, Widths

PICTURES = 23
Command = Callable[..., Result]


def network(
    candidates: Sequence[Widths] = ((2, 2), (4, 4), (8, 8)),
    *,
    dynamic: bool = True,
    class_names: tuple[str, ...] = CIFAR_CLASSES,
) -> Graph:
    """Return a pinned stem that reduces (3, 32, 32) to (4, 4, 4), two layers that the controller decides."""
    random = np.random.default_rng(20)
    rows = tuple(sorted({min(pair) for pair in candidates}))
    b = GraphBuilder("tiny", class_names=class_names, weight_rule="MIDPOINT", candidates=candidates)

    def codes(*shape: int) -> Array:
        return random.integers(0, 256, shape, np.uint8)

    def tables(channels: int, count: int, shift: int) -> dict[str, Any]:
        return {
            "bias": random.integers(-9000, 9000, (count, channels)),
            "multiplier": random.integers(1 << 15, 1 << 16, (count, channels)),
            "shift": np.full((count, channels), shift),
        }

    common: dict[str, Any] = {"scale": 0.25, "clip": (0, 255), "zero_point": 0}
    x = b.input("x", (1, 3, 32, 32), zero_point=128, scale=1 / 64)
    stem_tables = tables(4, len(rows), 24)
    stem = b.conv(
        "stem", x, weight=codes(4, 3, 8, 8), **stem_tables, strides=(8, 8), row_widths=rows, pinned=(8, 8), **common
    )
    if dynamic:
        flat = b.flatten("seen", stem)
        hidden = b.gemm(
            "hidden", flat, weight=codes(8, 64), **tables(8, 1, 24), row_widths=(8,), controller=True, **common
        )
        outputs = 2 * len(candidates)
        scores = b.logits(
            "scores",
            hidden,
            weight=codes(outputs, 8),
            bias=random.integers(-9000, 9000, (1, outputs)),
            row_widths=(8,),
            controller=True,
        )
        b.control(scores)
    body = b.conv("body", stem, weight=codes(6, 4, 2, 2), **tables(6, len(rows), 23), row_widths=rows, **common)
    flat = b.flatten("flat", body)
    result = b.logits(
        "result", flat, weight=codes(10, 54), bias=random.integers(-900, 900, (len(rows), 10)), row_widths=rows
    )
    b.output(result, classes=True)
    return b.build() if dynamic else b.build([(8, 8), (4, 4), (8, 8)])


def write_pictures(folder: Path, count: int = PICTURES) -> None:
    """Write test pictures as CIFAR-10 has them: a label byte and 3,072 bytes each; the training batches hold one."""
    random = np.random.default_rng(11)
    records = random.integers(0, 256, (count, 3073), np.uint8)
    records[:, 1:] //= random.integers(1, 9, (count, 1), np.uint8)  # bright and dark, so that widths differ
    records[:, 0] %= 10
    for number in range(1, 6):
        records[:1].tofile(folder / f"data_batch_{number}.bin")
    records.tofile(folder / "test_batch.bin")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with model.onnx, static.onnx, plan.toml and data/; nobody writes there."""
    root = tmp_path_factory.mktemp("report")
    save(network(), root / "model.onnx")
    save(network(dynamic=False), root / "static.onnx")
    (root / "plan.toml").write_text("[bits]\nbody = 4\nresult = 'w8a4'\n", encoding="utf-8")
    (root / "data").mkdir()
    write_pictures(root / "data")
    return root


@pytest.fixture(scope="session")
def study(files: Path) -> Study:
    """Return the dynamic network run over all pictures at every setting."""
    return over_pictures(network(), files / "data", [files / "plan.toml"])


def over_pictures(graph: Graph, data: Path, plans: Sequence[Path] = ()) -> Study:
    """Return a network run over all pictures at every setting."""
    from dqtsim.inputs.dataset import read_labelled

    study = prepare(graph, load_target("default"), load_energy(), plans)
    split = read_labelled(study.graph, data)
    check_pictures(study, split)
    run_over(study, split, 1, lambda: None)
    return study


@pytest.fixture
def command() -> Command:
    """Return the function that runs the command line with the given words."""

    def run(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)

    return run

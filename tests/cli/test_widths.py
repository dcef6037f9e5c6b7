"""A controller whose widths are not those of its metadata: one sentence and exit 2, whatever engine or command."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dqtsim.engines.registry import ENGINES
from dqtsim.graph import Graph
from tests.builders import network
from tests.graph.changes import put
from tests.graph.unchecked import written

from .conftest import Command

AMONG = "error: a controller chooses among the pairs of metadata 'dqtsim.candidates';"
MODELS: dict[str, tuple[Graph, str]] = {
    "other bits": (
        put("bits.candidates", np.array([[5, 5], [4, 4], [8, 8]]))(network()),
        f"{AMONG} entry 0 of initializer 'bits.candidates' is [5, 5] instead of [2, 2].\n",
    ),
    "a crash": (
        put("bits.candidates", np.full((3, 2), 1 << 30))(network()),
        f"{AMONG} entry 0 of initializer 'bits.candidates' is [1073741824, 1073741824] instead of [2, 2].\n",
    ),
    "bytes of the file as an address": (
        put("bits.candidates", np.array([[85, 3], [4, 4], [8, 8]]))(network()),
        f"{AMONG} entry 0 of initializer 'bits.candidates' is [85, 3] instead of [2, 2].\n",
    ),
    "shorter metadata": (
        replace(network(), candidates=((2, 2), (4, 4))),
        f"{AMONG} initializer 'bits.candidates' is int64 (3, 2) instead of int64 (2, 2).\n",
    ),
    "another order": (
        put("bits.order", np.array([0, 2, 1, 3]))(network()),
        "error: 'bits' has one row per entry of metadata 'dqtsim.layers', in that order; entry 1 of initializer "
        "'bits.order' is 2 instead of 1.\n",
    ),
}


def words(folder: Path, model: Path) -> Iterator[list[object]]:
    """Yield commands that read a model."""
    for engine in ENGINES:
        yield ["run", model, "--input", folder / "one.npy", "--engine", engine]
    yield ["info", model]


@pytest.mark.parametrize("name", MODELS)
def test_a_wrong_table_is_refused(name: str, command: Command, files: Path, tmp_path: Path) -> None:
    graph, sentence = MODELS[name]
    model = tmp_path / "model.onnx"
    model.write_bytes(written(graph, network()).SerializeToString())
    for line in words(files, model):
        result = command(*line)
        assert (result.exit_code, result.stdout, " ".join(result.stderr.split()) + "\n") == (2, "", sentence), line

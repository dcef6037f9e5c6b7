"""One model, its pictures and its golden vectors on disk, and the command inside this process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from dqtsim.cli import main
from tests.builders import picture
from tests.vectors import Folder

Command = Callable[..., Result]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with model.onnx, golden/, one.npy and three.npy; nobody writes there."""
    root = tmp_path_factory.mktemp("files")
    Folder(root)
    np.save(root / "one.npy", picture()[0])
    np.save(root / "three.npy", picture(5, count=3))
    return root


@pytest.fixture
def command() -> Command:
    """Return the function that runs the command line with the given words."""

    def run(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)

    return run

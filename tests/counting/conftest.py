"""The command inside this process, and small model files."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dqtsim.cli import main
from dqtsim.energy import EnergyTable
from dqtsim.graph import save
from dqtsim.structures import build

Command = Callable[..., Result]
# additions cost their width, products the product of their widths: every energy is a whole number
PLAIN = EnergyTable(
    "plain",
    "made up",
    {8: 8.0, 32: 32.0},
    {8: 64.0, 32: 1024.0},
    {"near": 1.0, "middle": 2.0, "far": 3.0},
    {"weights": "near", "activations": "middle", "tables": "far"},
)


@pytest.fixture
def command() -> Command:
    """Return the function that runs the command line with the given words."""

    def run(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)

    return run


@pytest.fixture(scope="session")
def resnet8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a static ResNet-8."""
    path = tmp_path_factory.mktemp("structures") / "resnet8.onnx"
    save(build("resnet8"), path)
    return path


@pytest.fixture(scope="session")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a ResNet-8 with a controller."""
    path = tmp_path_factory.mktemp("structures") / "dynamic.onnx"
    save(build("resnet8", dynamic=True), path)
    return path


def refusal(result: Result) -> str:
    """Return the one sentence that wrong use gets."""
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.endswith(".\n")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").removesuffix("\n")

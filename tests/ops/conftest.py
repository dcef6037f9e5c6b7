"""The engines: every case of every table runs on each of them, and on each kernel of the native one."""

from collections.abc import Iterator

import pytest

from tests.vectorkernels import kernel, kernels


@pytest.fixture(params=("spec", "numba", "onnxruntime", "torch", *(f"jit, {name}" for name in kernels())))
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the name of an engine."""
    name, _, chosen = str(request.param).partition(", ")
    if name == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    if not chosen:
        yield name
        return
    with kernel(chosen):
        yield name

"""The engines: every case of every table runs on each of them."""

import pytest


@pytest.fixture(params=("spec", "jit", "onnxruntime"))
def engine(request: pytest.FixtureRequest) -> str:
    """Return the name of an engine."""
    return str(request.param)

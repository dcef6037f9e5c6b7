"""The engines: every case of every table runs on each of them."""

import pytest

from dqtsim.executor import ENGINES


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Return the name of an engine."""
    return str(request.param)

"""A format that dqtsim does not know: a text that names a structure of `dqtsim new`."""

from dqtsim.errors import ModelError
from dqtsim.graph.model import Graph
from dqtsim.structures import build

MARK = b"toy: "


def detect(data: bytes) -> bool:
    return data.startswith(MARK)


def load(data: bytes, path: str) -> Graph:
    name = data.removeprefix(MARK).decode().strip()
    if not name:
        raise ModelError(f"a toy names a structure; '{path}' names none.")
    return build(name)

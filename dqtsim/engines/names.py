"""The names of engines, without importing any; the registry says in which module each is."""

from collections.abc import Mapping

DEFAULT = "native"
ENGINE_NAMES = (DEFAULT, "numba", "spec", "onnxruntime", "torch")
# other names that a user may type
ALIASES: Mapping[str, str] = {"jit": DEFAULT}
# names in JSON, which change only with the next version
JSON_NAMES: Mapping[str, str] = {DEFAULT: "jit"}


def full_name(name: str) -> str:
    """Return the name of the engine that `name` means, which may be an alias; other texts are returned as they are."""
    return ALIASES.get(name, name)

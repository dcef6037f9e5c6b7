"""The pinned hashes by readable keys, and what is pinned in `frozen.json`."""

import hashlib
import inspect
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dqtsim

from . import places
from .commands import ROOT

FILE = Path(__file__).parent / "frozen.json"
# whose versions an output depends on, though dqtsim is the same
IR_NEEDS, CLI_NEEDS, ONNX_NEEDS = ("llvmlite",), ("click", "numpy", "rich", "scipy"), ("onnx",)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pinned() -> dict[str, Any]:
    """Return what `frozen.json` holds."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def versions() -> dict[str, str]:
    return {name: version(name) for name in sorted({*IR_NEEDS, *CLI_NEEDS, *ONNX_NEEDS})}


def ir(isa: str, roundings: Iterable[str] = places.ROUNDINGS) -> dict[str, str]:
    """Return the hashes of the IR of all libraries of an instruction set, whatever this CPU and system are."""
    found = {}
    plain, counting = (places.libraries(isa, counts=counts) for counts in (False, True))
    for rounding in roundings:
        start = f"ir/{isa}/{rounding}"
        for library in counting:
            found[f"{start}/{library}"] = digest(places.emit_text(isa, rounding, library).encode())
        if counting != plain:
            text = places.emit_text(isa, rounding, places.MAIN, counts=True)
            found[f"{start}/main, CPU counts bits"] = digest(text.encode())
    text = places.emit_text(isa, "TIES_UP", places.MAIN, platform="win32")
    return found | {f"ir/{isa}/TIES_UP/main, Windows": digest(text.encode())}


def libraries() -> dict[str, list[str]]:
    """Return the libraries that each instruction set has, with and without an instruction that counts bits."""
    return {
        f"libraries/{isa}, CPU {'counts' if counts else 'does not count'} bits": [*places.libraries(isa, counts=counts)]
        for isa in places.instruction_sets()
        for counts in (False, True)
    }


def models() -> dict[str, Path]:
    """Return the model files by key."""
    paths = sorted((ROOT / "models").rglob("*.onnx"))
    return {path.relative_to(ROOT).as_posix(): path for path in paths}


def model(path: Path) -> str:
    """Return the hash of what dqtsim writes for a model that it read."""
    return digest(places.written(path))


def bodies() -> dict[str, str]:
    """Return the hashes of the function bodies that model files carry."""
    return {
        f"body/{rules}/{name}": digest(body) for rules, found in places.bodies().items() for name, body in found.items()
    }


def public() -> dict[str, Any]:
    """Return the public names: the parameters of functions, the public attributes of classes."""
    return {f"public/{name}": _shape(getattr(dqtsim, name)) for name in sorted(dqtsim.__all__)}


def _shape(thing: Any) -> Any:
    if not callable(thing):
        return type(thing).__name__
    if not inspect.isclass(thing):
        return _parameters(thing)
    if issubclass(thing, Exception):
        return [base.__name__ for base in thing.__mro__]
    fields = getattr(thing, "__dataclass_fields__", {})
    return [_parameters(thing), *sorted(name for name in {*dir(thing), *fields} if not name.startswith("_"))]


def _parameters(function: Any) -> str:
    """Return the names and kinds of the parameters, and which have a default."""
    signature = inspect.signature(function)
    bare = [
        p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else ...)
        for p in signature.parameters.values()
    ]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty)).replace("Ellipsis", "...")


def programs() -> dict[str, str]:
    """Return the hashes of native programs as they print, for every instruction set."""
    model = ROOT / "models" / "resnet8-cifar10.onnx"
    return {
        f"program/{isa}/bits {bits}": digest(places.program_text(model, bits, isa).encode())
        for isa in places.instruction_sets()
        for bits in ("8", "w4a8", "dynamic")
    }


def everything() -> dict[str, Any]:
    """Return all that `frozen.json` pins, by key."""
    found: dict[str, Any] = {**public(), **libraries(), **bodies(), **programs()}
    found |= {name: model(path) for name, path in models().items()}
    for isa in places.instruction_sets():
        found |= ir(isa)
    return found

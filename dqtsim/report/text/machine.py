"""The computer: the kernel that it uses and why, its CPU, the versions of packages, the cache of kernels."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from ...engines.native.compile.cache import State

_PACKAGES = ("dqtsim", "numpy", "numba", "llvmlite", "onnx")


def cpu() -> str:
    """Return the CPU's model name, or whatever else is known of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def facts(cores: int) -> dict[str, Any]:
    """Return all that is known of the computer, with `cores` cores available, for JSON."""
    from ...engines.native.compile import build, cache
    from ...engines.native.isa import ISAS

    choice = build.choose()
    llvm, features = build.host()
    # LLVM names all features of this architecture, whether or not the CPU has them
    needed = dict.fromkeys(name for isa in ISAS for names in isa.needs for name in names)
    relevant = [name for name in needed if name in features]
    state = cache.state(choice.isa)
    return {
        "kernel": {"name": choice.isa.name, "is": choice.isa.says, "chosen_because": choice.why},
        "cpu": {
            "name": cpu(),
            "llvm": llvm,
            "architecture": platform.machine(),
            "cores_available": cores,
            "cores": os.cpu_count(),
            "features": {name: bool(features[name]) for name in relevant},
        },
        "versions": versions(_PACKAGES),
        "cache": {
            "folder": None if state.folder is None else str(state.folder),
            "usable_entries": state.usable,
            "broken_entries": state.broken,
            "problem": state.problem,
            "says": _says(state),
        },
    }


def _says(state: "State") -> str:
    """Return a phrase: what the cache holds for this kernel, and whether anything can be stored."""
    found = f"{_entries(state.usable, 'usable')} for this kernel" if state.usable else "nothing yet for this kernel"
    if state.broken:
        found += f", {_entries(state.broken, 'broken')}"
    if state.problem:
        return f"{found}; nothing can be stored there: {state.problem}"
    return f"{found}, compiled anew when needed" if state.broken else found


def _entries(count: int, kind: str) -> str:
    return f"1 {kind} entry" if count == 1 else f"{count} {kind} entries"


def print_facts(console: "Console", found: dict[str, Any]) -> None:
    """Print what `facts` found."""
    from rich.table import Table
    from rich.text import Text

    kernel, processor, cache = found["kernel"], found["cpu"], found["cache"]
    console.print(Text.assemble((f"kernel {kernel['name']}", "bold"), f": {kernel['is']}"))
    console.print(f"chosen because {kernel['chosen_because']}")
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row("cpu", f"{processor['name']}, {processor['architecture']}, LLVM's {processor['llvm']}")
    table.add_row("cores", f"{processor['cores_available']} available of {processor['cores'] or 'an unknown number'}")
    for title, wanted in (("has", True), ("lacks", False)):
        names = [name for name, has in processor["features"].items() if has is wanted]
        if names:
            table.add_row(title, " ".join(names))
    table.add_row("versions", ", ".join(f"{name} {text}" for name, text in found["versions"].items()))
    table.add_row("cache", cache["folder"] or "none")
    table.add_row("", cache["says"])
    console.print(table)

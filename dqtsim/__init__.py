"""dqtsim: bit-accurate, integer-only inference of networks with nested integer codes.

>>> graph = dqtsim.load("model.onnx")                                     # doctest: +SKIP
>>> plan = dqtsim.plan(graph, dqtsim.load_target("default"))              # doctest: +SKIP
>>> for result in dqtsim.run(plan, dqtsim.read_input("img.npy", graph)):  # doctest: +SKIP
...     print(result.class_index, result.bits)

Everything is imported on first use, so `import dqtsim` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engines.registry import engine, run
    from .engines.result import Result, Trace
    from .errors import DqtsimError
    from .frontends import load
    from .golden import verify
    from .graph import Graph, GraphBuilder, save
    from .inputs.picture import read_input
    from .planner import Plan, plan
    from .target import Target, load_target
    from .widths import apply_bits

__version__ = "0.1.0"
__all__ = [
    "DqtsimError",
    "Graph",
    "GraphBuilder",
    "Plan",
    "Result",
    "Target",
    "Trace",
    "__version__",
    "apply_bits",
    "engine",
    "load",
    "load_target",
    "plan",
    "read_input",
    "run",
    "save",
    "verify",
]

_HOMES = {
    "widths": ("apply_bits",),
    "errors": ("DqtsimError",),
    "golden": ("verify",),
    "frontends": ("load",),
    "graph": ("Graph", "GraphBuilder", "save"),
    "inputs.picture": ("read_input",),
    "planner": ("Plan", "plan"),
    "engines.registry": ("engine", "run"),
    "engines.result": ("Result", "Trace"),
    "target": ("Target", "load_target"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f".{home}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'dqtsim' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)

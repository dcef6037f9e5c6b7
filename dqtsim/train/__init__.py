"""Training nested networks (PyTorch, an optional extra) and exporting them as integer models.

`TrainConfig` and `train`, then `ExportConfig` and `export`; torch is imported when one of them is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dqtsim.train.commands import ExportConfig, TrainConfig, export, train

__all__ = ["ExportConfig", "TrainConfig", "export", "train"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("dqtsim.train.commands"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

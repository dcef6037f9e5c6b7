"""Training nested networks (PyTorch, an optional extra) and exporting them as integer models.

`prepare(model)` makes an ordinary network nested, `calibrate(network, batches)` fits it to pictures without training,
`export(network, example, path)` writes the model and golden vectors. `TrainConfig` and `train`, then `ExportConfig` and
`export_run`, are what the command line does. Torch is imported when one of them is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dqtsim.train.calibration import calibrate
    from dqtsim.train.commands import ExportConfig, TrainConfig, export, export_run, train
    from dqtsim.train.rewrite import NestedConfig, prepare
    from dqtsim.train.rules import NestingRules

__all__ = [
    "ExportConfig",
    "NestedConfig",
    "NestingRules",
    "TrainConfig",
    "calibrate",
    "export",
    "export_run",
    "prepare",
    "train",
]
_HOMES = {
    "calibration": ("calibrate",),
    "commands": ("ExportConfig", "TrainConfig", "export", "export_run", "train"),
    "rewrite": ("NestedConfig", "prepare"),
    "rules": ("NestingRules",),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            value: object = getattr(import_module(f"dqtsim.train.{home}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

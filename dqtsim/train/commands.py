"""The training commands as plain functions: train, then export."""

import dataclasses
import json
from pathlib import Path

import torch

from dqtsim import __version__
from dqtsim.errors import InputError
from dqtsim.train.config import RunDir, TrainConfig
from dqtsim.train.data import read_dataset
from dqtsim.train.folding import fold, save_model
from dqtsim.train.golden import write_golden
from dqtsim.train.loop import load_networks, train
from dqtsim.train.report import measure

__all__ = ["ExportConfig", "TrainConfig", "export", "train"]


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What to export from the run's folder, and where to."""

    run: Path
    model: Path
    golden: Path | None = None
    # Where the pictures are now, if not where the run read them, and what they are called.
    data: Path | None = None
    data_name: str | None = None
    golden_pictures: int = 12


def export(config: ExportConfig) -> dict[str, object]:
    """Fold a finished run, write its model and golden vectors, and return what `measure` found on all test pictures."""
    run = RunDir(config.run)
    trained = run.read_config()
    if config.golden is not None and config.golden_pictures < 1:
        raise InputError(f"There must be at least one golden picture, but {config.golden_pictures} are wanted.")
    dataset = read_dataset(config.data or trained.data)
    source = config.data_name or dataset.name
    float_network, network, controller = load_networks(run, len(dataset.class_names))
    size = (int(dataset.test.images.shape[2]), int(dataset.test.images.shape[3]))
    integers = fold(network, controller, size)
    report = measure(float_network, network, controller, integers, dataset.test)
    kept = {"data", "out"}
    settings = {key: value for key, value in dataclasses.asdict(trained).items() if key not in kept}
    config.model.parent.mkdir(parents=True, exist_ok=True)
    save_model(
        integers,
        config.model,
        name=config.model.stem,
        class_names=dataset.class_names,
        producer={
            "name": "dqtsim.train",
            "version": __version__,
            "torch": str(torch.__version__),
            "data": f"{source}, {len(dataset.train)} training and {len(dataset.test)} test pictures",
            "data_test_sha256": dataset.fingerprint(),
            "settings": json.dumps(settings),
            "measured": json.dumps(report),
        },
    )
    if config.golden is not None:
        write_golden(
            integers,
            dataset.test,
            config.golden,
            model=config.model,
            source=source,
            command=f"dqtsim export RUN -o {config.model.name} --golden {config.golden.name}",
            count=config.golden_pictures,
        )
    return report

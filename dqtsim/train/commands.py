"""The training commands as plain functions: train a run, export it; or export a network prepared by hand."""

import dataclasses
import json
from os import PathLike
from pathlib import Path

import torch

from dqtsim import __version__
from dqtsim.errors import InputError, ModelError
from dqtsim.graph import save
from dqtsim.graph.model import Graph
from dqtsim.outputs import check_apart, check_file, check_folder
from dqtsim.train import given
from dqtsim.train.config import RunDir, TrainConfig
from dqtsim.train.controller import Controller
from dqtsim.train.data import read_dataset
from dqtsim.train.folding import fold
from dqtsim.train.golden import FOLDER, write_golden
from dqtsim.train.loop import load_networks, train
from dqtsim.train.network import NestedNetwork
from dqtsim.train.report import measure

__all__ = ["ExportConfig", "TrainConfig", "export", "export_run", "train"]


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What to export from the run's folder, and the places of the outputs."""

    run: Path
    model: Path
    golden: Path | None = None
    # The folder of the pictures, if they have moved since the run, and the name of the data.
    data: Path | None = None
    data_name: str | None = None
    golden_pictures: int = 12
    # The number of test pictures on which accuracies are measured; None is all.
    pictures: int | None = None


def export(
    network: NestedNetwork,
    example: object,
    path: str | PathLike[str],
    *,
    controller: Controller | None = None,
    golden: str | PathLike[str] | None = None,
    class_names: tuple[str, ...] = (),
) -> Graph:
    """Write `network` as an ONNX model, and golden vectors of the pictures `example` uint8 [N, C, H, W], or of one.

    Without `controller` the widths are static. Vectors go to the folder `golden`, else to the model's path without its
    suffix and with `-golden`; one per picture and policy. That folder must be empty or hold only older vectors, which
    are replaced. Raises OutputError otherwise, or if anything cannot be written; InputError for other pictures;
    ModelError for a network that was not calibrated.
    """
    if not network.fitted:
        raise ModelError("this network was not calibrated; call calibrate(network, batches) before export.")
    network.eval()
    pictures, path = given.pictures(example, network.shape), given.path(path)
    folder = path.with_name(f"{path.stem}-golden") if golden is None else given.path(golden)
    _check_places(path, folder)
    producer = {"name": "dqtsim.train", "version": __version__, "torch": str(torch.__version__)}
    graph = fold(network, controller, name=path.stem, class_names=class_names, producer=producer)
    save(graph, path)
    write_golden(
        graph,
        pictures.cpu().reshape(-1, *graph.input.shape[1:]),
        None,
        folder,
        model=path,
        source="example",
        command="dqtsim.train.export",
        count=len(pictures),
    )
    return graph


def export_run(config: ExportConfig) -> dict[str, object]:
    """Fold a finished run, write its model and golden vectors, and return what `measure` found on test pictures."""
    run = RunDir(config.run)
    trained = run.read_config()
    if config.golden is not None and config.golden_pictures < 1:
        raise InputError(f"There must be at least one golden picture, but {config.golden_pictures} are wanted.")
    _check_places(config.model, config.golden)
    dataset = read_dataset(config.data or trained.data, trained.size)
    source = config.data_name or dataset.name
    float_network, network, controller = load_networks(run, dataset)
    report = measure(float_network, network, controller, fold(network, controller), dataset.test.first(config.pictures))
    kept = {"data", "out"}
    settings = {key: value for key, value in dataclasses.asdict(trained).items() if key not in kept}
    producer = {
        "name": "dqtsim.train",
        "version": __version__,
        "torch": str(torch.__version__),
        "data": f"{source}, {len(dataset.train)} training and {len(dataset.test)} test pictures",
        "data_test_sha256": dataset.fingerprint(),
        "settings": json.dumps(settings),
        "measured": json.dumps(report),
    }
    graph = fold(network, controller, name=config.model.stem, class_names=dataset.class_names, producer=producer)
    save(graph, config.model)
    if config.golden is not None:
        write_golden(
            graph,
            dataset.test.images,
            dataset.test.labels,
            config.golden,
            model=config.model,
            source=f"{source} test",
            command=f"dqtsim export RUN -o {config.model.name} --golden {config.golden.name}",
            count=config.golden_pictures,
        )
    return report


def _check_places(model: Path, golden: Path | None) -> None:
    """Raise OutputError, before minutes of work, if the outputs could not be written to these places."""
    check_file(model)
    if golden is not None:
        check_folder(golden, FOLDER)
        check_apart(model, golden)

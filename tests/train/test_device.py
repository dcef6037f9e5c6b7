"""A run computes where it is told to, and a seed means the same everywhere."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from click.testing import CliRunner
from torch.utils._pytree import tree_leaves, tree_map

from dqtsim.cli import main
from dqtsim.errors import InputError
from dqtsim.graph.model import Graph
from dqtsim.train import NestedConfig, NestingRules, calibrate, export, loop, networks, prepare, train
from dqtsim.train.config import RunDir, TrainConfig
from dqtsim.train.device import settled, sound_convolutions
from dqtsim.train.phases import load_state, save_state

from .conftest import tiny_config
from .elsewhere import PLACE, Elsewhere, elsewhere

NO_GPU = "device cuda needs a GPU that PyTorch can use, but there is none; take device cpu."
# On the second device every operation passes through Python, so there are few.
TWO = ((2, 2), (8, 8))


def one_step(cifar: Path, out: Path, **options: Any) -> TrainConfig:
    config = tiny_config(cifar, out)
    return dataclasses.replace(
        config, candidates=TWO, pictures=32, float_epochs=1, ema=0.5, distill=0.5, precision="float32", **options
    )


def there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs compute on PLACE, and save as a GPU does: what is loaded is on the CPU."""

    def move(config: TrainConfig, begun: TrainConfig | None) -> TrainConfig:
        return dataclasses.replace(config, device=str(PLACE))  # type: ignore[arg-type]

    def save(state: dict[str, Any], path: Path) -> None:
        left = [part for part in tree_leaves(state) if isinstance(part, torch.Tensor) and type(part) is not Elsewhere]
        # The generator's state, and optimizers' counts of steps.
        assert all(part is state.get("generator") or not part.dim() for part in left)
        save_state(tree_map(lambda value: value.cpu() if isinstance(value, Elsewhere) else value, state), path)

    monkeypatch.setattr(loop, "settled", move)
    monkeypatch.setattr(loop, "save_state", save)


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize("relaxation", ["gumbel", "softmax"])
def test_a_run_on_another_device_is_the_same_run(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relaxation: str
) -> None:
    here = train(one_step(cifar, tmp_path / "here", relaxation=relaxation, device="cpu"))
    there(monkeypatch)
    config = one_step(cifar, tmp_path / "there", relaxation=relaxation)
    progress = loop._progress

    def kill(title: str, done: int, total: int, started: float) -> None:
        if title == "dynamic 2/2":
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_progress", kill)
    with elsewhere(), pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.setattr(loop, "_progress", progress)
    with elsewhere():
        moved = train(config, resume=True)
    one, other = load_state(here.checkpoint), load_state(moved.checkpoint)
    for part in ("network", "controller"):
        for name, value in one[part].items():
            assert torch.equal(value, other[part][name]), name
            assert torch.equal(one["average"][part][name], other["average"][part][name]), name
    untimed = [[{k: v for k, v in row.items() if k != "seconds"} for row in run.epochs()] for run in (here, moved)]
    assert untimed[0] == untimed[1]


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_a_network_elsewhere_is_calibrated_evaluated_and_exported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = networks.build("resnet8", 10, 0.125)
    pictures = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)

    def made(place: torch.device, name: str) -> Graph:
        torch.manual_seed(1)
        network = prepare(source.to(place), NestedConfig(NestingRules(candidates=TWO)))
        controller = network.new_controller().to(place)
        calibrate(network, [pictures.to(place)])
        controller.calibrate(network.features(pictures))
        assert network.device == place
        return export(network, pictures[:1].to(place), tmp_path / name, controller=controller)

    expected = made(torch.device("cpu"), "here.onnx")
    with elsewhere():
        found = made(PLACE, "there.onnx")
    assert expected.initializers.keys() == found.initializers.keys()
    for name, array in expected.initializers.items():
        assert (array == found.initializers[name]).all(), name


def test_tensors_in_two_places_are_refused() -> None:
    with elsewhere():
        moved = torch.ones(2).to(PLACE)
        assert (moved + 1).cpu().tolist() == [2, 2]
        with pytest.raises(RuntimeError, match="same device"):
            moved + torch.ones(2)


def test_a_gpu_that_is_not_there_is_one_sentence(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError) as raised:
        train(dataclasses.replace(tiny_config(cifar, tmp_path / "run"), device="cuda"))
    assert str(raised.value) == NO_GPU
    arguments = ["train", "resnet8", "--data", str(cifar), "--out", str(tmp_path / "run"), "--device", "cuda"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert NO_GPU in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("gpu", "native", "expected"), [
    (False, False, ("cpu", None)), (True, True, ("cuda", "bfloat16")), (True, False, ("cuda", "float32")),
])  # fmt: skip
def test_auto_is_settled_once(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, native: bool, expected: tuple[str, str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    config = tiny_config(cifar, tmp_path / "run")
    begun = settled(config, None)
    assert begun.device == expected[0]
    assert begun.precision in (expected[1], "float32", "bfloat16")
    assert expected[1] is None or begun.precision == expected[1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert settled(config, begun) == begun
    assert TrainConfig.from_json(begun.to_json()) == begun


def test_the_device_is_recorded_and_old_runs_were_on_the_cpu(finished: RunDir) -> None:
    recorded = json.loads(finished.config.read_text())
    assert recorded["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    del recorded["device"]
    assert TrainConfig.from_json(json.dumps(recorded)).device == "cpu"


def test_convolutions_that_onednn_gets_wrong_are_not_left_to_it(cifar: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config(cifar, tmp_path / "run"), device="cpu", precision="float32")
    enabled = torch.backends.mkldnn.enabled
    with sound_convolutions(config):
        assert torch.backends.mkldnn.enabled == enabled
    with sound_convolutions(dataclasses.replace(config, width=0.25)):
        assert not torch.backends.mkldnn.enabled
    assert torch.backends.mkldnn.enabled == enabled

import dataclasses
import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from click.testing import CliRunner

from dqtsim.cli.training import train_command
from dqtsim.errors import InputError
from dqtsim.train import ExportConfig, export_run, loop, train
from dqtsim.train.config import RunDir, TrainConfig
from dqtsim.train.constants import multiplier_and_shift
from dqtsim.train.controller import sample
from dqtsim.train.data import read_dataset
from dqtsim.train.evaluate import evaluate_dynamic, evaluate_uniform
from dqtsim.train.exact import classify, run_batch, run_graph
from dqtsim.train.folding import fold
from dqtsim.train.loss import task_loss
from dqtsim.train.phases import load_state

from .conftest import tiny_config


def test_a_run_learns_and_logs_every_epoch(finished: RunDir) -> None:
    rows = finished.epochs()
    assert [(row["phase"], row["epoch"]) for row in rows] == [
        ("float", 1), ("float", 2), ("uniform", 1), ("dynamic", 1), ("dynamic", 2),
    ]  # fmt: skip
    assert {"w2a2", "w4a4", "w8a8", "dynamic", "mean_width", "shares"} <= set(rows[-1])


def test_a_killed_run_resumes_to_the_same_bits(
    finished: RunDir, cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(cifar, tmp_path / "run")
    progress = loop._progress
    for stop in ("float 2/2", "uniform 1/1", "dynamic 2/2"):

        def kill(title: str, done: int, total: int, started: float, stop: str = stop) -> None:
            if title == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(loop, "_progress", kill)
        with pytest.raises(KeyboardInterrupt):
            train(config, resume=(tmp_path / "run" / "checkpoint.pt").exists())
    monkeypatch.setattr(loop, "_progress", progress)
    resumed = train(config, resume=True)
    one, other = (torch.load(r.checkpoint, weights_only=True) for r in (finished, resumed))
    for part in ("network", "controller"):
        for name, value in one[part].items():
            assert torch.equal(value, other[part][name]), name


def test_starting_over_or_with_another_configuration_is_refused(finished: RunDir, cifar: Path) -> None:
    config = tiny_config(cifar, finished.path)
    with pytest.raises(InputError) as raised:
        train(config)
    assert str(raised.value) == f"A new run needs a folder without one, but {finished.path} has a checkpoint."
    with pytest.raises(InputError) as raised:
        train(dataclasses.replace(config, seed=1, ema=0.5), resume=True)
    assert str(raised.value) == (
        f"A run must resume with its own configuration, but {finished.config} has seed 0 instead of 1, "
        "ema 0.0 instead of 0.5."
    )
    with pytest.raises(InputError) as raised:
        train(dataclasses.replace(config, batch_size=1000), resume=False)
    assert str(raised.value) == ("There must be at least one batch of 1000 training pictures, but there are 64.")


def test_the_loss_reaches_controller_steps_weights_and_stem(finished: RunDir, cifar: Path) -> None:
    split = read_dataset(cifar).train
    _, network, controller = loop.load_networks(finished, read_dataset(cifar))
    assert controller is not None
    network.train()
    stem = network.features(split.images[:16], torch.bfloat16)
    logits = controller(stem)
    mixed = sample(logits, 1.0, torch.Generator().manual_seed(0))
    torch.autograd.backward(task_loss(network.head(stem, mixed), split.labels[:16], 0.0))
    for name, parameter in [*network.named_parameters(), *controller.named_parameters()]:
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    for name in ("stem.weight", "block2/down.weight", "block3/conv1.step.logarithm", "fc.weight_step.logarithm"):
        assert _total_gradient(network.get_parameter(f"layers.{name}")) > 0, name
    assert _total_gradient(controller.hidden.weight) > 0


def _total_gradient(parameter: torch.Tensor) -> float:
    return 0.0 if parameter.grad is None else float(parameter.grad.abs().sum())


@pytest.mark.parametrize("value", [1e-9, 0.3, 0.5, 0.99999999, 1.0, 1.00001, 40000.0])
def test_multipliers_are_normalised(value: float) -> None:
    (multiplier,), shift = multiplier_and_shift([value], "layer")
    assert 32768 <= multiplier <= 65535
    assert 0 <= shift <= 62
    assert multiplier / 2**shift == pytest.approx(value, rel=2**-15)


def test_integers_are_those_of_the_trained_network(finished: RunDir, cifar: Path) -> None:
    split = read_dataset(cifar).test
    _, network, controller = loop.load_networks(finished, read_dataset(cifar))
    assert controller is not None
    graph = fold(network, controller)
    for node in graph.nodes:
        if node.operator in ("NestedConv", "NestedGemm"):
            multiplier = graph.initializers[f"{node.name}.multiplier"]
            assert 32768 <= multiplier.min() <= multiplier.max() <= 65535
            assert graph.initializers[f"{node.name}.shift"].max() <= 62
    classes, widths = classify(graph, split.images)
    types: list[torch.dtype] = []
    handle = network.layer("fc").register_forward_hook(lambda _module, _inputs, output: types.append(output.dtype))
    trained = evaluate_dynamic(network, controller, split)
    evaluate_uniform(network, split, 0)
    handle.remove()
    # Logits are float64 where they are exact.
    assert types == [torch.float64] * 2
    assert not network.exact
    assert torch.equal(widths[:, 1:], torch.tensor(graph.candidates)[trained.choices])
    assert torch.equal(classes, trained.predictions)
    assert torch.equal(widths[:, 0], torch.full((32, 2), 8))


def test_a_sample_does_not_depend_on_its_batch(finished: RunDir, cifar: Path) -> None:
    split = read_dataset(cifar).test
    _, network, controller = loop.load_networks(finished, read_dataset(cifar))
    graph = fold(network, controller)
    together, used = run_batch(graph, split.images[:6])
    assert len(torch.unique(used, dim=0)) > 1
    for i in range(6):
        alone = run_graph(graph, split.images[i : i + 1].numpy())
        assert used[i].tolist() == alone["bits"].tolist()
        assert together[i].tolist() == alone["fc"][0].tolist()


def test_export_writes_a_model_and_vectors_that_stock_onnxruntime_reproduces(finished: RunDir, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from dqtsim import load, load_target
    from dqtsim.golden import verify

    model, folder = tmp_path / "tiny.onnx", tmp_path / "tiny"
    report = export_run(ExportConfig(finished.path, model, folder, data_name="noise", golden_pictures=3))
    assert report["pictures"] == 32
    agreed = {key: found["agree"] for key, found in report.items() if isinstance(found, dict)}
    assert agreed == {"w2a2": 1.0, "w4a4": 1.0, "w8a8": 1.0, "dynamic": 1.0}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["model"] == "tiny.onnx"
    assert manifest["producer"] == "dqtsim export RUN -o tiny.onnx --golden tiny"
    assert [entry["bits_policy"] for entry in manifest["vectors"]] == ["dynamic"] * 3 + ["w2a2", "w4a4", "w8a8"]
    assert manifest["vectors"][0]["picture"].startswith("noise test index ")
    with np.load(folder / manifest["vectors"][0]["file"], allow_pickle=False) as arrays:
        assert arrays["input"].dtype == np.uint8
        assert arrays["bits"].shape == (10, 2)
        assert arrays["stem.acc"].dtype == np.int32
        assert arrays["fc"].shape == (1, 10)
    verdicts = list(verify(model, load(model), load_target("default"), "onnxruntime", [folder]))
    assert [verdict.first for verdict in verdicts] == [None] * 6
    assert min(verdict.tensors for verdict in verdicts) >= 16


@pytest.mark.parametrize(("asked", "used"), [(1, 1), (20, 20), (32, 32), (33, 32)])
def test_fewer_pictures_are_measured(finished: RunDir, tmp_path: Path, asked: int, used: int) -> None:
    assert export_run(ExportConfig(finished.path, tmp_path / "tiny.onnx", pictures=asked))["pictures"] == used


def test_an_unfinished_run_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        export_run(ExportConfig(tmp_path, tmp_path / "model.onnx"))
    assert str(raised.value) == f"A run must be a folder with config.json, but {tmp_path} has none."


def test_the_command_line_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    monkeypatch.setattr(loop, "train", lambda config, resume: seen.append((config, resume)))
    monkeypatch.setattr("dqtsim.cli.training._keep_memory", lambda: None)
    arguments = ["resnet8", "--data", "d", "--out", str(tmp_path), "--candidates", "4/8,8"]
    result = CliRunner().invoke(train_command, arguments)
    assert result.exit_code == 0, result.output
    config, resume = seen[0]
    assert config.network == "resnet8"
    assert config.candidates == ((4, 8), (8, 8))
    assert not resume
    assert config.budget == 3.75


def test_resume_takes_what_is_not_given_from_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    monkeypatch.setattr(loop, "train", lambda config, resume: seen.append((config, resume)))
    monkeypatch.setattr("dqtsim.cli.training._keep_memory", lambda: None)
    pairs = ((2, 2), (2, 4), (4, 2), (4, 4))
    own = TrainConfig(Path("d"), tmp_path, seed=3, candidates=pairs, budget=2.5, ema=0.5, shared_norm=True)
    RunDir(tmp_path).config.write_text(own.to_json())
    words = ["resnet8", "--data", "d", "--out", str(tmp_path), "--resume"]
    file = tmp_path / "run.toml"
    file.write_text("alpha = 0.25\n")
    cases: dict[tuple[str, ...], dict[str, Any]] = {
        (): {},
        ("--data", "elsewhere"): {"data": Path("elsewhere")},
        ("--seed", "0"): {"seed": 0},
        ("--candidates", "8", "--separately"): {"candidates": ((8, 8),)},
        ("--candidates", "2,4", "--separately"): {},
        ("--separately",): {"candidates": tuple(product((2, 4, 8), repeat=2))},
        ("--no-budget",): {"budget": None},
        ("--budget", "3"): {"budget": 3.0},
        ("--config", str(file)): {"alpha": 0.25},
    }
    for extra, changed in cases.items():
        result = CliRunner().invoke(train_command, [*words, *extra])
        assert result.exit_code == 0, result.output
        assert seen.pop() == (dataclasses.replace(own, **changed), True)
    result = CliRunner().invoke(train_command, [*words[:3], "--out", str(tmp_path / "none"), "--resume"])
    assert str(result.exception) == f"A run must be a folder with config.json, but {tmp_path / 'none'} has none."


def test_a_run_can_begin_with_the_uniform_network_of_another(finished: RunDir, cifar: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(finished.read_config(), data=cifar, out=tmp_path / "again")
    config.out.mkdir()
    for name in ("float.pt", "uniform.pt"):
        (config.out / name).write_bytes((finished.path / name).read_bytes())
    again = train(config)
    assert [row["phase"] for row in again.epochs()] == ["dynamic"] * 2
    one, other = (load_state(run.checkpoint) for run in (finished, again))
    for module in ("network", "controller"):
        assert all(torch.equal(value, other[module][name]) for name, value in one[module].items())
    different = dataclasses.replace(config, candidates=((3, 3), (8, 8)), out=tmp_path / "other")
    shutil.copytree(config.out, different.out)
    (different.out / "checkpoint.pt").unlink()
    # one without consistency has no uniform epochs of its own, and begins there all the same
    for alone in (different, dataclasses.replace(different, alpha=0.0, uniform_epochs=0)):
        with pytest.raises(InputError, match=r"uniform\.pt must hold a network of NestingRules.*candidates=\(\(3, 3"):
            train(alone)
        shutil.rmtree(different.out)
        different.out.mkdir()
        for name in ("float.pt", "uniform.pt"):
            shutil.copy(config.out / name, different.out)

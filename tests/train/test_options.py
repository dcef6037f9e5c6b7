"""The method's options: each does what it says, and runs from the command line and from TOML."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from click.testing import CliRunner

from dqtsim import load
from dqtsim.cli import main
from dqtsim.errors import InputError
from dqtsim.train import ExportConfig, NestedConfig, export_run, loop, networks, prepare, train
from dqtsim.train.config import TrainConfig
from dqtsim.train.controller import mix
from dqtsim.train.data import read_dataset
from dqtsim.train.loss import task_loss
from dqtsim.train.modules.base import Uniform
from dqtsim.train.phases import Average, load_state
from dqtsim.train.rules import NestingRules

from .conftest import tiny_config


def fast(cifar: Path, out: Path, **options: Any) -> TrainConfig:
    return dataclasses.replace(
        tiny_config(cifar, out), width=0.25, float_epochs=1, dynamic_epochs=1, frozen_epochs=0, pictures=32, **options
    )


def test_every_option_at_once_trains_exports_and_is_logged(cifar: Path, tmp_path: Path) -> None:
    config = fast(
        cifar, tmp_path / "run", network="resnet20", candidates=((2, 4), (4, 4)), consistency=((4, 4), (8, 8)),
        shared_norm=True, cost="bitops", budget=30.0, relaxation="softmax", distill=0.5, ema=0.5,
        precision="bfloat16",
    )  # fmt: skip
    run = train(config)
    rows = list(csv.DictReader(run.table.read_text().splitlines()))
    assert [row["phase"] for row in rows] == ["float", "uniform", "dynamic"]
    assert rows[2]["w8a8"]
    assert rows[2]["w2a4"]
    assert not rows[0]["w8a8"]
    assert [row["loss_w8a8"] != "" for row in rows] == [False, True, True]
    report = export_run(ExportConfig(run.path, tmp_path / "net.onnx"))
    assert {"w2a4", "w4a4", "w8a8", "dynamic"} <= set(report)
    graph = load(tmp_path / "net.onnx")
    assert graph.candidates == ((2, 4), (4, 4))
    assert graph.node("block1.conv1").integers("row_widths") == (8,)


def test_a_run_without_a_controller_is_static(cifar: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(fast(cifar, tmp_path / "run"), dynamic_epochs=0, candidates=((3, 3),))
    export_run(ExportConfig(train(config).path, tmp_path / "net.onnx", tmp_path / "golden"))
    graph = load(tmp_path / "net.onnx")
    assert not graph.dynamic
    assert graph.candidates == ((3, 3),)


def test_averages_survive_a_kill(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = fast(cifar, tmp_path / "whole", ema=0.5)
    whole = train(config)
    config = dataclasses.replace(config, out=tmp_path / "killed")
    progress = loop._progress

    def kill(title: str, done: int, total: int, started: float) -> None:
        if title == "dynamic 1/1":
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_progress", kill)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.setattr(loop, "_progress", progress)
    killed = train(config, resume=True)
    one, other = (load_state(run.checkpoint)["average"]["network"] for run in (whole, killed))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    raw = load_state(whole.checkpoint)["network"]
    assert any(not torch.equal(value, raw[name]) for name, value in one.items())
    network = loop.load_networks(whole, read_dataset(cifar))[1]
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in one.items())


def test_an_average_is_applied_for_a_while() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0)
        average = Average({"m": module}, 0.75)
        module.weight.fill_(1)
        average.update()
        with average.applied():
            assert module.weight.item() == 0.25
    assert module.weight.item() == 1


def test_distillation_pulls_towards_the_teacher() -> None:
    labels, teacher = torch.tensor([0]), torch.tensor([[0.0, 3.0]])
    same = task_loss(teacher, labels, 0.0, teacher, 1.0)
    assert float(same) == pytest.approx(0, abs=1e-6)
    assert float(task_loss(teacher, labels, 0.0, teacher, 0.0)) == pytest.approx(3.0486, abs=1e-3)


def test_plain_softmax_mixes_branches() -> None:
    torch.manual_seed(0)
    network = prepare(networks.build("resnet8", 4), NestedConfig(NestingRules(candidates=((4, 4), (8, 8)))))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    network.set_steps(images)
    network.eval()
    stem = network.features(images)
    layer = network.layers["block1/conv1"]
    logits = torch.zeros((2, 9, 2))
    logits[1, :, 1] = 200
    with torch.no_grad():
        mixed = layer(stem, mix(logits)).values
        four, eight = (layer(stem, Uniform(k)).values for k in range(2))
    assert torch.equal(mixed[0], (four[0] + eight[0]) / 2)
    assert torch.equal(mixed[1], eight[1])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"network": "vgg"}, f"network must be one of {', '.join(networks.NETWORKS)}, but is vgg."),
        ({"cost": "watts"}, "cost must be one of bits, bitops, energy, cycles, but is watts."),
        ({"ema": 1.0}, "ema must be from 0 to 0.99999, but is 1.0."),
        ({"distill": 1.5}, "distill must be from 0 to 1.0, but is 1.5."),
        ({"temperature": 0.0}, "temperature must be positive, but is 0.0."),
        (
            {"alpha": 0.0},
            "uniform_epochs must be 0 where alpha is 0, because they train the consistency term alone.",
        ),
        ({"candidates": ((0, 2),)}, "Candidates must be two widths from 1 to 8, but one is (0, 2)."),
        (
            {"consistency": ((2, 2), (2, 2))},
            "Consistency pairs must be distinct and at least one, but are ((2, 2), (2, 2)).",
        ),
        ({"frozen_epochs": 9}, "frozen_epochs must be from 0 to dynamic_epochs, 7, but is 9."),
        (
            {"uniform_epochs": 0, "dynamic_epochs": 0, "frozen_epochs": 0},
            "A run must have uniform or dynamic epochs, but has neither.",
        ),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        dataclasses.replace(TrainConfig(Path("d"), Path("o")), **change).check()
    assert str(raised.value) == sentence


def test_without_consistency_statistics_are_still_measured(cifar: Path, tmp_path: Path) -> None:
    config = fast(cifar, tmp_path / "run", alpha=0.0)
    run = train(dataclasses.replace(config, uniform_epochs=0))
    state = load_state(run.checkpoint)["network"]
    means = state["layers.block1/conv1.running_mean"]
    assert not torch.equal(means[0], means[2])


def test_a_float_network_of_another_kind_is_refused(cifar: Path, tmp_path: Path) -> None:
    config = fast(cifar, tmp_path)
    torch.save({"network": "resnet20", "width": 1.0, "state": {}}, tmp_path / "float.pt")
    with pytest.raises(InputError) as raised:
        train(config)
    assert str(raised.value) == (
        f"float.pt must hold network resnet8 of width 0.25, but {tmp_path / 'float.pt'} says resnet20 of width 1.0."
    )


def invoke(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[TrainConfig | None, str]:
    seen: list[TrainConfig] = []
    monkeypatch.setattr(loop, "train", lambda config, resume: seen.append(config))
    monkeypatch.setattr("dqtsim.cli.training._keep_memory", lambda: None)
    result = CliRunner().invoke(main, ["train", *arguments])
    return (seen[0] if seen else None), result.output


def test_toml_gives_defaults_and_the_command_line_goes_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'network = "resnet20"\ndata = "d"\nout = "o"\ncandidates = [2, [4, 8]]\n'
        "seed = 3\nema = 0.9\nshared_norm = true\n"
    )
    config, output = invoke(monkeypatch, "--config", str(file), "--seed", "7", "--consistency", "2,8")
    assert config is not None, output
    assert (config.network, config.data, config.seed, config.ema) == ("resnet20", Path("d"), 7, 0.9)
    assert config.candidates == ((2, 2), (4, 8))
    assert config.consistency == ((2, 2), (8, 8))
    assert config.shared_norm
    assert config.budget == 3.75
    file.write_text("sead = 3\n")
    config, output = invoke(monkeypatch, "--config", str(file))
    assert config is None
    assert output.startswith(f"error: the configuration '{file}' may hold activation_rule, alpha, batch_size, ")
    assert output.endswith("; found 'sead'.\n")
    file.write_text("seed = \n")
    _, output = invoke(monkeypatch, "--config", str(file))
    assert output == f"error: the configuration '{file}' is not TOML: Invalid value (at line 1, column 8).\n"
    _, output = invoke(monkeypatch, "--config", str(tmp_path / "no.toml"))
    assert output == f"error: the configuration '{tmp_path / 'no.toml'}' cannot be read: no such file or directory.\n"


def test_weights_and_activations_may_be_chosen_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    base = ("mobilenetv2", "--data", "d", "--out", "o")
    config, output = invoke(monkeypatch, *base, "--candidates", "2,8", "--separately", "--no-budget")
    assert config is not None, output
    assert config.candidates == ((2, 2), (2, 8), (8, 2), (8, 8))
    assert config.budget is None
    config, _ = invoke(monkeypatch, *base, "--cost", "bitops", "--budget", "120")
    assert config is not None
    assert (config.cost, config.budget) == ("bitops", 120)
    options = ("--cost", "energy", "--target", "mult31", "--energy", "own.toml", "--exact-epochs", "2")
    config, output = invoke(monkeypatch, *base, *options)
    assert config is not None, output
    assert (config.cost, config.budget, config.target) == ("energy", None, "mult31")
    assert (config.energy, config.exact_epochs) == ("own.toml", 2)
    _, output = invoke(monkeypatch, *base, "--no-budget", "--budget", "3")
    assert output == "error: --budget and --no-budget exclude each other.\n"


def test_a_missing_data_folder_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dqtsim.cli.training._keep_memory", lambda: None)
    missing = tmp_path / "no"
    result = CliRunner().invoke(main, ["train", "resnet8", "--data", str(missing), "--out", str(tmp_path / "run")])
    assert (result.exit_code, result.output) == (
        2,
        f"error: the data must be a folder, but there is no folder at {missing}.\n",
    )
    assert not (tmp_path / "run").exists()

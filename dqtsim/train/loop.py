"""The training run: float, then nested with the whole network at each candidate, then with the controller."""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from dqtsim.errors import InputError
from dqtsim.train.config import RunDir, TrainConfig
from dqtsim.train.controller import Controller, sample
from dqtsim.train.data import Dataset, Split, augment, read_dataset
from dqtsim.train.evaluate import (
    choice_summary,
    evaluate_dynamic,
    evaluate_float,
    evaluate_uniform,
    float_pictures,
)
from dqtsim.train.float_resnet import CHANNELS, FloatResNet8
from dqtsim.train.loss import cost_loss, information, task_loss
from dqtsim.train.resnet import Codes, NestedResNet8, NestingRules, Uniform, float_activations

_CALIBRATION_PICTURES = 512
Step = Callable[[torch.Tensor, torch.Tensor], dict[str, float]]


def train(config: TrainConfig, *, resume: bool = False) -> RunDir:
    """Train ResNet-8 as `config` says into the folder `config.out`; `resume` continues after its last epoch."""
    config.check()
    run = RunDir(config.out)
    dataset = read_dataset(config.data)
    if config.pictures is not None:
        kept = Split(dataset.train.images[: config.pictures], dataset.train.labels[: config.pictures])
        dataset = dataclasses.replace(dataset, train=kept)
    if len(dataset.train) < config.batch_size:
        raise InputError(
            f"There must be at least one batch of {config.batch_size} training pictures, "
            f"but there are {len(dataset.train)}."
        )
    _prepare(run, config, resume)
    _Trainer(config, run, dataset).run()
    return run


def load_networks(run: RunDir, classes: int) -> tuple[FloatResNet8, NestedResNet8, Controller]:
    """The float network, the nested one and its controller as a finished run left them."""
    config = run.read_config()
    state = _load(run.checkpoint)
    if state["phase"] != "dynamic" or state["epoch"] != config.dynamic_epochs:
        raise InputError(
            f"A run must be finished, but {run.path} stopped after epoch {state['epoch']} of its "
            f"{state['phase']} phase."
        )
    source = FloatResNet8(classes)
    source.load_state_dict(_load(run.float_network))
    network, controller = _nested(source, config)
    network.load_state_dict(state["network"])
    controller.load_state_dict(state["controller"])
    return source.eval(), network.eval(), controller.eval()


def _prepare(run: RunDir, config: TrainConfig, resume: bool) -> None:
    if resume:
        previous = run.read_config()
        if dataclasses.replace(previous, data=config.data, out=config.out) != config:
            raise InputError(f"A run must resume with its own configuration, but {run.config} has another.")
        return
    if run.checkpoint.exists():
        raise InputError(f"A new run needs a folder without one, but {run.path} has a checkpoint.")
    run.path.mkdir(parents=True, exist_ok=True)
    run.config.write_text(config.to_json())


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"A run must have {path.name}, but {path.parent} has none.")
    return cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))


def _save(state: dict[str, Any], path: Path) -> None:
    """Write aside, then rename, so that a kill leaves either the old file or the new one."""
    aside = path.with_suffix(".tmp")
    torch.save(state, aside)
    aside.replace(path)


def _nested(source: FloatResNet8, config: TrainConfig) -> tuple[NestedResNet8, Controller]:
    rules = NestingRules(config.weight_rule, config.activation_rule, config.candidates)
    network = NestedResNet8(source, rules)
    return network, Controller(CHANNELS[0], len(network.layer_names), len(config.candidates))


def _channels_last(module: nn.Module) -> None:
    """The layout in which bfloat16 convolutions are fast on a CPU."""
    cast(Any, module).to(memory_format=torch.channels_last)


class _Phase:
    """One phase's optimizers and schedules, stepped together."""

    def __init__(self, optimizers: list[torch.optim.Optimizer], total: int, warm: float) -> None:
        self.optimizers = optimizers
        ramp = max(1, round(warm * total))

        def factor(step: int) -> float:
            """Linear up over the warm part, then half a cosine down to 0."""
            if step < ramp:
                return (step + 1) / (ramp + 1)
            return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, total - ramp)))

        self.schedules = [LambdaLR(optimizer, factor) for optimizer in optimizers]

    def zero(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()

    def _items(self) -> list[Any]:
        return [*self.optimizers, *self.schedules]

    def state(self) -> list[Any]:
        return [item.state_dict() for item in self._items()]

    def load(self, states: list[Any]) -> None:
        for item, state in zip(self._items(), states, strict=True):
            item.load_state_dict(state)


class _Trainer:
    def __init__(self, config: TrainConfig, run: RunDir, dataset: Dataset) -> None:
        self.config, self.run_dir, self.dataset = config, run, dataset
        self.batches = len(dataset.train) // config.batch_size
        self.generator = torch.Generator().manual_seed(config.seed)
        torch.manual_seed(config.seed)
        self.float_network = FloatResNet8(len(dataset.class_names))
        _channels_last(self.float_network)
        self.state: dict[str, Any] = _load(run.checkpoint) if run.checkpoint.exists() else {}

    def run(self) -> None:
        phase = self.state.get("phase", "float")
        if phase == "float" and not self.run_dir.float_network.exists():
            self._float_phase()
        self.float_network.load_state_dict(_load(self.run_dir.float_network))
        self.float_network.eval()
        # Seeded here too, so that a run that starts from a float network it did not train is the same run.
        torch.manual_seed(self.config.seed + 1)
        self.network, self.controller = _nested(self.float_network, self.config)
        _channels_last(self.network)
        if "network" in self.state:
            self.network.load_state_dict(self.state["network"])
            self.controller.load_state_dict(self.state["controller"])
        else:
            self.generator.manual_seed(self.config.seed + 1)
            pictures = float_pictures(self.dataset.train.images[:_CALIBRATION_PICTURES])
            with torch.no_grad():
                self.network.set_steps(float_activations(self.float_network, pictures))
        if phase != "dynamic":
            self._uniform_phase()
        self._dynamic_phase()

    def _float_phase(self) -> None:
        config, network = self.config, self.float_network
        optimizer = torch.optim.SGD(
            network.parameters(), config.float_rate, 0.9, weight_decay=config.weight_decay, nesterov=True
        )
        phase = _Phase([optimizer], config.float_epochs * self.batches, 0.2)

        def step(images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
            network.train()
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(float_pictures(images))
            loss = task_loss(logits.float(), labels, config.smoothing)
            torch.autograd.backward(loss)
            return {"loss": loss.item()}

        def report() -> dict[str, object]:
            return {"float": round(evaluate_float(network, self.dataset.test).accuracy, 4)}

        self._epochs("float", config.float_epochs, phase, step, report, {"float_network": network})
        _save(network.state_dict(), self.run_dir.float_network)

    def _nested_optimizers(self, rate: float, controller: bool) -> list[torch.optim.Optimizer]:
        steps: list[nn.Parameter] = []
        weights: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in self.network.named_parameters():
            group = steps if name.endswith("logarithm") else weights if name.endswith("weight") else others
            group.append(parameter)
        decayed: dict[str, Any] = {"params": weights, "weight_decay": self.config.nested_weight_decay}
        adaptive: list[dict[str, Any]] = [{"params": steps, "lr": self.config.step_rate}]
        if controller:
            adaptive.append({"params": list(self.controller.parameters()), "lr": self.config.controller_rate})
        return [
            torch.optim.SGD([decayed, {"params": others}], rate, 0.9, nesterov=True),
            torch.optim.Adam(adaptive, self.config.step_rate),
        ]

    def _uniform_phase(self) -> None:
        config = self.config
        phase = _Phase(self._nested_optimizers(config.nested_rate, False), config.uniform_epochs * self.batches, 0.1)

        def step(images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
            self.network.train()
            stem, leaf = self._stem(images)
            losses = self._consistency(leaf, labels)
            self._finish(stem, leaf)
            return losses

        self._epochs("uniform", config.uniform_epochs, phase, step, self._report, self._modules())

    def _dynamic_phase(self) -> None:
        config = self.config
        phase = _Phase(self._nested_optimizers(config.dynamic_rate, True), config.dynamic_epochs * self.batches, 0.1)
        if self.state.get("phase") != "dynamic":
            self.network.eval()
            pictures = self.dataset.train.images[:_CALIBRATION_PICTURES]
            with torch.no_grad():
                self.controller.calibrate(self.network.features(pictures, torch.float32))

        def step(images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
            self.network.train()
            stem, leaf = self._stem(images)
            logits = self.controller(leaf)
            mixed = sample(logits, config.temperature, self.generator)
            task = task_loss(self.network.head(leaf, mixed), labels, config.smoothing)
            cost = cost_loss(logits, config.candidates, config.budget)
            told = information(logits)
            loss = task + config.beta * cost - config.information * told
            torch.autograd.backward(loss)
            values = {"task": task.item(), "cost": cost.item(), "information": told.item()}
            values |= self._consistency(leaf, labels)
            self._finish(stem, leaf)
            return values

        def begin(epoch: int) -> None:
            self.network.freeze_norm(epoch >= config.dynamic_epochs - config.frozen_epochs)

        self._epochs("dynamic", config.dynamic_epochs, phase, step, self._report_dynamic, self._modules(), begin)

    def _modules(self) -> dict[str, nn.Module]:
        return {"network": self.network, "controller": self.controller}

    def _stem(self, images: torch.Tensor) -> tuple[Codes, Codes]:
        """The stem's codes, and a copy that gathers the gradients of all passes that start there."""
        stem = self.network.features(images, torch.bfloat16)
        leaf = Codes(stem.values.detach().requires_grad_(), stem.step.detach().requires_grad_(), stem.zero_point)
        return stem, leaf

    def _finish(self, stem: Codes, leaf: Codes) -> None:
        torch.autograd.backward([stem.values, stem.step], [leaf.values.grad, leaf.step.grad])
        weights = [p for name, p in self.network.named_parameters() if not name.endswith("logarithm")]
        nn.utils.clip_grad_norm_(weights, self.config.gradient_limit)

    def _consistency(self, leaf: Codes, labels: torch.Tensor) -> dict[str, float]:
        """J_consistency's backward passes, one candidate at a time."""
        losses = {}
        for k, (width_w, width_a) in enumerate(self.config.candidates):
            loss = task_loss(self.network.head(leaf, Uniform(k)), labels, self.config.smoothing)
            torch.autograd.backward(self.config.alpha * loss)
            losses[f"w{width_w}a{width_a}"] = loss.item()
        return losses

    def _report(self) -> dict[str, object]:
        test, found = self.dataset.test, cast(dict[str, object], {})
        for k, (width_w, width_a) in enumerate(self.config.candidates):
            found[f"w{width_w}a{width_a}"] = round(evaluate_uniform(self.network, test, k).accuracy, 4)
        return found

    def _report_dynamic(self) -> dict[str, object]:
        dynamic = evaluate_dynamic(self.network, self.controller, self.dataset.test)
        found = self._report() | {"dynamic": round(dynamic.accuracy, 4)}
        return found | choice_summary(dynamic.choices, self.config.candidates)

    def _order(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        train, size = self.dataset.train, self.config.batch_size
        order = torch.randperm(len(train), generator=self.generator)
        for batch in range(self.batches):
            index = order[batch * size : (batch + 1) * size]
            yield augment(train.images[index], self.generator), train.labels[index]

    def _epochs(
        self,
        name: str,
        epochs: int,
        phase: _Phase,
        step: Step,
        report: Callable[[], dict[str, object]],
        modules: dict[str, nn.Module],
        begin: Callable[[int], None] = lambda epoch: None,
    ) -> None:
        first = 0
        if self.state.get("phase") == name:
            first = self.state["epoch"]
            for key, module in modules.items():
                module.load_state_dict(self.state[key])
            phase.load(self.state["optimizers"])
            self.generator.set_state(self.state["generator"])
        for epoch in range(first, epochs):
            begin(epoch)
            started, sums = time.monotonic(), dict[str, float]()
            for batch, (images, labels) in enumerate(self._order()):
                phase.zero()
                values = step(images, labels)
                phase.step()
                sums = {key: sums.get(key, 0.0) + value for key, value in values.items()}
                _progress(f"{name} {epoch + 1}/{epochs}", batch + 1, self.batches, started)
            row: dict[str, object] = {"phase": name, "epoch": epoch + 1}
            row |= {f"loss_{key}": round(value / self.batches, 4) for key, value in sums.items()}
            row |= report()
            row["seconds"] = round(time.monotonic() - started, 1)
            self.state = {"phase": name, "epoch": epoch + 1, "optimizers": phase.state()}
            self.state |= {key: module.state_dict() for key, module in modules.items()}
            self.state["generator"] = self.generator.get_state()
            _save(self.state, self.run_dir.checkpoint)
            with self.run_dir.log.open("a") as log:
                log.write(json.dumps(row) + "\n")
            print(json.dumps(row), file=sys.stderr, flush=True)


def _progress(title: str, done: int, total: int, started: float) -> None:
    """One line on a terminal, rewritten in place; nothing where stderr is a file."""
    if sys.stderr.isatty():
        left = (time.monotonic() - started) / done * (total - done)
        end = "\r" if done < total else "\r\033[K"
        print(f"{title}  {done}/{total}  {left:.0f} s left in this epoch ", end=end, file=sys.stderr, flush=True)

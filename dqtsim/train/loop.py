"""The training run: float, then nested with the whole network at each pair of widths, then with the controller."""

import dataclasses
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, assert_never, cast

import torch
from torch import nn

from dqtsim.errors import InputError, OutputError
from dqtsim.outputs import write_file
from dqtsim.train import networks
from dqtsim.train.board import Board
from dqtsim.train.config import RunDir, TrainConfig
from dqtsim.train.controller import Controller, decide, mix, sample
from dqtsim.train.data import Dataset, read_dataset
from dqtsim.train.device import autocast, settled, sound_convolutions
from dqtsim.train.divergence import check_losses, check_parameters
from dqtsim.train.evaluate import choice_summary, evaluate_dynamic, evaluate_float, evaluate_uniform, float_pictures
from dqtsim.train.integer import set_exact
from dqtsim.train.loss import CostModel, information, task_loss
from dqtsim.train.modules.base import Codes, Mixed, Uniform
from dqtsim.train.network import NestedNetwork
from dqtsim.train.phases import Average, Phase, load_state, save_state
from dqtsim.train.pricing import cost_model
from dqtsim.train.rewrite import NestedConfig, prepare
from dqtsim.train.rules import Widths

# Arguments: pictures uint8, labels, and the share of the phase's steps that are done.
Step = Callable[[torch.Tensor, torch.Tensor, float], dict[str, float]]


def train(config: TrainConfig, *, resume: bool = False) -> RunDir:
    """Train as `config` says into the folder `config.out`; `resume` continues after its last epoch."""
    config.check()
    run = RunDir(config.out)
    config = settled(config, run.read_config() if resume else None)
    dataset = read_dataset(config.data, config.size)
    dataset = dataclasses.replace(dataset, train=dataset.train.first(config.pictures))
    if len(dataset.train) < config.batch_size:
        raise InputError(
            f"There must be at least one batch of {config.batch_size} training pictures, "
            f"but there are {len(dataset.train)}."
        )
    # Before anything is written: the target may not fit, or the budget may be too small for the network.
    cost = _cost(config, dataset)
    _prepare(run, config, resume)
    board = Board(run.path, len(run.epochs()))
    try:
        with sound_convolutions(config):
            _Trainer(config, run, dataset, board, cost).run()
    finally:
        board.close()
    return run


def load_networks(run: RunDir, dataset: Dataset) -> tuple[nn.Module, NestedNetwork, Controller | None]:
    """The float network, the nested one and its controller (None without dynamic epochs) of a finished run."""
    config = run.read_config()
    state = load_state(run.checkpoint)
    phase, epochs = ("dynamic", config.dynamic_epochs) if config.dynamic_epochs else ("uniform", config.uniform_epochs)
    if state["phase"] != phase or state["epoch"] != epochs:
        raise InputError(
            f"A run must be finished, but {run.path} stopped after epoch {state['epoch']} of its "
            f"{state['phase']} phase."
        )
    source = _load_float(run, config, dataset)
    network = prepare(source, NestedConfig(config.rules, dataset.shape))
    controller = network.new_controller()
    states = state["average"] or state
    network.load_state_dict(states["network"])
    if not config.dynamic_epochs:
        return source, network.eval(), None
    controller.load_state_dict(states["controller"])
    return source, network.eval(), controller.eval()


def _cost(config: TrainConfig, dataset: Dataset) -> CostModel:
    """J_cost for `config`; it depends only on shapes, so an untrained network is enough."""
    source = networks.build(config.network, len(dataset.class_names), config.width)
    return cost_model(prepare(source, NestedConfig(config.rules, dataset.shape)), config)


def _load_float(run: RunDir, config: TrainConfig, dataset: Dataset) -> nn.Module:
    source = networks.build(config.network, len(dataset.class_names), config.width)
    state = load_state(run.float_network)
    described = (state.get("network"), state.get("width"))
    if described != (config.network, config.width) or "state" not in state:
        raise InputError(
            f"float.pt must hold network {config.network} of width {config.width}, but {run.float_network} says "
            f"{described[0]} of width {described[1]}."
        )
    source.load_state_dict(state["state"])
    return source.eval()


def _prepare(run: RunDir, config: TrainConfig, resume: bool) -> None:
    if resume:
        run.require_config(config)
        return
    if run.checkpoint.exists():
        raise InputError(f"A new run needs a folder without one, but {run.path} has a checkpoint.")
    _refuse_foreign(run)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"'{run.path}' cannot be made a folder: {str(error.strerror).lower()}.") from None
    with write_file(run.config) as aside:
        aside.write_text(config.to_json())


def _refuse_foreign(run: RunDir) -> None:
    """Raise OutputError if the folder has files with the names of a run's files that no run has written."""
    try:
        run.read_config()
    except InputError:  # there is none
        foreign = [path for path in (run.config, run.log, run.table) if os.path.lexists(path)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        foreign = [run.config]
    else:
        foreign = []
    if foreign:
        raise OutputError(f"A new run would write '{foreign[0]}', but there is one that is of no run.")


def _place(module: nn.Module, device: torch.device) -> None:
    """Move `module` to its device, in the memory layout that is fastest for convolutions."""
    cast(Any, module).to(device=device, memory_format=torch.channels_last)


class _Trainer:
    def __init__(self, config: TrainConfig, run: RunDir, dataset: Dataset, board: Board, cost: CostModel) -> None:
        self.config, self.run_dir, self.dataset, self.board, self.cost = config, run, dataset, board, cost
        self.batches = len(dataset.train) // config.batch_size
        # On the CPU for every device, so that a seed means the same.
        self.generator = torch.Generator().manual_seed(config.seed)
        self.settled = False
        self.device = torch.device(config.device)
        self.dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
        self.state: dict[str, Any] = load_state(run.checkpoint) if run.checkpoint.exists() else {}

    def run(self) -> None:
        phase = self.state.get("phase", "float")
        if phase == "float" and not self.run_dir.float_network.exists():
            self._float_phase()
        self.float_network = _load_float(self.run_dir, self.config, self.dataset)
        # Seeded here too, so that a run gives the same whether it trained its float network or was given it.
        torch.manual_seed(self.config.seed + 1)
        self.network = prepare(self.float_network, NestedConfig(self.config.rules, self.dataset.shape))
        self.controller = self.network.new_controller()
        for module in (self.float_network, self.network, self.controller):
            _place(module, self.device)
        if "network" in self.state:
            self.network.load_state_dict(self.state["network"])
            self.controller.load_state_dict(self.state["controller"])
        else:
            self.generator.manual_seed(self.config.seed + 1)
            self.network.set_steps(self.dataset.train.calibration())
        if phase == "float" and self.config.dynamic_epochs and self.run_dir.uniform_network.exists():
            self._load_uniform()
        elif phase != "dynamic" and self.config.uniform_epochs:
            self._uniform_phase()
        if self.config.dynamic_epochs:
            self._dynamic_phase()

    def _float_phase(self) -> None:
        config = self.config
        torch.manual_seed(config.seed)
        network = networks.build(config.network, len(self.dataset.class_names), config.width)
        _place(network, self.device)
        optimizer = torch.optim.SGD(
            network.parameters(), config.float_rate, 0.9, weight_decay=config.weight_decay, nesterov=True
        )
        phase = Phase([optimizer], config.float_epochs * self.batches, 0.2)

        def step(images: torch.Tensor, labels: torch.Tensor, done: float) -> dict[str, float]:
            network.train()
            with autocast(self.device, self.dtype):
                logits = network(float_pictures(images))
            loss = task_loss(logits.float(), labels, config.smoothing)
            torch.autograd.backward(loss)
            return {"loss": loss.item()}

        def report() -> dict[str, object]:
            return {"float": round(evaluate_float(network, self.dataset.test).accuracy, 4)}

        self._epochs("float", config.float_epochs, phase, step, report, {"float_network": network})
        described = {"network": config.network, "width": config.width, "state": network.state_dict()}
        save_state(described, self.run_dir.float_network)

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
        phase = Phase(self._nested_optimizers(config.nested_rate, False), config.uniform_epochs * self.batches, 0.1)

        def step(images: torch.Tensor, labels: torch.Tensor, done: float) -> dict[str, float]:
            self.network.train()
            stem, leaf = self._stem(images)
            losses, _ = self._consistency(leaf, labels, self._teach(images))
            self._finish(stem, leaf)
            return losses

        self._epochs("uniform", config.uniform_epochs, phase, step, self._report, self._modules())
        save_state({"rules": repr(config.rules), "state": self.network.state_dict()}, self.run_dir.uniform_network)

    def _load_uniform(self) -> None:
        """Load the network from the end of another run's uniform phase; this run has only the dynamic phase."""
        state, path = load_state(self.run_dir.uniform_network), self.run_dir.uniform_network
        if state.get("rules") != repr(self.config.rules):
            raise InputError(
                f"uniform.pt must hold a network of {self.config.rules}, but {path} says {state.get('rules')}."
            )
        self.network.load_state_dict(state["state"])

    def _dynamic_phase(self) -> None:
        config = self.config
        phase = Phase(self._nested_optimizers(config.dynamic_rate, True), config.dynamic_epochs * self.batches, 0.1)
        if self.state.get("phase") != "dynamic":
            # Seeded here too, so that a run that starts from a uniform.pt gives the same as the run that made it.
            self.generator.manual_seed(config.seed + 2)
            self.network.eval()
            with torch.no_grad():
                self.controller.calibrate(self.network.features(self.dataset.train.calibration(), torch.float32))

        def step(images: torch.Tensor, labels: torch.Tensor, done: float) -> dict[str, float]:
            self.network.train()
            stem, leaf = self._stem(images)
            values, teacher = self._consistency(leaf, labels, self._teach(images))
            with torch.set_grad_enabled(not self.settled):
                logits = self.controller(leaf)
            policy = decide(logits) if self.settled else self._mixed(logits, done)
            task = self._loss(self.network.head(leaf, policy), labels, teacher)
            cost, told = self.cost.loss(logits), information(logits)
            loss = task if self.settled else task + config.beta * cost - config.information * told
            torch.autograd.backward(loss)
            values |= {"task": task.item(), "cost": cost.item(), "information": told.item()}
            self._finish(stem, leaf)
            return values

        def begin(epoch: int) -> None:
            self.network.freeze_norm(epoch >= config.dynamic_epochs - config.frozen_epochs)
            self.settled = epoch >= config.dynamic_epochs - config.settled_epochs

        self._epochs("dynamic", config.dynamic_epochs, phase, step, self._report_dynamic, self._modules(), begin)

    def _mixed(self, logits: torch.Tensor, done: float) -> Mixed:
        """The choices in training for the controller's logits, after the share `done` of the steps."""
        config = self.config
        match config.relaxation:
            case "softmax":
                return mix(logits)
            case "gumbel":
                last = config.final_temperature or config.temperature
                return sample(logits, config.temperature * (last / config.temperature) ** done, self.generator)
            case _:
                assert_never(config.relaxation)

    def _teach(self, images: torch.Tensor) -> torch.Tensor | None:
        """The float network's logits, if it is the teacher."""
        if not self.config.distill:
            return None
        match self.config.teacher:
            case "master":
                return None
            case "float":
                with torch.no_grad(), autocast(self.device, self.dtype):
                    logits: torch.Tensor = self.float_network(float_pictures(images))
                return logits.float()
            case _:
                assert_never(self.config.teacher)

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
        return task_loss(logits, labels, self.config.smoothing, teacher, self.config.distill)

    def _modules(self) -> dict[str, nn.Module]:
        return {"network": self.network, "controller": self.controller}

    def _stem(self, images: torch.Tensor) -> tuple[Codes, Codes]:
        """The stem's codes, and a copy that collects the gradients of all passes that start there."""
        stem = self.network.features(images, self.dtype)
        leaf = Codes(stem.values.detach().requires_grad_(), stem.step.detach().requires_grad_(), stem.zero_point)
        return stem, leaf

    def _finish(self, stem: Codes, leaf: Codes) -> None:
        torch.autograd.backward([stem.values, stem.step], [leaf.values.grad, leaf.step.grad])
        weights = [p for name, p in self.network.named_parameters() if not name.endswith("logarithm")]
        nn.utils.clip_grad_norm_(weights, self.config.gradient_limit)

    def _step_pairs(self) -> list[tuple[Widths, float]]:
        """The pairs of K' that this step takes, widest first, and their weights, which add up to those of all pairs."""
        widest, *others = sorted(self.config.uniform_pairs, reverse=True)
        count = self.config.pairs_per_step
        if count is None or not others:
            return [(widest, 1.0), *((pair, 1.0) for pair in others)]
        drawn = torch.randperm(len(others), generator=self.generator)[: count - 1].tolist()
        return [(widest, 1.0), *((others[i], len(others) / (count - 1)) for i in drawn)]

    def _consistency(
        self, leaf: Codes, labels: torch.Tensor, teacher: torch.Tensor | None
    ) -> tuple[dict[str, float], torch.Tensor | None]:
        """J_consistency's backward passes, one pair at a time; returns the teacher for the rest of the step.

        If alpha is 0, the passes only serve batch norm's statistics.
        """
        losses, config = {}, self.config
        with torch.set_grad_enabled(config.alpha > 0):
            for pair, weight in self._step_pairs():
                policy = Uniform(self.network.rules.pairs.index(pair))
                logits = self.network.head(leaf, policy)
                loss = self._loss(logits, labels, teacher)
                if config.alpha > 0:
                    torch.autograd.backward(config.alpha * weight * loss)
                losses[f"w{pair[0]}a{pair[1]}"] = loss.item()
                if teacher is None and config.distill:
                    teacher = logits.detach()
        return losses, teacher

    def _report(self) -> dict[str, object]:
        test, found = self.dataset.test, cast(dict[str, object], {})
        for k, (width_w, width_a) in enumerate(self.network.rules.pairs):
            found[f"w{width_w}a{width_a}"] = round(evaluate_uniform(self.network, test, k).accuracy, 4)
        return found

    def _report_dynamic(self) -> dict[str, object]:
        dynamic = evaluate_dynamic(self.network, self.controller, self.dataset.test)
        found = self._report() | {"dynamic": round(dynamic.accuracy, 4)}
        return found | choice_summary(dynamic.choices, self.config.candidates)

    def _order(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in self.dataset.train.batches(self.config.batch_size, self.generator):
            yield images.to(self.device), labels.to(self.device)

    def _integer_exact(self, phase: str, epoch: int) -> None:
        """Turn integer-exact mode on for the last epochs of the run, and off for all others."""
        config = self.config
        last, epochs = (
            ("dynamic", config.dynamic_epochs) if config.dynamic_epochs else ("uniform", config.uniform_epochs)
        )
        if phase != "float":
            for module in (self.network, self.controller):
                set_exact(module, phase == last and epoch >= epochs - config.exact_epochs)

    def _epochs(
        self,
        name: str,
        epochs: int,
        phase: Phase,
        step: Step,
        report: Callable[[], dict[str, object]],
        modules: dict[str, nn.Module],
        begin: Callable[[int], None] = lambda epoch: None,
    ) -> None:
        """Train `modules` for the remaining epochs; at the end they have their averages, if averages are kept."""
        first = 0
        average = Average(modules, self.config.ema)
        if self.state.get("phase") == name:
            first = self.state["epoch"]
            for key, module in modules.items():
                module.load_state_dict(self.state[key])
            phase.load(self.state["optimizers"])
            self.generator.set_state(self.state["generator"])
            average.load(self.state["average"])
        for epoch in range(first, epochs):
            begin(epoch)
            self._integer_exact(name, epoch)
            started, sums, counts = time.monotonic(), dict[str, float](), Counter[str]()
            for batch, (images, labels) in enumerate(self._order()):
                phase.zero()
                values = step(images, labels, (epoch + batch / self.batches) / epochs)
                place = f"step {batch + 1} of {self.batches} of epoch {epoch + 1} of {epochs} ({name})"
                check_losses(name, values, place)
                phase.step()
                average.update()
                for key, value in values.items():
                    sums[key] = sums.get(key, 0.0) + value
                counts.update(values.keys())
                _progress(f"{name} {epoch + 1}/{epochs}", batch + 1, self.batches, started)
            check_parameters(name, modules, place)
            row: dict[str, object] = {"phase": name, "epoch": epoch + 1}
            row |= {f"loss_{key}": round(value / counts[key], 4) for key, value in sums.items()}
            if epoch + 1 == epochs or (epoch + 1) % self.config.evaluate_every == 0:
                with average.applied():
                    row |= report()
            row["seconds"] = round(time.monotonic() - started, 1)
            self.state = {"phase": name, "epoch": epoch + 1, "optimizers": phase.state(), "average": average.states}
            self.state |= {key: module.state_dict() for key, module in modules.items()}
            self.state["generator"] = self.generator.get_state()
            save_state(self.state, self.run_dir.checkpoint)
            # Before the log, so that a kill in between leaves points that the next start withdraws.
            self.board.add(row)
            with self.run_dir.log.open("a") as log:
                log.write(json.dumps(row) + "\n")
            self.run_dir.write_table()
            print(json.dumps(row), file=sys.stderr, flush=True)
        average.keep()


def _progress(title: str, done: int, total: int, started: float) -> None:
    """One line on a terminal, rewritten in place; nothing where stderr is a file."""
    if sys.stderr.isatty():
        left = (time.monotonic() - started) / done * (total - done)
        end = "\r" if done < total else "\r\033[K"
        print(f"{title}  {done}/{total}  {left:.0f} s left in this epoch ", end=end, file=sys.stderr, flush=True)

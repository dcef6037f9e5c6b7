"""What a training run is asked to do, and the folder that it leaves."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from dqtsim.errors import InputError
from dqtsim.train.rules import ACTIVATION_RULES, MASTER_WIDTH, WEIGHT_RULES, ActivationRule, WeightRule


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run's result, besides the number of threads."""

    data: Path
    out: Path
    seed: int = 0
    float_epochs: int = 28
    uniform_epochs: int = 8
    dynamic_epochs: int = 7
    # Of the dynamic epochs, the last ones with batch norm at its running statistics, as inference has it.
    frozen_epochs: int = 2
    batch_size: int = 256
    float_rate: float = 0.3
    nested_rate: float = 0.03
    dynamic_rate: float = 0.015
    step_rate: float = 2e-3
    controller_rate: float = 2e-3
    weight_decay: float = 5e-4
    nested_weight_decay: float = 1e-4
    smoothing: float = 0.05
    gradient_limit: float = 2.0
    weight_rule: WeightRule = "MIDPOINT"
    activation_rule: ActivationRule = "TIES_UP"
    candidates: tuple[tuple[int, int], ...] = ((2, 2), (4, 4), (8, 8))
    alpha: float = 0.5
    beta: float = 0.2
    budget: float | None = 3.75
    information: float = 0.1
    temperature: float = 1.0
    pictures: int | None = None

    def check(self) -> None:
        """Refuse values that no run can use."""
        if self.weight_rule not in WEIGHT_RULES:
            raise InputError(f"weight_rule must be one of {', '.join(WEIGHT_RULES)}, but is {self.weight_rule}.")
        if self.activation_rule not in ACTIVATION_RULES:
            raise InputError(
                f"activation_rule must be one of {', '.join(ACTIVATION_RULES)}, but is {self.activation_rule}."
            )
        for pair in self.candidates:
            if len(pair) != 2 or not all(1 <= width <= MASTER_WIDTH for width in pair):
                raise InputError(f"A candidate must be two widths from 1 to {MASTER_WIDTH}, but one is {pair}.")
        if not self.candidates or len(set(self.candidates)) != len(self.candidates):
            raise InputError(f"Candidates must be distinct and at least one, but are {self.candidates}.")
        for name in ("float_epochs", "uniform_epochs", "dynamic_epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, but is {getattr(self, name)}.")
        if not 0 <= self.frozen_epochs <= self.dynamic_epochs:
            raise InputError(
                f"frozen_epochs must be from 0 to dynamic_epochs, {self.dynamic_epochs}, but is {self.frozen_epochs}."
            )

    def to_json(self) -> str:
        """The configuration as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n"

    @staticmethod
    def from_json(text: str) -> "TrainConfig":
        """The configuration that `to_json` wrote."""
        values = json.loads(text)
        values["data"], values["out"] = Path(values["data"]), Path(values["out"])
        values["candidates"] = tuple(tuple(pair) for pair in values["candidates"])
        return TrainConfig(**values)


@dataclass(frozen=True)
class RunDir:
    """The folder of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration, JSON."""
        return self.path / "config.json"

    @property
    def float_network(self) -> Path:
        """State of the float network at the end of its phase."""
        return self.path / "float.pt"

    @property
    def checkpoint(self) -> Path:
        """State after the last whole epoch, with everything that resuming needs."""
        return self.path / "checkpoint.pt"

    @property
    def log(self) -> Path:
        """One JSON object per epoch."""
        return self.path / "log.jsonl"

    def read_config(self) -> TrainConfig:
        """The run's configuration."""
        if not self.config.is_file():
            raise InputError(f"A run must be a folder with config.json, but {self.path} has none.")
        return TrainConfig.from_json(self.config.read_text())

    def epochs(self) -> list[dict[str, object]]:
        """The log's rows, oldest first."""
        if not self.log.is_file():
            return []
        return [cast(dict[str, object], json.loads(line)) for line in self.log.read_text().splitlines()]

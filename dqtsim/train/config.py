"""What a training run is asked to do, and the folder that it leaves."""

import csv
import dataclasses
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from dqtsim.errors import InputError
from dqtsim.train.rules import NETWORK_NAMES, ActivationRule, NestingRules, WeightRule, Widths, check_pairs

Cost = Literal["bits", "bitops"]
Relaxation = Literal["gumbel", "softmax"]
Precision = Literal["auto", "float32", "bfloat16"]
COSTS: tuple[Cost, ...] = get_args(Cost)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
RELAXATIONS: tuple[Relaxation, ...] = get_args(Relaxation)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run's result, besides the number of threads."""

    data: Path
    out: Path
    network: str = "resnet8"
    # A factor on the network's channel counts.
    width: float = 1.0
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
    # What the controller chooses from.
    candidates: tuple[Widths, ...] = ((2, 2), (4, 4), (8, 8))
    # K' of eq. 11; None is the candidates. Pairs that are no candidates are allowed.
    consistency: tuple[Widths, ...] | None = None
    # One row of batch norm statistics for all widths instead of one per width.
    shared_norm: bool = False
    alpha: float = 0.5
    beta: float = 0.2
    cost: Cost = "bits"
    # Average width with cost bits, millions of BitOPs per picture with cost bitops.
    budget: float | None = 3.75
    information: float = 0.1
    relaxation: Relaxation = "gumbel"
    temperature: float = 1.0
    # What the temperature falls to, geometrically, over the dynamic epochs.
    final_temperature: float | None = None
    # Share of the float network's predictions in the targets.
    distill: float = 0.0
    # Decay of the running average of parameters that is evaluated and exported; 0 is none.
    ema: float = 0.0
    pictures: int | None = None
    # What convolutions compute in; codes are integers that both hold exactly. "auto" is settled when a run begins.
    precision: Precision = "auto"

    @property
    def rules(self) -> NestingRules:
        """The nested network's rules."""
        extra = self.consistency or ()
        return NestingRules(self.weight_rule, self.activation_rule, self.candidates, extra, self.shared_norm)

    @property
    def uniform_pairs(self) -> tuple[Widths, ...]:
        """K' of eq. 11."""
        return self.consistency or self.candidates

    def check(self) -> None:
        """Refuse values that no run can use."""
        if self.consistency is not None:
            check_pairs(self.consistency, "Consistency pairs")
        self.rules.check()
        for name, allowed in (
            ("network", NETWORK_NAMES),
            ("cost", COSTS),
            ("relaxation", RELAXATIONS),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, but is {getattr(self, name)}.")
        for name in ("float_epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, but is {getattr(self, name)}.")
        for name in ("uniform_epochs", "dynamic_epochs", "alpha", "beta"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be at least 0, but is {getattr(self, name)}.")
        for name in ("temperature", "final_temperature", "width", "budget"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, but is {getattr(self, name)}.")
        for name, most in (("distill", 1.0), ("ema", 0.99999)):
            if not 0 <= getattr(self, name) <= most:
                raise InputError(f"{name} must be from 0 to {most}, but is {getattr(self, name)}.")
        if self.dynamic_epochs and not 0 <= self.frozen_epochs <= self.dynamic_epochs:
            raise InputError(
                f"frozen_epochs must be from 0 to dynamic_epochs, {self.dynamic_epochs}, but is {self.frozen_epochs}."
            )
        if self.uniform_epochs and not self.alpha:
            raise InputError(
                "uniform_epochs must be 0 where alpha is 0, because they train the consistency term alone."
            )
        if not self.uniform_epochs and not self.dynamic_epochs:
            raise InputError("A run must have uniform or dynamic epochs, but has neither.")

    def to_json(self) -> str:
        """The configuration as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n"

    @staticmethod
    def from_json(text: str) -> "TrainConfig":
        """The configuration that `to_json` wrote."""
        values = json.loads(text)
        values["data"], values["out"] = Path(values["data"]), Path(values["out"])
        for name in ("candidates", "consistency"):
            if values.get(name) is not None:
                values[name] = tuple(tuple(pair) for pair in values[name])
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

    @property
    def table(self) -> Path:
        """The log as CSV, one line per epoch; columns that a phase has not are empty."""
        return self.path / "log.csv"

    def write_table(self) -> None:
        """Write the log as CSV."""
        rows = self.epochs()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
        self.table.write_text(text.getvalue())

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

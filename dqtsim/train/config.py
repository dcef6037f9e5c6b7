"""The settings of a training run, and its folder."""

import csv
import dataclasses
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from dqtsim import limits
from dqtsim.errors import InputError
from dqtsim.outputs import write_file
from dqtsim.train.rules import NETWORK_NAMES, ActivationRule, NestingRules, WeightRule, Widths, check_pairs

Cost = Literal["bits", "bitops", "energy", "cycles"]
Relaxation = Literal["gumbel", "softmax"]
Precision = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]
Teacher = Literal["float", "master"]
COSTS: tuple[Cost, ...] = get_args(Cost)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DEVICES: tuple[Device, ...] = get_args(Device)
TEACHERS: tuple[Teacher, ...] = get_args(Teacher)
RELAXATIONS: tuple[Relaxation, ...] = get_args(Relaxation)
_NAMES: dict[str, tuple[str, ...]] = {
    "network": NETWORK_NAMES,
    "cost": COSTS,
    "relaxation": RELAXATIONS,
    "precision": PRECISIONS,
    "device": DEVICES,
    "teacher": TEACHERS,
}


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
    # The number of last dynamic epochs in which batch norm uses its running statistics, as in inference.
    frozen_epochs: int = 2
    # The number of last dynamic epochs in which the controller is frozen and chooses as in inference.
    settled_epochs: int = 0
    # The number of last epochs (dynamic, or uniform if there are none) with the forward values of the exported model.
    exact_epochs: int = 0
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
    # The pairs among which the controller chooses.
    candidates: tuple[Widths, ...] = ((2, 2), (4, 4), (8, 8))
    # K' of eq. 11; None is the candidates. Pairs that are no candidates are allowed.
    consistency: tuple[Widths, ...] | None = None
    # How many pairs of K' a step takes: the widest, and others drawn at random, with larger weights. None is all.
    pairs_per_step: int | None = None
    # One row of batch norm statistics for all widths instead of one per width.
    shared_norm: bool = False
    alpha: float = 0.5
    beta: float = 0.2
    cost: Cost = "bits"
    # Average width with cost bits; per picture MBitOPs with bitops, uJ with energy, cycles with cycles.
    budget: float | None = 3.75
    # The target and the energy table with which energy and cycles are counted: names, or TOML files.
    target: str = "default"
    energy: str = "horowitz-45nm"
    information: float = 0.1
    relaxation: Relaxation = "gumbel"
    temperature: float = 1.0
    # The temperature falls geometrically to this value over the dynamic epochs.
    final_temperature: float | None = None
    # Share of the predictions of the float network, or of the same step's widest pair, in the targets.
    distill: float = 0.0
    teacher: Teacher = "float"
    # Decay of the running average of parameters that is evaluated and exported; 0 is none.
    ema: float = 0.0
    pictures: int | None = None
    # Accuracies are measured every this many epochs of a phase, and after its last.
    evaluate_every: int = 1
    # Rows and columns to which pictures of an image folder are brought when needed; None reads them all at once, as is.
    size: int | None = None
    # The dtype of convolutions; both hold codes exactly. "auto" is decided when a run begins.
    precision: Precision = "auto"
    # The device; "auto" is a GPU if there is one, decided when a run begins, too.
    device: Device = "auto"

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
        """Refuse values with which no run is possible."""
        if self.consistency is not None:
            check_pairs(self.consistency, "Consistency pairs")
        self.rules.check()
        for name, allowed in _NAMES.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, but is {getattr(self, name)}.")
        for name in ("float_epochs", "batch_size", "size", "evaluate_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
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
        if not 0 <= self.settled_epochs <= self.dynamic_epochs:
            raise InputError(
                f"settled_epochs must be from 0 to dynamic_epochs, {self.dynamic_epochs}, but is {self.settled_epochs}."
            )
        least = min(2, len(self.uniform_pairs))
        if self.pairs_per_step is not None and not least <= self.pairs_per_step <= len(self.uniform_pairs):
            raise InputError(
                f"pairs_per_step must be from {least} to the number of consistency pairs, {len(self.uniform_pairs)}, "
                f"but is {self.pairs_per_step}."
            )
        last = "dynamic_epochs" if self.dynamic_epochs else "uniform_epochs"
        if not 0 <= self.exact_epochs <= getattr(self, last):
            raise InputError(
                f"exact_epochs must be from 0 to {last}, {getattr(self, last)}, but is {self.exact_epochs}."
            )
        if self.exact_epochs and self.relaxation == "softmax":
            raise InputError(
                "exact_epochs must be 0 where relaxation is softmax, whose mixed branches no integers compute."
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
        # Runs older than the option were on the CPU.
        return TrainConfig(**{"device": "cpu"} | values)


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
    def uniform_network(self) -> Path:
        """State of the nested network at the end of the uniform phase."""
        return self.path / "uniform.pt"

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
        """The log as CSV, one line per epoch; columns that a phase does not have are empty."""
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
        with write_file(self.table) as aside:
            aside.write_text(text.getvalue())

    def read_config(self) -> TrainConfig:
        """The run's configuration."""
        if not self.config.is_file():
            raise InputError(f"A run must be a folder with config.json, but {self.path} has none.")
        return TrainConfig.from_json(limits.read_text(self.config))

    def require_config(self, config: TrainConfig) -> None:
        """Refuse a configuration that differs from the run's, except in the places of data and folder."""
        asked, own = (dataclasses.asdict(each) for each in (config, self.read_config()))
        other = [name for name in own if own[name] != asked[name] and name not in ("data", "out")]
        if other:
            raise InputError(
                f"A run must resume with its own configuration, but {self.config} has "
                f"{', '.join(f'{name} {own[name]} instead of {asked[name]}' for name in other)}."
            )

    def epochs(self) -> list[dict[str, object]]:
        """The log's rows, oldest first."""
        if not self.log.is_file():
            return []
        return [
            cast(dict[str, object], json.loads(line))
            for line in limits.read_text(self.log, limits.LOG_BYTES).splitlines()
        ]

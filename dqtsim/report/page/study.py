"""The subject of a report: one model at several settings of its widths, counted, and run over pictures if given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...counting.distribution import Distribution
from ...energy import EnergyTable
from ...engines.registry import check_codes, run
from ...errors import InputError
from ...graph.model import Graph
from ...graph.results import require_scores
from ...inputs.dataset import Split
from ...planner import Plan, plan
from ...target import Target
from ...widths import apply_bits, carried_policy

OWN, PLAN, UNIFORM = "own", "plan", "uniform"
WIDTHS = (8, 6, 5, 4, 3, 2)
_Z = 1.959964  # of the 95 % interval


@dataclass
class Measured:
    """One setting: its name, its cost, and the class of every picture."""

    name: str
    kind: str
    found: Distribution
    classes: list[int] = field(default_factory=list)
    width: int | None = None

    @property
    def plan(self) -> Plan:
        """Return the plan that ran."""
        return self.found.plan

    def right(self, labels: Sequence[int]) -> int:
        """Return how many pictures were classified right."""
        return sum(found == label for found, label in zip(self.classes, labels, strict=True))


@dataclass
class Study:
    """The model at its own widths, first, and the settings that it is compared with."""

    graph: Graph
    target: Target
    energy: EnergyTable
    records: list[Measured]
    split: Split | None = None

    @property
    def own(self) -> Measured:
        """Return the record of the model at the widths of its file."""
        return self.records[0]

    @property
    def uniform(self) -> list[Measured]:
        """Return the records of one width for every layer that is not pinned, widest first."""
        return [record for record in self.records if record.kind == UNIFORM]

    def class_name(self, index: int) -> str:
        """Return the name of a class: the model's, else the data set's, else its number."""
        names = self.graph.class_names or (self.split.class_names if self.split else ())
        return names[index] if 0 <= index < len(names) else str(index)

    @property
    def labels(self) -> list[int]:
        """Return the classes of the pictures."""
        return [] if self.split is None else [int(label) for label in self.split.labels]


def prepare(graph: Graph, target: Target, energy: EnergyTable, plans: Sequence[Path] = ()) -> Study:
    """Return the study of a model without pictures: every setting compiled, none run.

    Raises InputError for a file that is not a plan or a model without nested layers, WidthError for wrong widths.
    """
    for path in plans:
        if path.suffix not in (".json", ".toml"):
            raise InputError(f"--plan takes a .json or .toml plan file; found '{path}'.")
    if not graph.layers:
        raise InputError(f"a report is about nested layers; model '{graph.name}' has none.")
    n = graph.arithmetic.master_width
    widths = sorted({n, *(width for width in WIDTHS if width <= n)}, reverse=True)
    # two files of one name are distinguished by their folders
    names = [path.stem for path in plans]
    labels = [str(path) if names.count(path.stem) > 1 else path.stem for path in plans]
    kinds = [
        (carried_policy(graph), OWN, None, None),
        *((f"{width} bits", UNIFORM, str(width), width) for width in widths),
        *((label, PLAN, str(path), None) for label, path in zip(labels, plans, strict=True)),
    ]
    records = []
    for name, kind, spec, width in kinds:
        chosen, _ = apply_bits(graph, spec)
        records.append(Measured(name, kind, Distribution(plan(chosen, target), energy), width=width))
    return Study(graph, target, energy, records)


def count_widest(study: Study) -> None:
    """Count every setting once without a picture: static widths as they are, a controller at its widest choice."""
    for record in study.records:
        record.found.add(tuple(record.plan.widest().values()))


def check_pictures(study: Study, split: Split) -> None:
    """Raise InputError unless the model can classify the pictures."""
    require_scores(study.graph)
    check_codes(study.own.plan, split.images)


def run_over(study: Study, split: Split, threads: int, done: Callable[[], None]) -> None:
    """Run every setting over the pictures; `done` counts one picture of one setting."""
    study.split = split
    for record in study.records:
        for result in run(record.plan, split.images, threads=threads):
            record.found.add(result.bits)
            record.classes.append(-1 if result.class_index is None else result.class_index)
            done()


def interval(right: int, pictures: int) -> tuple[float, float]:
    """Return the 95 % interval of Wilson for a share of right answers."""
    share, z2 = right / pictures, _Z * _Z
    middle = share + z2 / (2 * pictures)
    half = _Z * (share * (1 - share) / pictures + z2 / (4 * pictures * pictures)) ** 0.5
    scale = 1 + z2 / pictures
    return (middle - half) / scale, (middle + half) / scale

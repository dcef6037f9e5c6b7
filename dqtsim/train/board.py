"""TensorBoard's event files of a run: what the log has, as one point per number and epoch."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def scalars(row: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    """The numbers of a row of the log by tag: columns that are text are left out, lists have a tag per element."""
    for name, value in row.items():
        if isinstance(value, list):
            yield from scalars({f"{name}/{i}": part for i, part in enumerate(value)})
        elif isinstance(value, int | float):
            yield name, float(value)


class Board:
    """Writes rows of the log into the folder of a run; `rows` are already there, and a point's step is its row.

    Points of later steps, from a run that was killed before it logged them, are withdrawn. Without the package
    tensorboard nothing is written, and one sentence on stderr says so.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self.rows = rows
        self.writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            print(
                "TensorBoard's files are not written, because they need the package tensorboard; "
                'install it with pip install "dqtsim[train]".',
                file=sys.stderr,
            )
            return
        self.writer = SummaryWriter(str(folder), purge_step=rows + 1)

    def add(self, row: Mapping[str, object]) -> None:
        """Write one row of the log; it is in the file when this returns."""
        self.rows += 1
        if self.writer is None:
            return
        for tag, value in scalars(row):
            self.writer.add_scalar(tag, value, self.rows)
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()

"""The nodes between a controller's logits and `bits` (B8), as the builder makes them; widths.py proves them."""

from collections.abc import Sequence

import numpy as np

from ..errors import ModelError
from .model import BITS, PINNED_BITS, Array, Node, Widths


def decide(
    logits: str,
    entries: int,
    layers: Sequence[str],
    chosen: Sequence[str],
    pinned: Sequence[str],
    candidates: Sequence[Widths],
) -> tuple[list[Node], dict[str, Array]]:
    """Return nodes and tables: argmax over candidates, then rows in the order of `layers`.

    `logits` is a tensor of `entries` logits; `chosen` are the layers that it decides, `pinned` those of `bits.pinned`.
    Raises ModelError unless there is one logit per chosen layer and candidate.
    """
    k = len(candidates)
    if entries != len(chosen) * k:
        raise ModelError(
            f"the controller gives one logit per controlled layer and candidate, {len(chosen)} x {k}; "
            f"'{logits}' has {entries}."
        )
    arrays: dict[str, Array] = {
        "bits.candidates": np.array(candidates, np.int64),
        "bits.table_shape": np.array([len(chosen), k], np.int64),
    }
    last = "bits.chosen" if pinned else BITS
    lowest = {"axis": 1, "keepdims": 0, "select_last_index": 0}
    nodes = [
        Node("bits.table", "", "Reshape", (logits, "bits.table_shape"), ("bits.table",), {"allowzero": 0}),
        Node("bits.choice", "", "ArgMax", ("bits.table",), ("bits.choice",), lowest),
        Node(last, "", "Gather", ("bits.candidates", "bits.choice"), (last,), {"axis": 0}),
    ]
    if pinned:
        places = [*pinned, *chosen]
        arrays["bits.order"] = np.array([places.index(layer) for layer in layers], np.int64)
        nodes += [
            Node("bits.all", "", "Concat", (PINNED_BITS, "bits.chosen"), ("bits.all",), {"axis": 0}),
            Node(BITS, "", "Gather", ("bits.all", "bits.order"), (BITS,), {"axis": 0}),
        ]
    return nodes, arrays

"""The results of a finished run: accuracies of the exported model, and the trained network's agreement with it."""

import sys
from collections.abc import Callable

import torch
from torch import nn

from dqtsim.graph.model import Graph
from dqtsim.train.controller import Controller
from dqtsim.train.data import Split
from dqtsim.train.evaluate import choice_summary, evaluate_dynamic, evaluate_float, evaluate_uniform
from dqtsim.train.exact import classify
from dqtsim.train.network import NestedNetwork


def _line(text: str) -> Callable[[int], None]:
    def show(done: int) -> None:
        if sys.stderr.isatty():
            print(f"{text}: {done} pictures ", end="\r", file=sys.stderr, flush=True)

    return show


def measure(
    source: nn.Module, network: NestedNetwork, controller: Controller | None, graph: Graph, split: Split
) -> dict[str, object]:
    """Top-1 on `split` of the float network and of each policy, and how often the exported model agrees.

    The trained network is evaluated integer-exact, so it always agrees with `graph`, unless one of the two is wrong.
    """
    found: dict[str, object] = {
        "pictures": len(split),
        "float": round(evaluate_float(source, split).accuracy, 4),
    }
    for k, pair in enumerate(network.rules.pairs):
        name = f"w{pair[0]}a{pair[1]}"
        rows = torch.tensor([graph.pinned.get(layer, pair) for layer in graph.layers])
        classes, _ = classify(graph, split.images, rows, progress=_line(name))
        found[name] = _compare(classes, evaluate_uniform(network, split, k).predictions, split)
    if controller is None:
        return found
    classes, widths = classify(graph, split.images, progress=_line("dynamic"))
    trained = evaluate_dynamic(network, controller, split)
    free = [row for row, layer in enumerate(graph.layers) if layer not in graph.pinned]
    # Candidates are distinct, so exactly one matches each pair of widths.
    choices = (widths[:, free, None] == torch.tensor(graph.candidates)).all(-1).to(torch.int64).argmax(-1)
    found["dynamic"] = _compare(classes, trained.predictions, split) | {
        "choices_agree": round(float((choices == trained.choices).float().mean()), 4),
        "distinct_choices": len(torch.unique(choices, dim=0)),
        **choice_summary(choices, graph.candidates),
    }
    return found


def _compare(classes: torch.Tensor, trained: torch.Tensor, split: Split) -> dict[str, object]:
    return {
        "top1": round(float((classes == split.labels).float().mean()), 4),
        "agree": round(float((classes == trained).float().mean()), 4),
    }

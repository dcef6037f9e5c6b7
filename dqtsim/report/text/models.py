"""A model as tables."""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...graph.model import Graph
from ...graph.results import results, scores
from ...graph.schema import NESTED_LAYERS
from ...planner import Plan
from .runs import giga, tensor_text, widths_text


def print_model(console: Console, plan: Plan, path: Path) -> None:
    """Print layers, shapes, parameters, widths, scales, size and provenance of a model."""
    graph, rules = plan.graph, plan.graph.arithmetic
    parameters = sum(_weights(graph, step.node.name).size for step in plan.layer_steps())
    size = f"  {path.stat().st_size:,} bytes, {parameters:,} weights, {_input(graph)}"
    console.print(Text.assemble((graph.name, "bold"), size))
    for output in results(graph):
        classes = ", the class is its largest" if output.name == scores(graph) else ""
        console.print(f"output '{output.name}' {tensor_text(graph, output)}{classes}")
    console.print(
        f"master width {rules.master_width}, weights nest by {rules.weight_rule}, activations by "
        f"{rules.activation_rule}, requantization rounds {rules.rounding}"
    )
    candidates = ", ".join(widths_text(pair) for pair in graph.candidates)
    chooser = f"chosen per input by the controller '{graph.controller}'" if graph.dynamic else "static, in the file"
    console.print(f"widths {chooser}; candidates {candidates}")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in (
        "node",
        "operator",
        "output",
        "weights",
        "widths",
        "register",
        "weight step",
        "step",
        "zero",
        "clip",
        "MACs",
    ):
        table.add_column(heading, justify="left" if heading in ("node", "operator", "output") else "right")
    for step in plan.steps:
        node = step.node
        if (
            not node.domain
            and node.operator in ("Gather", "Reshape", "ArgMax", "Concat")
            and step.call.type.dtype == "int64"
        ):
            continue
        nested = node.operator in NESTED_LAYERS
        quantization = graph.quantization.get(node.outputs[0])
        table.add_row(
            node.name,
            node.operator,
            "x".join(map(str, step.call.type.shape[1:])),
            "x".join(map(str, _weights(graph, node.name).shape)) if nested else "",
            _widths(graph, node.name, list(step.call.bounds)) if nested else "",
            f"{max(bound.bits for bound in step.call.bounds.values())} bits" if nested else "",
            _weight_step(graph, node.operand("w")) if nested else "",
            f"{quantization.scale[0]:.4g}" if quantization else "",
            str(quantization.zero_point) if quantization else "",
            f"{node.attributes['low']}..{node.attributes['high']}" if "low" in node.attributes else "",
            f"{step.macs:,}" if nested else "",
            style="dim" if nested and node.name not in graph.layers else None,
        )
    console.print(table)
    macs = sum(step.macs for step in plan.layer_steps())
    console.print(f"{giga(macs)}MACs a picture; register: bits that no sum can leave at any planned width")
    for key, value in graph.producer.items():
        console.print(f"{key}: {value}", style="dim", highlight=False)


def _weights(graph: Graph, layer: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(graph.constant(graph.node(layer), "w"), np.uint8)


def _weight_step(graph: Graph, weight: str) -> str:
    scales = graph.quantization[weight].scale if weight in graph.quantization else ()
    if len(set(scales)) > 1:
        return f"{min(scales):.2g}..{max(scales):.2g}"
    return f"{scales[0]:.2g}" if scales else ""


def _input(graph: Graph) -> str:
    return f"input {tensor_text(graph, graph.input)}"


def _widths(graph: Graph, layer: str, planned: list[tuple[int, int]]) -> str:
    text = " ".join(widths_text(pair) for pair in planned)
    return f"{text} (pinned)" if layer in graph.pinned else text

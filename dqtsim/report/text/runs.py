"""One run as a table and as JSON."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...counting.counts import average_width
from ...engines.names import JSON_NAMES
from ...engines.result import Result
from ...graph.model import Graph, Value
from ...graph.results import meaning
from ...ops.operator import register_width
from ...planner import Plan
from ...spec.mac import Flags


def class_name(graph: Graph, index: int | None) -> str:
    """Return the name of a class, or its number if the model has no class names."""
    if index is None:
        return "-"
    return graph.class_names[index] if index < len(graph.class_names) else str(index)


def margin(result: Result) -> int | None:
    """Return the best logit minus the second best, in steps of the logits."""
    if result.logits is None or result.logits.size < 2:
        return None
    ordered = sorted((int(logit) for logit in result.logits), reverse=True)
    return ordered[0] - ordered[1]


def total_flags(result: Result) -> Flags | None:
    """Return the flags of all layers together, or None if the engine saw none."""
    seen = [flags for flags in result.flags.values() if flags is not None]
    if not seen:
        return None
    return Flags(
        sum(flags.saturations for flags in seen),
        sum(flags.wraps for flags in seen),
        min(flags.lowest for flags in seen),
        max(flags.highest for flags in seen),
    )


def widths_text(pair: tuple[int, int]) -> str:
    """Return '4' for (4, 4) and 'w4a8' for (4, 8)."""
    return str(pair[0]) if pair[0] == pair[1] else f"w{pair[0]}a{pair[1]}"


def giga(count: int) -> str:
    """Return a count with a metric prefix, three digits."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def tensor_text(graph: Graph, value: Value) -> str:
    """Return dtype, shape and meaning of an input or output: 'uint8 2x6x6, x = 0.25 (q - 128)'."""
    found, shape = meaning(graph, value.name), "x".join(map(str, value.shape[1:]))
    if found is None:
        return f"{value.dtype} {shape}"
    codes = f"(q - {found.zero_point})" if found.zero_point else "q"
    return f"{value.dtype} {shape}, x = {found.scale[0]:g} {codes}"


def output_block(graph: Graph, result: Result) -> list[dict[str, Any]]:
    """Return name, dtype, shape and meaning of every output, and the least and greatest real value (None: unknown)."""
    block = []
    for name, array in result.outputs.items():
        found = meaning(graph, name)
        ends = [int(array.min()), int(array.max())]
        values = [found.scale[0] * (end - found.zero_point) for end in ends] if found else [None, None]
        block.append(
            {
                "name": name,
                "dtype": array.dtype.name,
                "shape": list(array.shape),
                "scale": found.scale[0] if found else None,
                "zero_point": found.zero_point if found else None,
                "lowest": values[0],
                "highest": values[1],
            }
        )
    return block


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _print_outputs(console: Console, graph: Graph, result: Result) -> None:
    """Print a row for each output, unless class scores are the only one."""
    if list(result.outputs) == [result.scores]:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("output", "dtype", "shape", "scale", "zero point", "lowest", "highest"):
        table.add_column(heading, justify="left" if heading in ("output", "dtype", "shape") else "right")
    for output in output_block(graph, result):
        zero = "-" if output["zero_point"] is None else str(output["zero_point"])
        shape = "x".join(map(str, output["shape"][1:]))
        ends = (_number(output[key]) for key in ("lowest", "highest"))
        table.add_row(output["name"], output["dtype"], shape, _number(output["scale"]), zero, *ends)
    console.print(table)


def _answer(plan: Plan, result: Result) -> str:
    """Return a picture's class, or the extremes of every output if the model does not classify."""
    if result.class_index is not None:
        return f"{class_name(plan.graph, result.class_index):<12}"
    ends = [(o["name"], _number(o["lowest"]), _number(o["highest"])) for o in output_block(plan.graph, result)]
    return ", ".join(f"{name} {low} to {high}" for name, low, high in ends)


def line(plan: Plan, index: int, result: Result) -> str:
    """Return one picture of a batch on one line."""
    widths = " ".join(widths_text(pair) for pair in result.bits)
    flags = total_flags(result)
    counts = "" if flags is None else f"  saturations {flags.saturations}  wraps {flags.wraps}"
    gap = margin(result)
    answer = _answer(plan, result) + (f"  margin {gap:>8}" if gap is not None else "")
    return f"{index:>5}  {answer}  widths {widths}  {giga(result.bitops)}BitOPs{counts}"


def batch_line(plan: Plan, results: Sequence[Result], *, policy: str, engine: str, seconds: float) -> str:
    """Return the summary of a batch."""
    count = len(results)
    flags = [found for found in map(total_flags, results) if found is not None]
    widths = sum(float(average_width(result.bits)) for result in results) / count
    counts = f"{sum(f.saturations for f in flags)} saturations, {sum(f.wraps for f in flags)} wraps, " if flags else ""
    return (
        f"{count} pictures, {giga(sum(result.bitops for result in results) // count)}BitOPs and {widths:.2f} bits on "
        f"average, {counts}bits {policy}, target {plan.target.name}, engine {engine}, "
        f"{seconds * 1e3 / count:.1f} ms a picture"
    )


def print_run(console: Console, plan: Plan, result: Result, *, policy: str, engine: str, seconds: float) -> None:
    """Print one picture's result: class, widths per layer with status, and cost."""
    graph = plan.graph
    gap = margin(result)
    if result.class_index is not None:
        name = class_name(graph, result.class_index)
        ahead = f"  (margin {gap} over the next class)" if gap is not None else ""
        console.print(Text.assemble((name, "bold"), ahead))
    _print_outputs(console, graph, result)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("layer", "bits", "register", "saturated", "wrapped", "MACs", "BitOPs"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    pairs = dict(zip(graph.layers, result.bits, strict=True))
    for step in plan.layer_steps():
        layer = step.node.name
        pair = pairs.get(layer, next(iter(step.call.bounds)))
        flags = result.flags.get(layer)
        seen = [f"- of {plan.machine.accumulator_width}", "-", "-"]
        if flags:
            needed = f"{register_width(flags.lowest, flags.highest)} of {plan.machine.accumulator_width}"
            seen = [needed, str(flags.saturations), str(flags.wraps)]
        cost = [f"{step.macs:,}", f"{step.macs * pair[0] * pair[1]:,}"]
        style = None if layer in pairs else "dim"
        table.add_row(layer, widths_text(pair), *seen, *cost, style=style)
    console.print(table)
    flags = total_flags(result)
    counts = f"{flags.saturations} saturations, {flags.wraps} wraps" if flags else "accumulators not visible"
    console.print(
        f"{giga(result.macs)}MACs, {giga(result.bitops)}BitOPs, average width "
        f"{float(average_width(result.bits)):.2f} bits, {counts}"
    )
    console.print(f"bits {policy}, target {plan.target.name}, engine {engine}, {seconds * 1e3:.1f} ms", style="dim")


def status(plan: Plan, results: Sequence[Result]) -> dict[str, Any]:
    """Return the status of a batch: totals, and per layer the overflow counts and the extremes of the accumulators."""
    layers: dict[str, Any] = {}
    for step in plan.layer_steps():
        name = step.node.name
        seen = [flags for flags in (result.flags.get(name) for result in results) if flags is not None]
        layers[name] = {
            "saturations": sum(flags.saturations for flags in seen) if seen else None,
            "wraps": sum(flags.wraps for flags in seen) if seen else None,
            "accumulator_lowest": min(flags.lowest for flags in seen) if seen else None,
            "accumulator_highest": max(flags.highest for flags in seen) if seen else None,
            "saturated_biases": plan.saturated_biases[name],
        }
    visible = [layer for layer in layers.values() if layer["saturations"] is not None]
    return {
        "saturations": sum(layer["saturations"] for layer in visible) if visible else None,
        "wraps": sum(layer["wraps"] for layer in visible) if visible else None,
        "macs": sum(result.macs for result in results),
        "bitops": sum(result.bitops for result in results),
        "overflow_proven_impossible": plan.proven(),
        "layers": layers,
    }


def as_json(
    plan: Plan, results: Sequence[Result], *, model: str, engine: str, policy: str, seconds: float
) -> dict[str, Any]:
    """Return a batch as the object that `dqtsim run --json` prints."""
    return {
        "model": model,
        "target": plan.target.name,
        "engine": JSON_NAMES.get(engine, engine),
        "bits_policy": policy,
        "results": [
            {
                "index": index,
                "class_index": result.class_index,
                "class_name": class_name(plan.graph, result.class_index) if result.class_index is not None else None,
                "logits": [] if result.logits is None else [int(logit) for logit in result.logits],
                "outputs": output_block(plan.graph, result),
                "bits": [list(pair) for pair in result.bits],
                "macs": result.macs,
                "bitops": result.bitops,
            }
            for index, result in enumerate(results)
        ],
        "layers": list(plan.graph.layers),
        "status": status(plan, results),
        "seconds": seconds,
    }

"""Where the cost is, layer by layer: MACs, BitOPs, energy, cycles, moved bits and weights."""

from collections import Counter
from collections.abc import Sequence
from typing import assert_never

from ...counting.counts import LAYER, NodeCount, Traffic, totals
from ...counting.distribution import KIND_NAMES, RowSpread
from ...target import ArrayMode
from . import charts
from .charts import Bar, Segment
from .markup import Markup, element, energy, metric, percent, table
from .sections import array_text, figure, legend, mean_weight_bits, mode, own_name, section
from .study import OWN, Measured, Study

PARTS = {"macs": "MACs", "nesting": "nesting", "requantize": "after the accumulator", "memory": "memory"}
MOVED = {"weights": "weights", "inputs": "activations in", "outputs": "activations out", "tables": "tables"}


def _steps(mode: ArrayMode) -> str:
    match mode:
        case ArrayMode.PARALLEL:
            return "a MAC a cycle whatever the widths, so cycles do not depend on them"
        case ArrayMode.ACTIVATION_SERIAL:
            return "a MAC takes as many cycles as its activation has bits"
        case ArrayMode.DIGIT_SERIAL:
            return "a MAC takes a cycle for each pair of 2-bit digits of weight and activation"
        case _:
            assert_never(mode)


def layers(study: Study) -> Markup:
    """Return the cost of every layer: MACs, BitOPs, energy, cycles and moved bits."""
    found = study.own.found
    rows = found.rows()
    counts = found.node_counts(found.order[0])
    how = mode(study)
    figures = (
        _macs_figure(rows, counts),
        _bitops_figure(study, rows, how),
        _energy_figure(study, how),
        _cycles_figure(study, rows, how),
        _moved_figure(rows, counts),
        _weights_figure(study, how),
    )
    return section("Where the cost is", element("div", *figures, class_="columns"), exact_counts(study))


def members(row: RowSpread, counts: Sequence[NodeCount]) -> list[NodeCount]:
    """Return the nodes of a row: those of a layer, or all of one kind."""
    kind = {name: kind for kind, name in KIND_NAMES.items()}.get(row.name)
    if row.width is not None:
        return [item for item in counts if item.name == row.name and item.kind == LAYER]
    return [item for item in counts if item.kind == kind]


def _macs_figure(rows: Sequence[RowSpread], counts: Sequence[NodeCount]) -> Markup:
    found = {row.name: sum(sum(item.cost.macs.values()) for item in members(row, counts)) for row in rows}
    macs = {name: n for name, n in found.items() if n}
    total = sum(macs.values())
    drawn = [
        Bar(
            name,
            [Segment(n, "plain", f"{name}: {n:,} MACs")],
            f"{metric(n)} · {percent(n, total)}",
            quiet=name not in names(rows),
        )
        for name, n in macs.items()
    ]
    caption = (
        f"Multiply-accumulates of a picture, {total:,} in all, and each layer's share. They do not depend on the "
        "widths; "
        f"{_largest(macs)}."
    )
    return figure("MACs by layer", charts.bars(drawn, metric, "MACs by layer"), caption)


def names(rows: Sequence[RowSpread]) -> set[str]:
    """Return the names of the rows that are layers."""
    return {row.name for row in rows if row.width is not None}


def _largest(values: dict[str, int]) -> str:
    """Return a phrase: how many of the largest rows make half of the total."""
    total, reached = sum(values.values()), 0
    for count, value in enumerate(sorted(values.values(), reverse=True), 1):
        reached += value
        if 2 * reached >= total:
            return f"the largest {count} of {len(values)} rows make {percent(reached, total)}"
    return ""


def compared_widths(study: Study) -> list[Measured]:
    """Return the uniform settings that bars are compared with: the master width, 4 and 2 bits."""
    return [record for record in study.uniform if record.width in (study.graph.arithmetic.master_width, 4, 2)]


def bits_text(value: float) -> str:
    """Return a number of bits."""
    return metric(value, "b")


def _bitops_figure(study: Study, rows: Sequence[RowSpread], how: str) -> Markup:
    compared = compared_widths(study)
    uniform = {record.name: {row.name: row.bitops.mean for row in record.found.rows()} for record in compared}
    drawn = []
    total = sum(row.bitops.mean for row in rows)
    for row in rows:
        if not row.bitops.mean:
            continue
        marks = [
            Segment(uniform[record.name][row.name], f"w{record.width}", f"{row.name} at {record.name}")
            for record in compared
            if row.name in uniform[record.name]
        ]
        moving = len({mark.value for mark in marks}) > 1
        end = f"{metric(row.bitops.mean)} · {percent(row.bitops.mean, total)}"
        tooltip = f"{row.name}: {row.bitops.mean:,.0f} BitOPs"
        segments = [Segment(row.bitops.mean, "own", tooltip)]
        drawn.append(Bar(row.name, segments, end, marks if moving else (), quiet=row.width is None))
    caption = (
        f"MACs × weight bits × activation bits ({how}). The marks show the same layer with the whole network at one "
        "width: "
        "the distance from bar to mark is what the chosen widths save. Layers without marks are pinned or belong "
        "to the "
        "controller."
    )
    entries = [("own", own_name(study))] + [(f"w{record.width}", f"all layers at {record.name}") for record in compared]
    return figure("BitOPs by layer", charts.bars(drawn, metric, "BitOPs by layer"), caption, legend=legend(entries))


def _energy_figure(study: Study, how: str) -> Markup:
    means = study.own.found.mean_energy()
    layer_names = set(study.graph.layers)
    parts = Counter[str]()
    for row in means.values():
        parts.update(row)
    total = sum(parts.values())
    drawn = [
        Bar(
            name,
            [
                Segment(row.get(part, 0.0), f"e-{part}", f"{name}, {text}: {energy(row.get(part, 0.0))}")
                for part, text in PARTS.items()
            ],
            f"{energy(sum(row.values()))} · {percent(sum(row.values()), total)}",
            quiet=name not in layer_names,
        )
        for name, row in means.items()
    ]
    shares = ", ".join(f"{text} {percent(parts[part], total)}" for part, text in PARTS.items())
    caption = (
        f"Energy of a picture, {energy(total)} ({how}): {shares}. Nesting makes a code narrower: a shift, and what "
        "its rule adds. After the accumulator come alignment, bias, requantization, additions, pools and comparisons. "
        f"Estimated from {study.energy.source}."
    )
    entries = [(f"e-{part}", text) for part, text in PARTS.items()]
    return figure("Energy by layer", charts.bars(drawn, energy, "Energy by layer"), caption, legend=legend(entries))


def _cycles_figure(study: Study, rows: Sequence[RowSpread], how: str) -> Markup:
    total = sum(row.cycles.mean for row in rows)
    drawn = [
        Bar(
            row.name,
            [Segment(row.cycles.mean, "plain", f"{row.name}: {row.cycles.mean:,.0f} cycles")],
            f"{row.cycles.mean:,.0f} · {percent(row.cycles.mean, total)}",
            quiet=row.width is None,
        )
        for row in rows
        if row.cycles.mean
    ]
    macs = sum(step.macs for step in study.own.plan.layer_steps())
    lanes = study.target.rows * study.target.columns
    caption = (
        f"Cycles of a picture, {total:,.0f} ({how}), on {array_text(study.target)} of target {study.target.name}; "
        f"{_steps(study.target.mode)}. {macs / total:,.0f} MACs a cycle on average, {percent(macs / total, lanes)} "
        "of what "
        "the array could do in single steps. Additions and pools are not counted."
    )
    return figure("Cycles by layer", charts.bars(drawn, metric, "Cycles by layer"), caption)


def _moved_figure(rows: Sequence[RowSpread], counts: Sequence[NodeCount]) -> Markup:
    drawn = []
    total = totals(counts)[1].total
    for row in rows:
        traffic = Traffic()
        for item in members(row, counts):
            traffic.add(item.traffic)
        values = {
            "weights": sum(traffic.weights.values()),
            "inputs": sum(traffic.activations_in.values()),
            "outputs": sum(traffic.activations_out.values()),
            "tables": traffic.tables,
        }
        segments = [Segment(n, f"m-{part}", f"{row.name}, {MOVED[part]}: {n:,} bits") for part, n in values.items()]
        end = f"{metric(traffic.total, 'b')} · {percent(traffic.total, total)}"
        drawn.append(Bar(row.name, segments, end, quiet=row.width is None))
    caption = (
        f"Bits read and written for a picture, {metric(total, 'b')} in all, when each tensor moves once. Weights "
        "move at the "
        "master width and are nested on the fly; biases, multipliers and shifts are the tables."
    )
    entries = [(f"m-{part}", text) for part, text in MOVED.items()]

    chart = charts.bars(drawn, bits_text, "Bits moved by layer")
    return figure("Bits moved by layer", chart, caption, legend=legend(entries))


def _weights_figure(study: Study, how: str) -> Markup:
    own = mean_weight_bits(study.own)
    compared = compared_widths(study)
    uniform = {record.name: mean_weight_bits(record) for record in compared}
    drawn = []
    total = sum(own.values())
    for layer, bits in own.items():
        marks = [
            Segment(uniform[record.name][layer], f"w{record.width}", f"{layer} at {record.name}") for record in compared
        ]
        moving = len({mark.value for mark in marks}) > 1
        end = f"{metric(bits, 'b')} · {percent(bits, total)}"
        drawn.append(Bar(layer, [Segment(bits, "own", f"{layer}: {bits:,.0f} bits")], end, marks if moving else ()))
    caption = (
        f"What a buffer holds when it keeps each layer's weights at the width they run at, {metric(total, 'b')} in all "
        f"({how}); the marks show the same layer at one width for the whole network. In storage all weights have "
        f"{study.graph.arithmetic.master_width} bits, so that no width needs a copy of its own."
    )
    entries = [("own", own_name(study)), *((f"w{record.width}", f"all layers at {record.name}") for record in compared)]
    chart = charts.bars(drawn, bits_text, "Weights by layer")
    return figure("Nested weights by layer", chart, caption, legend=legend(entries))


def exact_counts(study: Study) -> Markup:
    """Return the exact BitOPs of every layer at every static setting, folded away."""
    static = [record for record in study.records if record.kind != OWN or not study.graph.dynamic]
    columns = {record.name: {row.name: row.bitops.lowest for row in record.found.rows()} for record in static}
    rows = study.own.found.rows()
    counts = study.own.found.node_counts(study.own.found.order[0])
    lines = []
    for row in rows:
        nodes = members(row, counts)
        macs = sum(sum(item.cost.macs.values()) for item in nodes)
        if macs:
            cells = [
                f"{columns[record.name][row.name]:,}" if row.name in columns[record.name] else "–" for record in static
            ]
            lines.append((row.name, f"{sum(item.weight_elements for item in nodes):,}", f"{macs:,}", *cells))
    headings = ("layer", "weights", "MACs", *(f"BitOPs, {record.name}" for record in static))
    return element(
        "details",
        element("summary", "Exact counts: weights, MACs, and BitOPs at every static setting"),
        table(headings, lines),
    )

"""The first parts of the page: the elements of all parts, the summary, and the comparison of settings."""

from collections.abc import Sequence
from typing import assert_never

from ...counting.counts import storage
from ...target import ArrayMode, Target
from . import charts
from .charts import Bar, Point, Segment
from .markup import Child, Markup, element, energy, metric, percent, table
from .study import Measured, Study, interval


def figure(title: str, chart: Markup, caption: str, *, legend: Markup | None = None, wide: bool = False) -> Markup:
    """Return a plot between its title and the caption that says how to read it."""
    parts = (element("h3", title), legend or Markup(), chart, element("figcaption", caption))
    return element("figure", *parts, class_="wide" if wide else None)


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Return coloured squares with their meanings, given as (class, text)."""
    return element(
        "p",
        *(
            element("span", element("svg", element("rect", width=12, height=12, class_=colour)), text, class_="key")
            for colour, text in entries
        ),
        class_="legend",
    )


def section(name: str, *children: Child) -> Markup:
    """Return a part of the page under its heading."""
    return element("section", element("h2", name), *children)


def mode(study: Study) -> str:
    """Return how the model's own setting is counted: as means over pictures, or at one static setting."""
    if study.split is not None:
        return f"mean over {len(study.split):,} pictures" if study.graph.dynamic else "the same for every picture"
    return "widest choice of the controller" if study.graph.dynamic else "the widths in the file"


def own_name(study: Study) -> str:
    """Return the page's name for the model's own widths."""
    return "dynamic" if study.graph.dynamic else "static"


def summary(study: Study) -> Markup:
    """Return the numbers at the top of the page."""
    own, total = study.own, study.own.found.total()
    reference = study.uniform[0]
    base = reference.found.total()
    counts = own.found.node_counts(own.found.order[0])
    macs = sum(sum(item.cost.macs.values()) for item in counts)
    bits = storage(own.plan)
    assert total.width is not None
    tiles = []
    if study.split is not None:
        right, pictures = own.right(study.labels), len(study.split)
        low, high = interval(right, pictures)
        against = 100 * reference.right(study.labels) / pictures
        note = f"{right:,} of {pictures:,} right, 95 % interval {100 * low:.1f} to {100 * high:.1f}"
        tiles.append(
            ("Top-1 accuracy", f"{100 * right / pictures:.2f} %", f"{note}; uniform {reference.name}: {against:.2f} %")
        )
    width_note = "mean of weights and activations over the layers"
    if total.width.deviation:
        low_width, high_width = float(total.width.lowest), float(total.width.highest)
        width_note += f"; from {low_width:.2f} to {high_width:.2f} between pictures"
    tiles += [
        ("Average width", f"{total.width.mean:.2f} bits", width_note),
        ("MACs", metric(macs), f"{macs:,} a picture, padded taps included"),
        (
            "BitOPs",
            metric(total.bitops.mean),
            f"MACs × weight bits × activation bits; {_against(total.bitops.mean, base.bitops.mean, reference)}",
        ),
        (
            "Energy",
            energy(total.energy.mean),
            f"an estimate from {study.energy.name}; {_against(total.energy.mean, base.energy.mean, reference)}",
        ),
        (
            "Cycles",
            f"{total.cycles.mean:,.0f}",
            f"on {array_text(study.target)}; {_cycles_note(study, total.cycles.mean, base.cycles.mean)}",
        ),
        (
            "Storage",
            metric(bits["weights"] + bits["tables"], "b"),
            f"{metric(bits['weights'], 'b')} of weights at {study.graph.arithmetic.master_width} bits, "
            f"{metric(bits['tables'], 'b')} of biases, multipliers and shifts",
        ),
    ]
    if study.split is not None and study.graph.dynamic:
        found = len(own.found.settings)
        tiles.append(
            ("Settings used", f"{found:,}", f"different choices of all widths over {len(study.split):,} pictures")
        )
    return element("div", *(_tile(*tile) for tile in tiles), class_="tiles" if len(tiles) > 6 else "tiles six")


def _tile(name: str, value: str, note: str) -> Markup:
    return element("div", element("h3", name), element("strong", value), element("p", note), class_="tile")


def _against(value: float, base: float, reference: Measured) -> str:
    return f"{percent(value, base)} of uniform {reference.name}"


def _cycles_note(study: Study, cycles: float, base: float) -> str:
    """Return a comparison of the cycles with those of the widest setting, or that widths do not change them."""
    match study.target.mode:
        case ArrayMode.PARALLEL:
            extra = f", {percent(cycles - base, cycles)} of them for the controller" if cycles > base else ""
            return f"the same at all widths{extra}"
        case ArrayMode.ACTIVATION_SERIAL | ArrayMode.DIGIT_SERIAL:
            return _against(cycles, base, study.uniform[0])
        case _:
            assert_never(study.target.mode)


def array_text(target: Target) -> str:
    """Return the shape of the array."""
    return f"an array of {target.rows} × {target.columns}"


def settings(study: Study) -> Markup:
    """Return a plot of accuracy against BitOPs, if there are pictures, and a table of all settings."""
    plot = _cost_plot(study) if study.split is None else _accuracy_plot(study)
    return section("Settings compared", element("div", plot, _settings_table(study), class_="columns"))


def _accuracy_plot(study: Study) -> Markup:
    assert study.split is not None
    points = []
    for record in study.records:
        right, total = record.right(study.labels), record.found.total()
        low, high = interval(right, len(study.split))
        share = right / len(study.split)
        tooltip = f"{record.name}: {100 * share:.2f} % right at {metric(total.bitops.mean)} BitOPs"
        points.append(Point(record.name, total.bitops.mean, share, low, high, record.kind, tooltip))
    kinds = [("own", f"{own_name(study)}, the model itself"), ("uniform", "one width for all layers")]
    if any(record.kind == "plan" for record in study.records):
        kinds.append(("plan", "plan file"))
    chart = charts.scatter(points, "BitOPs a picture (logarithmic)", "top-1 accuracy, %", metric, "Accuracy and BitOPs")
    caption = (
        f"Up and to the left is better. Each point is the whole network over the same {len(study.split):,} test "
        "pictures "
        "in exact integer arithmetic. The vertical lines are 95 % intervals: how far an accuracy from so many pictures "
        "may be off. Pinned layers keep their width."
    )
    if study.graph.dynamic:
        caption += f" {_verdict(study)}"
    return figure("Accuracy against BitOPs", chart, caption, legend=legend(kinds))


def _verdict(study: Study) -> str:
    """Return a comparison of the model with the uniform settings that cost just less and just more."""
    assert study.split is not None
    pictures = len(study.split)
    bitops = study.own.found.total().bitops.mean
    costs = {record.name: record.found.total().bitops.mean for record in study.uniform}
    cheaper = [record for record in study.uniform if costs[record.name] < bitops]
    dearer = [record for record in study.uniform if costs[record.name] >= bitops]
    said = "".join(
        f"; uniform {record.name} reach {100 * record.right(study.labels) / pictures:.2f} % at "
        f"{percent(costs[record.name], bitops)} of its BitOPs"
        for record in cheaper[:1] + dearer[-1:]  # widest first
    )
    share = 100 * study.own.right(study.labels) / pictures
    return f"Dynamic widths reach {share:.2f} %, the controller's own cost included{said}."


def _cost_plot(study: Study) -> Markup:
    rows = [
        Bar(
            record.name,
            [Segment(total.bitops.mean, record.kind, f"{record.name}: {total.bitops.mean:,.0f} BitOPs")],
            metric(total.bitops.mean),
        )
        for record, total in ((record, record.found.total()) for record in study.records)
    ]
    caption = (
        "MACs × weight bits × activation bits of a picture: half of both widths is a quarter of the cost, pinned "
        "layers apart. Accuracy is the other half of the comparison; it needs pictures."
    )
    return figure("BitOPs of every setting", charts.bars(rows, metric, "BitOPs of every setting"), caption)


def _settings_table(study: Study) -> Markup:
    headings = ["setting", "average width", "BitOPs", "energy", "cycles", "nested weights"]
    if study.split is not None:
        headings.insert(1, "top-1")
    rows = []
    for record in study.records:
        total = record.found.total()
        assert total.width is not None
        cells = [
            record.name,
            f"{total.width.mean:.2f}",
            metric(total.bitops.mean),
            energy(total.energy.mean),
            f"{total.cycles.mean:,.0f}",
            metric(sum(mean_weight_bits(record).values()), "b"),
        ]
        if study.split is not None:
            cells.insert(1, f"{100 * record.right(study.labels) / len(study.split):.2f} %")
        rows.append(tuple(cells))
    caption = (
        "A picture's cost at each setting. “Nested weights” is what the weights take once they are nested to their "
        "widths; in storage they always have the master width. Uniform settings and plan files run without the "
        f"controller. The marked row is the model as it is: {mode(study)}."
    )
    return figure("Cost of every setting", table(tuple(headings), rows, marked=0), caption)


def mean_weight_bits(record: Measured) -> dict[str, float]:
    """Return the bits of every layer's weights, nested to the widths at which they run."""
    bits: dict[str, float] = dict.fromkeys(record.plan.graph.layers, 0.0)
    for setting, times in record.found.settings.items():
        for item in record.found.node_counts(setting):
            if item.name in bits:
                bits[item.name] += times * sum(item.traffic.weights_kept.values())
    return {layer: total / len(record.found.order) for layer, total in bits.items()}

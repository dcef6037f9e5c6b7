"""The parts of the page that need pictures: chosen widths, classes, distributions and examples."""

from collections.abc import Callable, Sequence

from ...counting.counts import NodeCount, average_width
from ...counting.distribution import PERCENTILES, RULE, Setting, Spread, spread
from ...graph.model import Widths
from ..text.runs import widths_text
from . import charts
from .charts import Bar, Dot, Segment
from .markup import Child, Markup, element, energy, metric, percent, table
from .png import data_uri
from .sections import figure, legend, section
from .study import Study

COLUMNS = 600
EXAMPLES = 8
_STRIP = 20.0


def choices(study: Study) -> Markup:
    """Return the widths of the pictures: the map, the shares by layer, and the means by class."""
    if not study.graph.dynamic:
        return section(
            "Chosen widths", element("p", "The widths are in the file: every picture runs at the same ones.")
        )
    first = _maps(study)
    second = element("div", _shares_figure(study), _classes_figure(study), class_="columns")
    return section("Chosen widths", *first, second)


def _maps(study: Study) -> list[Markup]:
    order = study.own.found.order
    together = all(w == a for bits in set(order) for w, a in bits)
    if together:
        return [_map(study, 0, "Widths chosen for each picture")]
    return [
        _map(study, 0, "Weight widths chosen for each picture"),
        _map(study, 1, "Activation widths chosen for each picture"),
    ]


def by_width(study: Study) -> list[int]:
    """Return the pictures from the narrowest to the widest average width, ties by their widths layer by layer."""
    order = study.own.found.order
    return sorted(range(len(order)), key=lambda i: (average_width(order[i]), order[i], i))


def _map(study: Study, side: int, title: str) -> Markup:
    graph, order = study.graph, study.own.found.order
    pictures = by_width(study)
    shown = [pictures[i * len(pictures) // COLUMNS] for i in range(COLUMNS)] if len(pictures) > COLUMNS else pictures
    rows = [[f"w{order[i][row][side]}" for i in shown] for row in range(len(graph.layers))]
    wrong = ["" if study.own.classes[i] == study.labels[i] else "wrong" for i in shown]
    cells = charts.strips([*rows, wrong], title, [_STRIP] * len(rows) + [_STRIP])
    labels = element(
        "div", *(element("span", name, title=name) for name in (*graph.layers, "wrong answers")), class_="names"
    )
    used = sorted({bits[row][side] for bits in order for row in range(len(graph.layers))})
    ends = [f"{float(average_width(order[pictures[i]])):.2f} bits" for i in (0, len(pictures) // 2, -1)]
    axis = element(
        "p",
        *(element("span", f"{name}: {end}") for name, end in zip(("fewest", "median", "most"), ends, strict=True)),
        class_="axis",
    )
    columns = "every column is a picture" if shown is pictures else f"the columns are {COLUMNS} of them, evenly spaced"
    means = _layer_means(study, side)
    free = {layer: mean for layer, mean in means.items() if layer not in graph.pinned}
    caption = (
        f"{len(pictures):,} test pictures from the fewest bits on the left to the most on the right ({columns}); "
        "every row "
        "is a layer, and the stronger the colour the more bits it ran at. A row of one colour is a layer whose width "
        f"never changes. The last row marks the pictures that were classified wrong."
    )
    if free:
        low, high = min(free, key=lambda name: free[name]), max(free, key=lambda name: free[name])
        caption += (
            f" On average {low} is the narrowest ({free[low]:.2f} bits) and {high} the widest ({free[high]:.2f})."
        )
    if graph.pinned:
        caption += f" Pinned: {', '.join(graph.pinned)}."
    keys = legend([*((f"w{width}", f"{width} bits") for width in used), ("wrong", "wrong answer")])
    chart = element("div", labels, element("div", cells, axis), class_="map")
    return figure(title, chart, caption, legend=keys, wide=True)


def _layer_means(study: Study, side: int) -> dict[str, float]:
    histograms = study.own.found.histograms()
    pictures = len(study.own.found.order)
    return {layer: sum(pair[side] * n for pair, n in times.items()) / pictures for layer, times in histograms.items()}


def _shares_figure(study: Study) -> Markup:
    found = study.own.found
    pictures = len(found.order)
    histograms = found.histograms()
    pairs = sorted({pair for times in histograms.values() for pair in times}, key=lambda pair: (sum(pair), pair))
    rows = []
    for row in found.rows():
        if row.width is None:
            continue
        times = histograms[row.name]
        segments = [
            Segment(
                times[pair],
                _colour(pair),
                f"{row.name}: {times[pair]:,} of {pictures:,} pictures at {widths_text(pair)} bits",
                f"{100 * times[pair] / pictures:.0f} %",
            )
            for pair in pairs
            if times[pair]
        ]
        rows.append(Bar(row.name, segments, f"{row.width.mean:.2f} bits"))
    caption = (
        f"For each layer, the share of the {pictures:,} pictures that ran at each width, and the mean on the right. "
        "A layer "
        "of one colour could have its width fixed; mixed layers are those where choosing by picture does something."
    )
    chart = charts.bars(rows, lambda value: percent(value, pictures), "Widths by layer", top=pictures)
    entries = [(_colour(pair), f"{widths_text(pair)} bits") for pair in pairs]
    return figure("How often each layer used which width", chart, caption, legend=legend(entries))


def _colour(pair: Widths) -> str:
    """Return the colour of a pair of widths: that of its mean, rounded up."""
    return f"w{-(-sum(pair) // 2)}"


def _classes_figure(study: Study) -> Markup:
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(study.labels):
        by_class.setdefault(label, []).append(index)
    rows, means = [], {}
    for label, indices in sorted(by_class.items()):
        widths = _spread_of([study.own.found.order[i] for i in indices])
        right = sum(study.own.classes[i] == label for i in indices)
        name = study.class_name(label)
        means[name] = widths.mean
        low, high = float(widths.percentiles[25]), float(widths.percentiles[75])
        # the mean of a skewed distribution can lie outside the middle half
        rows.append(Dot(name, widths.mean, low, high, f"{widths.mean:.2f} bits · {percent(right, len(indices))} right"))
    low_class, high_class = min(means, key=lambda name: means[name]), max(means, key=lambda name: means[name])
    caption = (
        "Average width of the pictures of each class (dot), the middle half of them (line), and how many were "
        "right. The "
        f"axis does not start at zero. {low_class} takes the fewest bits, {high_class} the most; when the lines "
        "cover one "
        "another, the difference within a class is larger than between classes."
    )
    chart = charts.dots(rows, lambda value: f"{value:g}", "Average width by class")
    return figure("Average width by class, bits", chart, caption)


def _spread_of(bits: Sequence[Setting]) -> Spread:
    widths = [average_width(setting) for setting in bits]
    return spread({value: widths.count(value) for value in widths})


def distributions(study: Study) -> Markup:
    """Return the distribution of the cost over the pictures, and the saving if nested weights were kept."""
    if not study.graph.dynamic:
        return Markup()
    found = study.own.found
    total = found.total()
    assert total.width is not None
    quantities: Sequence[tuple[str, Spread, Callable[[float], str]]] = (
        ("BitOPs", total.bitops, metric),
        ("energy", total.energy, energy),
        ("cycles", total.cycles, lambda value: f"{value:,.0f}"),
        ("average width, bits", total.width, lambda value: f"{value:.2f}"),
    )
    columns = []
    for _, values, show in quantities:
        points = (values.lowest, *values.percentiles.values(), values.highest)
        columns.append([show(value) for value in (values.mean, values.deviation, *(float(point) for point in points))])
    names = ("mean", "deviation", "least", *(f"{p} % of pictures, at most" for p in PERCENTILES), "most")
    rows = list(zip(names, *columns, strict=True))
    headings = ("a picture takes", *(name for name, _, _ in quantities))
    fly, kept = (sum(part.values()) / len(found.order) for part in (found.nesting_on_the_fly(), found.nesting_kept()))
    saved = f"{percent(fly - kept, fly)} fewer" if kept <= fly else f"{percent(kept - fly, fly)} more"
    caption = (
        f"Percentiles are by {RULE}. Making the weights narrower takes {fly:,.0f} operations a picture when each "
        "picture "
        f"nests the master weights anew, and {kept:,.0f} ({saved}) when nested weights stay until a layer's width "
        "changes "
        "from one test picture to the next."
    )
    figures: list[Child] = [figure("Spread of a picture's cost", table(headings, rows), caption)]
    if total.bitops.lowest < total.bitops.highest:
        figures.insert(0, _histogram_figure(study, total.bitops))
    return section("From picture to picture", element("div", *figures, class_="columns"), _layer_spreads(study))


def _histogram_figure(study: Study, bitops: Spread) -> Markup:
    values = [sum(item.cost.bitops for item in counts) for counts in _counts(study)]
    low, high = int(bitops.lowest), int(bitops.highest)
    number = min(30, max(8, len(values) // 8))
    edges = [low + (high - low) * i / number for i in range(number + 1)]
    tally = [0] * number
    for value in values:
        tally[min((value - low) * number // (high - low), number - 1)] += 1
    bins = [(edges[i], edges[i + 1], tally[i]) for i in range(number)]
    lines = [(float(bitops.percentiles[p]), f"{p} % ≤ {metric(float(bitops.percentiles[p]))}") for p in (5, 50, 95)]
    caption = (
        "How many pictures take how many BitOPs; the dashed lines are percentiles. Hardware sized for the 95 % "
        "line falls "
        "behind on one picture in twenty; the distance from the 50 % line to the right end is what worst-case "
        "design pays."
    )
    chart = charts.histogram(bins, lines, metric, "BitOPs a picture", "Histogram of BitOPs")
    return figure("BitOPs of the pictures", chart, caption)


def _counts(study: Study) -> list[list[NodeCount]]:
    found = study.own.found
    known = {bits: found.node_counts(bits) for bits in found.settings}
    return [known[bits] for bits in found.order]


def _layer_spreads(study: Study) -> Markup:
    rows = []
    for row in study.own.found.rows():
        points = [float(point) for point in row.bitops.percentiles.values()]
        rows.append(
            (
                row.name,
                *((f"{row.width.mean:.3f}", f"{row.width.deviation:.3f}") if row.width else ("", "")),
                *(metric(value) for value in (row.bitops.mean, row.bitops.deviation, *points)),
                energy(row.energy.mean),
                energy(row.energy.deviation),
                f"{row.cycles.mean:,.0f}",
            )
        )
    spreads = ("BitOPs", "deviation", "5 %", "25 %", "50 %", "75 %", "95 %", "energy", "deviation", "cycles")
    headings = ("layer", "width", "deviation", *spreads)
    return element("details", element("summary", "Spread of every layer"), table(headings, rows))


def examples(study: Study) -> Markup:
    """Return pictures with few and with many bits."""
    if not study.graph.dynamic:
        return Markup()
    pictures = by_width(study)
    count = min(EXAMPLES, len(pictures) // 2)
    if not count:
        return Markup()
    few, many = pictures[:count], pictures[::-1][:count]
    caption = (
        "Under each picture stand its class, what the network said where it was wrong, the average width that the "
        "controller chose, and the BitOPs that it took."
    )
    return section(
        "Example pictures",
        element("h3", "Fewest bits"),
        element("div", *(_example(study, i) for i in few), class_="pictures"),
        element("h3", "Most bits"),
        element("div", *(_example(study, i) for i in many), class_="pictures"),
        element("p", caption, class_="caption"),
    )


def _example(study: Study, index: int) -> Markup:
    assert study.split is not None
    found = study.own.found
    bits = found.order[index]
    bitops = sum(item.cost.bitops for item in found.node_counts(bits))
    label, said = study.labels[index], study.own.classes[index]
    name = study.class_name(label)
    answer = Markup() if label == said else element("em", f"said {study.class_name(said)}")
    return element(
        "div",
        element("img", src=data_uri(study.split.images[index]), alt=f"test picture {index}: {name}"),
        element("b", name),
        answer,
        element("span", f"{float(average_width(bits)):.2f} bits"),
        element("span", f"{metric(bitops)} BitOPs"),
    )

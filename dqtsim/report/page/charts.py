"""Plots as inline SVG. Colours are classes of the page's style sheet, so that they follow light and dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .markup import Markup, element, join, short

WIDTH = 580  # nominal units; the page shows them at about one CSS pixel each
LETTER = 6.4  # mean advance of a character at the font size of the plots
ROW = 21
BAR = 13
Format = Callable[[float], str]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Segment:
    """One piece of a bar: how long, its colour class, and what a tooltip says; `label` stands inside if it fits."""

    value: float
    colour: str
    tooltip: str = ""
    label: str = ""


@dataclass(frozen=True)
class Bar:
    """One row: a name, its pieces, what stands at the end, and marks (value, colour, tooltip) to compare with."""

    name: str
    segments: Sequence[Segment]
    end: str
    marks: Sequence[Segment] = ()
    quiet: bool = False


@dataclass(frozen=True)
class Dot:
    """A mean with the range from the 25th to the 75th percentile."""

    name: str
    value: float
    low: float
    high: float
    end: str


@dataclass(frozen=True)
class Point:
    """A point of the plot of accuracy against cost, with the interval of its accuracy."""

    name: str
    x: float
    y: float
    low: float
    high: float
    kind: str
    tooltip: str


def bars(rows: Sequence[Bar], show: Format, title: str, *, top: float | None = None) -> Markup:
    """Return horizontal bars with one axis that starts at zero."""
    left, right = name_column([row.name for row in rows]), 12 + LETTER * max(len(row.end) for row in rows)
    reach = [sum(part.value for part in row.segments) for row in rows]
    reach += [mark.value for row in rows for mark in row.marks]
    most = top or max([*reach, 1e-12])
    scale = (WIDTH - left - right) / most
    height = ROW * len(rows)
    aligned = any(row.marks for row in rows)
    parts = _grid_below(ticks(0, most), lambda x: left + x * scale, height, show)
    for index, row in enumerate(rows):
        y = ROW * index + (ROW - BAR) / 2
        x = left
        parts.append(name_text(row.name, left, y + BAR - 2.5, quiet=row.quiet))
        for part in row.segments:
            wide = part.value * scale
            if wide <= 0:
                continue
            fits = part.label and wide > LETTER * len(part.label) + 4
            inside = text(x + wide / 2, y + BAR - 2.5, part.label, "middle", f"on {part.colour}") if fits else None
            parts.append(titled(element("rect", x=x, y=y, width=wide, height=BAR, class_=part.colour), part.tooltip))
            parts.append(inside or Markup())
            x += wide
        for mark in row.marks:
            at = left + mark.value * scale
            line = element("rect", x=at - 1.5, y=y - 2.5, width=3, height=BAR + 5, class_=f"mark {mark.colour}")
            parts.append(titled(line, mark.tooltip))
        # a number beside a mark would seem to belong to the mark
        where, anchor = (float(WIDTH), "end") if aligned else (x + 6, "start")
        parts.append(text(where, y + BAR - 2.5, row.end, anchor, "quiet" if row.quiet else None))
    return svg(height + 22, title, *parts)


def dots(rows: Sequence[Dot], show: Format, title: str) -> Markup:
    """Return means with their middle halves on an axis that starts where the data do."""
    left, right = name_column([row.name for row in rows]), 12 + LETTER * max(len(row.end) for row in rows)
    low, high = _padded(min(row.low for row in rows), max(row.high for row in rows), 0.05)
    scale = (WIDTH - left - right) / (high - low)
    height = ROW * len(rows)

    def at(x: float) -> float:
        return left + (x - low) * scale

    parts = _grid_below(ticks(low, high), at, height, show)
    for index, row in enumerate(rows):
        y = ROW * (index + 0.5)
        parts.append(name_text(row.name, left, y + 4))
        parts.append(element("line", x1=at(row.low), x2=at(row.high), y1=y, y2=y, class_="range"))
        dot = element("circle", cx=at(row.value), cy=y, r=4.5, class_="own")
        parts.append(titled(dot, f"{row.name}: {row.end}, middle half {show(row.low)} to {show(row.high)}"))
        parts.append(text(WIDTH - right + 10, y + 4, row.end, "start"))
    return svg(height + 22, title, *parts)


def histogram(
    bins: Sequence[tuple[float, float, int]],
    lines: Sequence[tuple[float, str]],
    show: Format,
    axis: str,
    title: str,
) -> Markup:
    """Return columns (from, to, count) with labelled vertical lines; labels take as many rows as they need."""
    left, right, base = 44.0, WIDTH - 14.0, 190.0
    low, high = bins[0][0], bins[-1][1]
    most = max(count for _, _, count in bins)
    placed: list[list[tuple[float, float]]] = []
    labels = []

    def at(x: float) -> float:
        return left + (x - low) / (high - low) * (right - left)

    for value, name in lines:
        half = LETTER * len(name) / 2 + 4
        middle = min(max(at(value), left + half), right - half)
        row = 0
        while row < len(placed) and any(middle - half < b and a < middle + half for a, b in placed[row]):
            row += 1
        if row == len(placed):
            placed.append([])
        placed[row].append((middle - half, middle + half))
        labels.append((value, name, middle, row))
    head = 15.0 * len(placed) + 6
    tall = base - head
    parts = []
    for tick in [t for t in ticks(0, most) if t == int(t)]:
        y = base - tick / most * tall
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(text(left - 6, y + 4, f"{tick:,.0f}", "end", "quiet"))
    for start, end, count in bins:
        y = base - count / most * tall
        x = at(start)
        column = element("rect", x=x, y=y, width=max(at(end) - x - 1, 0.5), height=base - y, class_="own")
        parts.append(titled(column, f"{show(start)} to {show(end)}: {count} pictures"))
    for value, name, middle, row in labels:
        y = 12.0 + 15 * row
        parts.append(element("line", x1=at(value), x2=at(value), y1=y + 4, y2=base, class_="rule"))
        parts.append(text(middle, y, name, "middle"))
    for tick in ticks(low, high):
        parts.append(text(at(tick), base + 16, short(show(tick)), "middle", "quiet"))
    parts.append(text((left + right) / 2, base + 34, axis, "middle", "quiet"))
    return svg(base + 40, title, *parts)


def scatter(points: Sequence[Point], x_axis: str, y_axis: str, show: Format, title: str) -> Markup:
    """Return accuracy (0 to 1) against cost on a logarithmic axis; points of kind 'uniform' are joined by a line."""
    left, right, head, base = 48.0, WIDTH - 16.0, 26.0, 340.0
    x_low, x_high = math.log10(min(p.x for p in points)), math.log10(max(p.x for p in points))
    pad = 0.08 * (x_high - x_low) or 0.5
    x_low, x_high = x_low - pad, x_high + pad
    y_low, y_high = _padded(min(p.low for p in points), max(p.high for p in points), 0.06)
    y_low, y_high = max(y_low, 0.0), min(y_high, 1.0)

    def at(point: Point) -> tuple[float, float]:
        x = left + (math.log10(point.x) - x_low) / (x_high - x_low) * (right - left)
        return x, at_y(point.y)

    def at_y(y: float) -> float:
        return base - (y - y_low) / (y_high - y_low) * (base - head)

    parts = []
    for tick in ticks(100 * y_low, 100 * y_high, 8):
        y = at_y(tick / 100)
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(text(left - 6, y + 4, f"{tick:g}", "end", "quiet"))
    for tick in _log_ticks(x_low, x_high):
        x = left + (math.log10(tick) - x_low) / (x_high - x_low) * (right - left)
        parts.append(element("line", x1=x, x2=x, y1=head, y2=base, class_="grid"))
        parts.append(text(x, base + 16, short(show(tick)), "middle", "quiet"))
    parts.append(text((left + right) / 2, base + 34, x_axis, "middle", "quiet"))
    parts.append(text(4, 12, y_axis, "start", "quiet"))
    joined = [at(point) for point in points if point.kind == "uniform"]
    parts.append(element("path", d="M " + " ".join(f"{x:.1f},{y:.1f}" for x, y in joined), class_="join"))
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in map(at, points)]
    lines = [(at(point)[0] - 1, at_y(point.high), at(point)[0] + 1, at_y(point.low)) for point in points]
    for (x0, y0), (x1, y1) in pairwise(joined):
        steps = [i / 40 for i in range(41)]
        taken += [(x, y, x, y) for x, y in ((x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for t in steps)]
    for point in points:
        x, y = at(point)
        parts.append(element("line", x1=x, x2=x, y1=at_y(point.low), y2=at_y(point.high), class_=f"error {point.kind}"))
    marks = []
    # the model's own points come last, so that nothing covers them
    for point in sorted(points, key=lambda p: ("uniform", "plan", "own").index(p.kind)):
        x, y = at(point)
        marks.append(titled(_shape(point.kind, x, y), point.tooltip))
        parts.append(_label(point, x, y, lines, taken, (left, head - 10, right + 10, base)))
    return svg(base + 40, title, *parts, *marks)


def _shape(kind: str, x: float, y: float) -> Markup:
    if kind == "plan":
        return element("path", d=f"M {x:.1f} {y - 7:.1f} l 7 7 l -7 7 l -7 -7 z", class_="plan")
    return element("circle", cx=x, cy=y, r=7 if kind == "own" else 4.5, class_=kind)


def _label(point: Point, x: float, y: float, lines: Sequence[Box], taken: list[Box], frame: Box) -> Markup:
    """Put the name of a point beside it, where it covers nothing or only a thin line of an interval."""
    wide = LETTER * len(point.name) * (1.08 if point.kind == "own" else 1.0)
    choices = []
    for reach in ((0, -12, 12), (-24, 24, -36, 36)):
        for blocked in ([*taken, *lines], taken):
            choices += [(side, down, blocked) for down in reach for side in (1, -1)]
    for side, down, blocked in choices:
        at_x, at_y = x + side * (6 if down else 10), y + 4 + down
        start = at_x if side > 0 else at_x - wide
        place = (start, at_y - 10, start + wide, at_y + 3)
        inside = place[0] >= frame[0] and place[1] >= frame[1] and place[2] <= frame[2] and place[3] <= frame[3]
        if inside and not any(
            a < place[2] and place[0] < c and b < place[3] and place[1] < d for a, b, c, d in blocked
        ):
            break
    taken.append(place)
    anchor = "start" if side > 0 else "end"
    return text(at_x, at_y, point.name, anchor, "halo strong" if point.kind == "own" else "halo")


def strips(rows: Sequence[Sequence[str]], title: str, heights: Sequence[float]) -> Markup:
    """Return rows of coloured cells, stretched to the width of the page; neighbours of one colour are one piece."""
    parts = []
    y = 0.0
    for row, tall in zip(rows, heights, strict=True):
        start = 0
        for index in range(1, len(row) + 1):
            if index == len(row) or row[index] != row[start]:
                if row[start]:
                    cell = element("rect", x=start, y=y, width=index - start, height=tall - 1, class_=row[start])
                    parts.append(cell)
                start = index
        y += tall
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {len(rows[0])} {y:g}",
        preserveAspectRatio="none",
        role="img",
        aria_label=title,
        style=f"height:{y:g}px",
        class_="strips",
    )


def svg(height: float, title: str, *parts: Markup) -> Markup:
    """Return a plot of the nominal width."""
    return element("svg", *parts, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=title, class_="plot")


def text(x: float, y: float, what: str, anchor: str, class_: str | None = None) -> Markup:
    """Return text at a place."""
    return element("text", what, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=class_)


def titled(shape: Markup, tooltip: str) -> Markup:
    """Return a shape with a tooltip."""
    return element("g", element("title", tooltip), shape) if tooltip else shape


def name_column(names: Sequence[str]) -> float:
    """Return the width of the column of names: that of the longest name, within limits."""
    return min(max(LETTER * len(name) for name in names), 170.0) + 10


def name_text(name: str, left: float, y: float, *, quiet: bool = False) -> Markup:
    """Return the name of a row, right-aligned at its column; a long one is cut in the middle and has a tooltip."""
    most = int((left - 10) / LETTER)
    shown = name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most - most // 2) :]}"
    label = text(left - 8, y, shown, "end", "quiet" if quiet else None)
    return label if shown == name else titled(label, name)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers between `low` and `high`, both included where they are round."""
    raw = (high - low) / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(low), math.ceil(high) + 1)
    return [f * 10.0**d for d in decades for f in (1, 2, 5) if low <= math.log10(f * 10.0**d) <= high]


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    pad = share * (high - low) or 0.5
    return low - pad, high + pad


def _grid_below(at_ticks: list[float], at: Callable[[float], float], height: float, show: Format) -> list[Markup]:
    return [
        join(
            element("line", x1=at(tick), x2=at(tick), y1=0, y2=height, class_="grid"),
            text(at(tick), height + 15, short(show(tick)), "middle", "quiet"),
        )
        for tick in at_ticks
    ]

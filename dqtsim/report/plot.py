"""Signal to noise over the steps of a network as a plot, by matplotlib."""

import io
import math
from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from ..fidelity import SignalToNoise
from ..graph.model import Widths
from ..sensitivity import Sensitivity
from .text.runs import widths_text
from .text.sensitivity import TABLES, bits_text, cut_name, reference_text

_INK, _SOFT, _GRID = "#17202b", "#5a6676", "#e3e6eb"
# from many bits to few
_COLOURS = ("#1f9e89", "#26828e", "#31688e", "#3e4989", "#6a3d9a", "#b0308a", "#e0564a", "#f0942b")
_NAME = 30
_STYLE: Any = {
    "font.size": 9.0, "axes.edgecolor": _SOFT, "axes.linewidth": 0.8, "axes.titlesize": 10.5, "text.color": _INK,
    "axes.labelcolor": _SOFT, "ytick.color": _SOFT, "svg.hashsalt": "dqtsim",
}  # fmt: skip


def check_plots() -> None:
    """Raise InputError unless matplotlib is there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError('a plot needs matplotlib; install it with pip install "dqtsim[report]".') from None


def plot(found: Sensitivity, title: str, kind: str) -> bytes:
    """Return the plot as a file of a kind, png or svg; the same figures give the same file.

    Raises InputError without matplotlib.
    """
    check_plots()
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        steps = list(found.operators)
        figure = Figure(figsize=(min(max(9.0, 4.0 + 0.23 * len(steps)), 60.0), 8.2), layout="constrained")
        FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 1, sharex=True)
        figure.suptitle(f"{title} against {reference_text(found)}", x=0.01, ha="left", fontweight="bold", fontsize=12)
        _running(above, found, steps)
        _alone(below, found, steps)
        handles, labels = above.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False, title="bits", alignment="left")
        content = io.BytesIO()
        figure.savefig(content, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def _style(pairs: Sequence[Widths], pair: Widths) -> dict[str, Any]:
    """Return how the line of a pair looks: its colour says its place among the pairs, dashes that widths differ."""
    place = pairs.index(pair) / max(1, len(pairs) - 1)
    colour = _COLOURS[round(place * (len(_COLOURS) - 1))]
    alike = pair[0] == pair[1]
    return {
        "color": colour, "linestyle": "-" if alike else (0, (4, 2)), "marker": "o" if alike else "s", "markersize": 4,
        "linewidth": 1.4, "markeredgecolor": "white", "markeredgewidth": 0.6,
    }  # fmt: skip


def _running(axes: Any, found: Sensitivity, steps: Sequence[str]) -> None:
    axes.set_title(TABLES[0], loc="left", color=_INK)
    drawn = [ratio for ratios in found.running.values() for ratio in ratios.values()]
    ends = _ends(drawn)
    for pair, ratios in found.running.items():
        heights = [_height(ratios[name], ends) for name in steps]
        axes.plot(range(len(steps)), heights, label=widths_text(pair), **_style(list(found.network), pair))
    _frame(axes, ends, len(steps), drawn)


def _alone(axes: Any, found: Sensitivity, steps: Sequence[str]) -> None:
    """Draw the result's signal to noise by the layer that is narrow, and of all layers together at the right."""
    from matplotlib.patheffects import withStroke

    title = TABLES[1].format(others=bits_text(found.widest))
    axes.set_title(f"{title} (ring: the lowest)", loc="left", color=_INK)
    base = found.network[found.widest].ratio
    drawn = [outputs.ratio for layers in found.alone.values() for outputs in layers.values()]
    drawn += [found.network[pair].ratio for pair in found.alone]
    ends, right = _ends([*drawn, base]), len(steps) + 0.5
    if math.isfinite(base.decibel):
        axes.axhline(base.decibel, color=_SOFT, linewidth=0.9, linestyle=":")
        axes.text(-0.4, base.decibel, f"all at {bits_text(found.widest)}", va="bottom", color=_SOFT, fontsize=8)
    rings: dict[str, float] = {}
    for pair, layers in found.alone.items():
        style = _style(list(found.network), pair)
        places = [steps.index(layer) for layer in layers]
        heights = {layer: _height(outputs.ratio, ends) for layer, outputs in layers.items()}
        axes.plot(places, list(heights.values()), **style)
        axes.plot([right], [_height(found.network[pair].ratio, ends)], **style)
        worst = found.worst(pair)
        if worst is not None:
            ring = {"marker": "o", "markersize": 10, "markerfacecolor": "none", "linestyle": "none"}
            axes.plot([steps.index(worst)], [heights[worst]], **ring, markeredgecolor=style["color"])
            rings[worst] = min(rings.get(worst, math.inf), heights[worst])
    halo = [withStroke(linewidth=2.5, foreground="white")]
    for name, height in rings.items():
        where = {"xytext": (0, -9), "textcoords": "offset points", "ha": "center", "va": "top"}
        axes.annotate(
            cut_name(name, _NAME),
            (steps.index(name), height),
            **where,
            fontsize=8,
            fontweight="bold",
            path_effects=halo,
        )
    _frame(axes, ends, len(steps), drawn)
    axes.axvline(len(steps) - 0.25, color=_SOFT, linewidth=0.8)
    labels = [*(cut_name(name, _NAME) for name in steps), "all layers"]
    axes.set_xticks([*range(len(steps)), right], labels, rotation=90, fontsize=8)
    axes.set_xlim(-0.8, right + 0.7)
    free = next(iter(found.alone.values()), {})
    for label, name in zip(axes.get_xticklabels(), [*steps, ""], strict=True):
        label.set_color(_INK if name in free or not name else _SOFT)


def _ends(ratios: Sequence[SignalToNoise]) -> tuple[float, float]:
    """Return the least and the greatest height of finite ratios, with room around."""
    finite = [ratio.decibel for ratio in ratios if math.isfinite(ratio.decibel)] or [0.0]
    low, high = min(0.0, *finite), max(1.0, *finite)
    return low - 0.03 * (high - low), high + 0.1 * (high - low)


def _height(ratio: SignalToNoise, ends: tuple[float, float]) -> float:
    """Return where a ratio is drawn: an infinite one at an end."""
    return min(max(ratio.decibel, ends[0]), ends[1])


def _frame(axes: Any, ends: tuple[float, float], steps: int, drawn: Sequence[SignalToNoise]) -> None:
    """Set limits, grid and ticks; where something drawn is infinite, the upper end says so."""
    low, high = ends
    axes.set_ylabel("dB")
    axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    ticks = [tick for tick in axes.get_yticks() if low < tick < high - 0.04 * (high - low)]
    equal = [high] if any(ratio.decibel == math.inf for ratio in drawn) else []
    axes.set_yticks([*ticks, *equal], [*(f"{tick:g}" for tick in ticks), *("equal" for _ in equal)])
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for step in range(0, steps, 2):
        axes.axvspan(step - 0.5, step + 0.5, color="#f6f7f9", linewidth=0, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=0)

"""Which layer hurts at which widths, as a self-contained page."""

import base64

from ... import __version__
from ...graph.model import Widths
from ...sensitivity import Sensitivity
from ..plot import plot
from ..text.runs import widths_text
from ..text.sensitivity import (
    TABLES,
    Columns,
    alone_ratios,
    bits_text,
    reference_text,
    running_ratios,
    sentences,
    worst_rows,
)
from .html import document
from .markup import SPACE, Markup, element, percent
from .sections import section


def page(found: Sensitivity, title: str) -> str:
    """Return the page with the sentences, the plot and both tables. Raises InputError without matplotlib."""
    heading = f"{title} against {reference_text(found)}"
    picture = base64.b64encode(plot(found, title, "svg")).decode("ascii")
    image = element("img", src=f"data:image/svg+xml;base64,{picture}", alt="signal to noise over the steps")
    lead = (
        "Signal to noise is 10 log10 of the sum of squares of the reference over that of the differences from it, over "
        "all pictures and elements; inf means equal. Integers stand for their real values, scale × (q − zero point)."
    )
    layers = list(next(iter(found.alone.values()), {}))
    parts = [
        element("h1", heading),
        element("p", lead, class_="lead"),
        element("ul", *(element("li", sentence) for sentence in sentences(found))),
        element("div", image, class_="scroll"),
        section(TABLES[0], _table(running_ratios(found), list(found.operators), {})),
    ]
    if found.alone:
        shares = {
            pair: {layer: percent(one.agree, one.pictures) for layer, one in alone.items() if one.classifies}
            for pair, alone in found.alone.items()
        }
        parts.append(
            section(TABLES[1].format(others=bits_text(found.widest)), _table(alone_ratios(found), layers, shares))
        )
    parts.append(element("p", f"made by dqtsim {__version__}; every figure is that of the exact integer engine"))
    return document(heading, *parts)


def _table(columns: Columns, layers: list[str], shares: dict[Widths, dict[str, str]]) -> Markup:
    """Return a table whose worst cells are bold; `shares` of equal classes stand beside the decibels."""
    pairs = list(columns)
    worst = {pair: worst_rows(columns[pair], layers) for pair in pairs}
    body = []
    for name in columns[pairs[0]]:
        cells = []
        for pair in pairs:
            share = shares.get(pair, {}).get(name)
            text = f"{columns[pair][name].decibel:.1f}{SPACE}dB" + (f" · {share}" if share else "")
            cells.append(element("td", element("strong", text) if name in worst[pair] else text))
        body.append(element("tr", element("th", name, scope="row"), *cells))
    headings = ("", *map(widths_text, pairs))
    head = element("tr", *(element("th", text, scope="col") for text in headings))
    table = element("table", element("thead", head), element("tbody", *body))
    return element("div", table, class_="scroll")

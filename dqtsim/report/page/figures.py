"""The page's plots as separate files, for documents that show some of them."""

import re
from importlib.resources import files
from xml.etree import ElementTree

from . import charts

_SVG = "http://www.w3.org/2000/svg"
_FIGURE = re.compile(r"<figure.*?</figure>", re.DOTALL)
_MARGIN, _TITLE, _LINE = 12, 24, 20
# The width of a legend entry without its letters: its square and the gaps.
_KEY = 36


def figures(page: str) -> dict[str, str]:
    """Return the page's plots as SVG documents with title and legend, by file name without ending.

    The name is the title in lower case, words joined by hyphens. Maps of pictures and tables are not plots.
    """
    found = {}
    for match in _FIGURE.finditer(page):
        figure = ElementTree.fromstring(match.group())
        plot = figure.find("svg[@class='plot']")
        if plot is not None:
            title = "".join(figure.find("h3").itertext())  # type: ignore[union-attr]
            found[re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")] = _document(title, figure, plot)
    return found


def _document(title: str, figure: ElementTree.Element, plot: ElementTree.Element) -> str:
    """Return a plot under its title and its legend, with the colours of the page."""
    height = float(plot.attrib["viewBox"].split()[3])
    heading = ElementTree.Element("text", {"x": "0", "y": "14", "class": "strong"})
    heading.text = title
    parts, x, top = [heading], 0.0, float(_TITLE)
    for key in figure.findall("p[@class='legend']/span"):
        square, words = key[0][0], key[0].tail or ""
        wide = _KEY + charts.LETTER * len(words)
        if x and x + wide > charts.WIDTH:
            x, top = 0.0, top + _LINE
        place = ElementTree.Element("g", {"transform": f"translate({x:g} {top:g})"})
        place.append(square)
        label = ElementTree.SubElement(place, "text", {"x": "18", "y": "10"})
        label.text = words
        parts.append(place)
        x += wide
    if x:
        top += _LINE
    top += 4
    body = ElementTree.Element("g", {"class": "plot", "transform": f"translate(0 {top:g})"})
    body.extend(list(plot))
    parts.append(body)
    width, total = charts.WIDTH + 2 * _MARGIN, height + top + 2 * _MARGIN
    document = ElementTree.Element(
        "svg", {"xmlns": _SVG, "viewBox": f"0 0 {width:g} {total:g}", "width": f"{width:g}", "height": f"{total:g}"}
    )
    ElementTree.SubElement(document, "style").text = (files(__package__) / "page.css").read_text("utf-8")
    ElementTree.SubElement(document, "rect", {"width": "100%", "height": "100%", "style": "fill: var(--page)"})
    inner = ElementTree.SubElement(document, "g", {"transform": f"translate({_MARGIN} {_MARGIN})"})
    inner.extend(parts)
    return ElementTree.tostring(document, encoding="unicode") + "\n"

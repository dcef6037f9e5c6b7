"""HTML and SVG as text: elements that escape what they are given, and numbers with units."""

from html import escape

VOID = ("meta", "img", "br")
CLOSED = ("rect", "line", "circle", "path")
SPACE = "\N{NO-BREAK SPACE}"  # a number and its unit stay on one line


class Markup(str):
    """Text that is markup already and is not escaped again."""

    __slots__ = ()


Child = str | Markup | None
Attribute = str | float | None


def element(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """Return an element. `class_` is the class, an underscore in a name is a hyphen, None is left out."""
    pairs = (
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    opening = f"<{name}{''.join(pairs)}"
    if name in VOID:
        return Markup(f"{opening}>")
    inside = join(*children)
    if name in CLOSED and not inside:
        return Markup(f"{opening}/>")
    return Markup(f"{opening}>{inside}</{name}>")


def join(*children: Child) -> Markup:
    """Return the children one after the other, text escaped."""
    shown = (child if isinstance(child, Markup) else escape(child, quote=False) for child in children if child)
    return Markup("".join(shown))


def table(headings: tuple[str, ...], rows: list[tuple[str, ...]], *, marked: int | None = None) -> Markup:
    """Return a table that scrolls alone if it is too wide; the first column names the row."""
    head = element("tr", *(element("th", text, scope="col") for text in headings))
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell) for cell in row[1:]),
            class_="marked" if index == marked else None,
        )
        for index, row in enumerate(rows)
    ]
    return element("div", element("table", element("thead", head), element("tbody", *body)), class_="scroll")


def _text(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


def metric(value: float, unit: str = "") -> str:
    """Return a number of three digits with a metric prefix: '12.5 M', '801 kb'."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{_three(value / size)}{SPACE}{prefix}{unit}"
    shown = str(int(value)) if value == int(value) else _three(value)
    return f"{shown}{SPACE}{unit}".rstrip()


def energy(picojoule: float) -> str:
    """Return an energy of three digits: '5.91 µJ'."""
    if not picojoule:
        return f"0{SPACE}pJ"
    for prefix, size in (("m", 1e9), ("µ", 1e6), ("n", 1e3)):
        if picojoule >= 0.9995 * size:
            return f"{_three(picojoule / size)}{SPACE}{prefix}J"
    return f"{_three(picojoule)}{SPACE}pJ"


def percent(part: float, whole: float) -> str:
    """Return a share: '64 %', with one decimal below ten, and '<0.1 %' instead of a rounded zero."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.05:
        return f"<0.1{SPACE}%"
    return f"{share:.0f}{SPACE}%" if share >= 9.95 or share == 0 else f"{share:.1f}{SPACE}%"


def short(quantity: str) -> str:
    """Return a formatted number without trailing zeros, for an axis: '2.5 k', not '2.50 k'."""
    number, space, unit = quantity.partition(SPACE)
    return (number.rstrip("0").rstrip(".") if "." in number else number) + space + unit


def _three(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"

"""One self-contained page about a model: it loads nothing from elsewhere and does not depend on the time."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from ... import __version__
from ...golden import hash_file
from ..text.runs import widths_text
from .choices import choices, distributions, examples
from .layers import layers
from .markup import Markup, element, join
from .sections import section, settings, summary
from .study import Study

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(study: Study, model: Path) -> str:
    """Return the page about `study`, whose model is the file `model`."""
    parts = [element("h1", study.graph.name), element("p", _lead(study), class_="lead"), summary(study)]
    if study.split is None:
        parts.append(_hint(study, model))
    parts += [settings(study), layers(study)]
    if study.split is not None:
        parts += [choices(study), distributions(study), examples(study)]
    parts.append(_provenance(study, model))
    return document(f"{study.graph.name}: dqtsim report", *parts)


def document(title: str, *parts: Markup) -> str:
    """Return a page of these parts with the style sheet inside."""
    style = resources.files("dqtsim.report.page").joinpath("page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(style)),
    )
    body = element("body", element("main", *parts))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _lead(study: Study) -> str:
    graph, rules = study.graph, study.graph.arithmetic
    candidates = ", ".join(widths_text(pair) for pair in graph.candidates)
    chooser = (
        f"A controller in the network chooses the width of each layer for each picture, from {candidates} bits."
        if graph.dynamic
        else "The width of each layer is fixed in the file."
    )
    seen = "" if study.split is None else f" Measured on {len(study.split):,} test pictures of {study.split.name}."
    return (
        f"A network of {len(graph.layers)} nested integer layers: the code of a lower width is the shifted top of the "
        f"{rules.master_width}-bit master code. {chooser}{seen}"
    )


def _hint(study: Study, model: Path) -> Markup:
    widest = "; its costs are those of the controller's widest choice" if study.graph.dynamic else ""
    command = element("code", f"dqtsim report {model.name} --data DIR -o report.html")
    return element(
        "p",
        f"No pictures were given, so this page shows structure and cost only{widest}. ",
        command,
        " with a folder of CIFAR-10 or of images adds accuracy against BitOPs, the widths that the pictures get, their "
        "distribution, and example pictures.",
        class_="hint",
    )


def _provenance(study: Study, model: Path) -> Markup:
    graph, target, rules = study.graph, study.target, study.graph.arithmetic
    rounding = target.rounding or rules.rounding
    entries = [
        ("model file", f"{model.name}, {model.stat().st_size:,} bytes, SHA-256 {hash_file(model)}"),
        *((f"model, {key}", _readable(value)) for key, value in graph.producer.items()),
        (
            "arithmetic",
            f"weights nest by {rules.weight_rule}, activations by {rules.activation_rule}, requantization rounds "
            f"{rounding}",
        ),
        (
            "pinned layers",
            ", ".join(f"{name} at {widths_text(pair)} bits" for name, pair in graph.pinned.items()) or "none",
        ),
        (
            "target",
            f"{target.name}: {target.description}; accumulators of {target.accumulator_width} bits, overflow "
            f"{target.overflow}, multipliers of {target.multiplier_width} bits, array {target.rows} × {target.columns} "
            f"{target.mode}",
        ),
        ("energy", f"{study.energy.name}: {study.energy.source}; other widths interpolated"),
    ]
    if study.split is not None:
        entries.append(("pictures", f"the first {len(study.split):,} test pictures of {study.split.name}"))
    entries += [
        ("MAC", "one multiplication and one addition; taps in the padding are counted"),
        ("BitOPs", "sum over MACs of weight width × activation width"),
        ("average width", "mean of weight and activation widths, each layer counted once"),
        ("made by", f"dqtsim {__version__}; every accuracy is that of the exact integer engine"),
    ]
    rows = join(*(join(element("dt", name), element("dd", text)) for name, text in entries))
    return section("Where the numbers come from", element("dl", rows))


def _readable(value: str) -> str:
    """Return a value of the producer; a JSON object as names and values without its punctuation."""
    try:
        tree = json.loads(value)
    except ValueError:
        return value
    return ", ".join(f"{name} {_flat(entry)}" for name, entry in tree.items()) if isinstance(tree, dict) else value


def _flat(entry: Any) -> str:
    if isinstance(entry, dict):
        return f"({', '.join(f'{name} {_flat(part)}' for name, part in entry.items())})"
    if isinstance(entry, list):
        return "/".join(_flat(part) if not isinstance(part, list) else f"({_flat(part)})" for part in entry)
    return "none" if entry is None else str(entry)

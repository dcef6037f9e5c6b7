"""The page: whole, self-contained, deterministic, and its numbers are those of the counts."""

import base64
import io
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dqtsim.counting.counts import totals
from dqtsim.engines.registry import run
from dqtsim.graph import save
from dqtsim.report.page import charts, choices, png
from dqtsim.report.page.choices import by_width
from dqtsim.report.page.html import page
from dqtsim.report.page.markup import Markup, element, energy, metric, percent, short
from dqtsim.report.page.study import Study, count_widest, interval, prepare

from .conftest import PICTURES, Command, network, over_pictures

VOID = {"meta", "img", "br"}
LOADS = {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}


class Page(HTMLParser):
    """A page taken apart: its text, its elements, and whatever it would load."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.text = ""
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.loads: list[str] = []
        self.feed(markup)
        self.close()
        self.text = self.text.replace("\N{NO-BREAK SPACE}", " ")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "iframe", "object", "embed"}
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        self.loads += [value or "" for name, value in attrs if name in LOADS]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"

    def having(self, tag: str, class_: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag and attributes.get("class") == class_]


@pytest.fixture(scope="session")
def seen(study: Study, files: Path) -> Page:
    return Page(page(study, files / "model.onnx"))


def test_every_element_is_closed_and_nothing_is_loaded(study: Study, files: Path, seen: Page) -> None:
    assert seen.open == []
    assert all(address.startswith("data:image/png;base64,") for address in seen.loads)
    markup = page(study, files / "model.onnx")
    assert not re.search(r"url\(|@import|https?:", markup)
    assert str(files) not in markup


def test_layers_and_exact_counts_are_on_the_page(study: Study, seen: Page) -> None:
    for layer in study.graph.layers:
        assert f"\n{layer}\n" in seen.text
    for record in study.uniform:
        counts = record.found.node_counts(record.found.order[0])
        for item in counts:
            if item.name in study.graph.layers:
                assert f"\n{item.cost.bitops:,}\n" in seen.text
                assert f"\n{sum(item.cost.macs.values()):,}\n" in seen.text
        assert f"\n{metric(totals(counts)[0].bitops)}\n".replace("\N{NO-BREAK SPACE}", " ") in seen.text


def test_the_summary_is_that_of_the_runs(study: Study, seen: Page) -> None:
    assert study.split is not None
    results = list(run(study.own.plan, study.split.images))
    right = sum(result.class_index == int(label) for result, label in zip(results, study.split.labels, strict=True))
    assert f"\n{100 * right / PICTURES:.2f} %\n" in seen.text
    assert f"{right} of {PICTURES} right" in seen.text
    bitops = sum(result.bitops for result in results) / PICTURES
    assert f"\n{metric(bitops)}\n".replace("\N{NO-BREAK SPACE}", " ") in seen.text
    assert f"\n{len({result.bits for result in results})}\n" in seen.text


def test_every_setting_is_compared(study: Study, seen: Page) -> None:
    assert [record.name for record in study.records] == [
        "dynamic", "8 bits", "6 bits", "5 bits", "4 bits", "3 bits", "2 bits", "plan",
    ]  # fmt: skip
    for record in study.records:
        share = 100 * record.right(study.labels) / PICTURES
        row = f"\n{record.name}\n{share:.2f} %\n"
        assert row in seen.text
    assert study.records[-1].found.order[0] == ((8, 8), (4, 4), (8, 4))


def test_the_map_has_every_picture_in_every_row(study: Study, seen: Page) -> None:
    at = next(i for i, (tag, given) in enumerate(seen.elements) if given.get("class") == "strips")
    assert seen.elements[at][1]["viewbox"] == f"0 0 {PICTURES} 80"
    rows: dict[str, dict[int, str]] = {}
    for tag, given in seen.elements[at + 1 :]:
        if tag != "rect":
            break
        start, wide = int(str(given["x"])), int(str(given["width"]))
        row = rows.setdefault(str(given["y"]), {})
        row.update(dict.fromkeys(range(start, start + wide), str(given["class"])))
    order = [study.own.found.order[i] for i in by_width(study)]
    for position, y in enumerate(("0", "20", "40")):
        assert [rows[y][i] for i in range(PICTURES)] == [f"w{bits[position][0]}" for bits in order]
    wrong = {column for column, i in enumerate(by_width(study)) if study.own.classes[i] != study.labels[i]}
    assert set(rows["60"]) == wrong


def test_a_map_of_very_many_pictures_shows_some(study: Study, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "COLUMNS", 5)
    seen = Page(page(study, files / "model.onnx"))
    assert seen.having("svg", "strips")[0]["viewbox"] == "0 0 5 80"
    assert "the columns are 5 of them, evenly spaced" in seen.text


def test_example_pictures_are_those_with_fewest_and_most_bits(study: Study, seen: Page) -> None:
    pictures = by_width(study)
    assert study.split is not None
    shown = [given for tag, given in seen.elements if tag == "img"]
    assert [given["src"] for given in shown] == [
        png.data_uri(study.split.images[i]) for i in pictures[:8] + pictures[::-1][:8]
    ]


def test_a_png_is_the_picture() -> None:
    image = pytest.importorskip("PIL.Image")
    picture = np.random.default_rng(0).integers(0, 256, (3, 5, 7), np.uint8)
    content = base64.b64decode(png.data_uri(picture).removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(image.open(io.BytesIO(content))), picture.transpose(1, 2, 0))


def test_the_same_page_twice(files: Path, tmp_path: Path, command: Command) -> None:
    words = ("report", files / "model.onnx", "--data", files / "data", "--plan", files / "plan.toml", "-o")
    for name, threads in (("a.html", 1), ("b.html", 2)):
        assert command(*words, tmp_path / name, "--threads", threads).exit_code == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_the_same_page_whatever_the_hash_seed(files: Path, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        words = [sys.executable, "-m", "dqtsim", "report", str(files / "model.onnx"), "-o", f"{seed}.html"]
        subprocess.run(words, cwd=tmp_path, env={"PYTHONHASHSEED": seed}, check=True, capture_output=True)
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


def test_without_pictures(files: Path) -> None:
    from dqtsim.energy import load_energy
    from dqtsim.target import load_target

    study = prepare(network(), load_target("default"), load_energy())
    count_widest(study)
    seen = Page(page(study, files / "model.onnx"))
    assert "dqtsim report model.onnx --data DIR -o report.html" in seen.text
    assert "top-1" not in seen.text.lower()
    assert not seen.having("svg", "strips")
    assert study.own.found.order == [((8, 8),) * 3]
    assert all(f"\n{layer}\n" in seen.text for layer in study.graph.layers)


def test_a_static_model(files: Path) -> None:
    study = over_pictures(network(dynamic=False), files / "data")
    seen = Page(page(study, files / "static.onnx"))
    assert study.own.name == "static"
    assert "every picture runs at the same ones" in seen.text
    assert not seen.loads


def test_weights_and_activations_of_unlike_widths_have_a_map_each(files: Path) -> None:
    study = over_pictures(network(((2, 4), (8, 8), (3, 8))), files / "data")
    seen = Page(page(study, files / "model.onnx"))
    assert len(seen.having("svg", "strips")) == 2
    assert "\nw2a4 bits\n" in seen.text


def test_names_are_text(files: Path, tmp_path: Path) -> None:
    names = ('<script>alert("x")</script>', "a&b", "'c'", *"defghij")
    graph = replace(network(class_names=()), name="<b>&", producer={"name": "<img src=x>", "set": '{"a": [1, null]}'})
    save(graph, tmp_path / "m.onnx")
    study = over_pictures(graph, files / "data")
    assert study.split is not None
    study.split = replace(study.split, class_names=names)
    seen = Page(page(study, tmp_path / "m.onnx"))
    assert seen.open == []
    assert "\n<b>&\n" in seen.text
    assert names[0] in seen.text
    assert "\na 1/none\n" in seen.text


def test_markup() -> None:
    assert element("p", "a<b", Markup("<i>c</i>"), None, class_="x&y") == '<p class="x&amp;y">a&lt;b<i>c</i></p>'
    assert element("rect", x=1.5, width=2.0, height=0.333) == '<rect x="1.5" width="2" height="0.33"/>'
    assert element("meta", http_equiv='"') == '<meta http-equiv="&quot;">'


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (metric(0), "0"), (metric(999), "999"), (metric(999.9), "1.00 k"), (metric(12_519_744), "12.5 M"),
        (metric(801_263_616), "801 M"), (metric(999_600), "1.00 M"), (metric(640, "b"), "640 b"),
        (metric(2.5e13, "b"), "25.0 Tb"), (energy(0.5), "0.50 pJ"), (energy(5_910_000), "5.91 µJ"),
        (energy(2e9), "2.00 mJ"), (percent(0, 5), "0 %"), (percent(1, 1), "100 %"), (percent(1, 3), "33 %"),
        (percent(1, 30), "3.3 %"), (percent(1, 30000), "<0.1 %"), (percent(1, 0), "0 %"),
        (short("2.50 k".replace(" ", "\N{NO-BREAK SPACE}")), "2.5 k"), (short("500"), "500"),
    ],
)  # fmt: skip
def test_numbers_as_the_page_has_them(shown: str, expected: str) -> None:
    assert shown.replace("\N{NO-BREAK SPACE}", " ") == expected


def test_ticks_are_round_and_inside() -> None:
    assert charts.ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert charts.ticks(0, 1) == [0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
    assert charts.ticks(62.1, 85.9, 8) == [65, 70, 75, 80, 85]


def test_wilson_interval() -> None:
    # figures of the method for 5 of 10, 0 of 10 and 10 of 10
    for right, expected in ((5, ("0.2366", "0.7634")), (0, ("0.0000", "0.2775")), (10, ("0.7225", "1.0000"))):
        low, high = interval(right, 10)
        assert (f"{abs(low):.4f}", f"{high:.4f}") == expected


def test_labels_of_points_cover_no_point_and_no_label() -> None:
    points = [
        charts.Point(f"{b} bits", b * b * 1e6, 0.8 + b / 100, 0.7, 0.95, "uniform", "") for b in (8, 6, 5, 4, 3, 2)
    ]
    points.append(charts.Point("dynamic", 21e6, 0.83, 0.8, 0.9, "own", ""))
    seen = Page(charts.scatter(points, "x", "y", metric, "title"))
    boxes: list[tuple[float, float, float, float]] = []
    for tag, given in seen.elements:
        if tag == "text" and str(given.get("class")).startswith("halo"):
            x, y = float(str(given["x"])), float(str(given["y"]))
            wide = 6 * 6.4
            boxes.append((x - wide if given.get("text-anchor") == "end" else x, y - 9, wide, 11))
        if tag == "circle":
            x, y, r = (float(str(given[key])) for key in ("cx", "cy", "r"))
            boxes.append((x - r, y - r, 2 * r, 2 * r))
    assert len(boxes) == 14
    for i, (x, y, wide, tall) in enumerate(boxes):
        for u, v, w, t in boxes[:i]:
            assert x + wide <= u or u + w <= x or y + tall <= v or v + t <= y

"""`dqtsim report` and `dqtsim count-ops --data`: what they say, and that a refusal writes nothing."""

import json
import re
from dataclasses import replace
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dqtsim.golden import hash_file
from dqtsim.graph import save
from dqtsim.report.page.study import Study
from dqtsim.target import target_text
from tests.builders import network as small
from tests.builders import pooled

from .conftest import PICTURES, Command, network


def refusal(command: Command, *words: object) -> str:
    """Return the one sentence that wrong use gets."""
    result = command(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").removesuffix("\n")


def test_a_page(command: Command, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    result = command("report", files / "model.onnx", "--data", files / "data", "--limit", 5, "-o", out)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{out}: 7 settings, 5 pictures, {out.stat().st_size:,} bytes\n"
    assert out.read_text(encoding="utf-8").startswith('<!DOCTYPE html>\n<html lang="en">')
    assert list(tmp_path.iterdir()) == [out]


def test_a_page_without_pictures(command: Command, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    result = command("report", files / "model.onnx", "--plan", files / "plan.toml", "-o", out)
    assert result.stdout == f"{out}: 8 settings, {out.stat().st_size:,} bytes\n"


def test_plots_as_files(command: Command, files: Path, tmp_path: Path) -> None:
    out, folder = tmp_path / "r.html", tmp_path / "plots"
    words = ("report", files / "model.onnx", "--data", files / "data", "--limit", 5, "-o", out, "--figures", folder)
    assert command(*words).exit_code == 0
    page, plots = out.read_text(encoding="utf-8"), sorted(folder.glob("*.svg"))
    assert {"accuracy-against-bitops.svg", "how-often-each-layer-used-which-width.svg"} <= {p.name for p in plots}
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["report"] == [plot.name for plot in plots]
    assert manifest["model_sha256"] == hash_file(files / "model.onnx")
    assert len(plots) == len(re.findall('<svg[^>]*class="plot"', page))
    for plot in plots:
        document = ElementTree.parse(plot)
        texts = ["".join(text.itertext()) for text in document.iter("{http://www.w3.org/2000/svg}text")]
        title, *others = texts
        figure = next(f for f in re.findall("<figure.*?</figure>", page, re.DOTALL) if f"<h3>{escape(title)}</h3>" in f)
        shown = ["".join(element.itertext()) for element in ElementTree.fromstring(figure).iter("text")]
        keys = [element.tail for element in ElementTree.fromstring(figure).findall("p/span/svg")]
        assert others == keys + shown
        assert "href" not in plot.read_text(encoding="utf-8")
    assert command(*words).exit_code == 0
    fewer = ("report", files / "model.onnx", "-o", out, "--figures", folder)
    assert command(*fewer).exit_code == 0
    # without pictures there is no accuracy to plot, and no plot of older ones is left
    assert not (folder / "accuracy-against-bitops.svg").exists()
    assert (folder / "bitops-of-every-setting.svg").exists()
    (folder / "plan.svg").touch()
    assert refusal(command, *fewer) == (
        f"the folder '{folder}' cannot be written: it holds 'plan.svg', which this command did not make; "
        "name a new or an empty folder."
    )


def test_page_and_plots_in_one_folder(command: Command, files: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    words = ("report", files / "model.onnx", "-o", folder / "r.html", "--figures", folder)
    for _ in range(2):
        assert command(*words).exit_code == 0
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        found = sorted(path.name for path in folder.iterdir())
        assert found == sorted([*manifest["report"], "manifest.json"])
        assert "r.html" in found
    (folder / "in").mkdir()
    assert refusal(command, *words) == (
        f"the folder '{folder}' cannot be written: it holds 'in', which this command did not make; "
        "name a new or an empty folder."
    )
    assert refusal(command, *words[:3], folder / "r.html", "--figures", tmp_path) == (
        f"the folder '{tmp_path}' cannot be written: it holds 'out', which this command did not make; "
        "name a new or an empty folder."
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--figures", "{out}/no/plots"], "the folder '{out}/no/plots' cannot be written: '{out}/no' is no folder."),
        (["--figures", "{model}"], "the folder '{model}' cannot be written: it is no folder."),
        (["-o", "{out}/no/r.html"], "-o writes into an existing folder; '{out}/no' is none."),
        (["-o", "{out}/r.htm"], "-o writes a .html file; found '{out}/r.htm'."),
        (["--data", "{out}/no"], "the data must be a folder, but there is no folder at {out}/no."),
        (
            ["--data", "{out}"],
            "the data folder must hold data_batch_1 (CIFAR-10 python), data_batch_1.bin (CIFAR-10 binary) or a folder "
            "train (one folder of images per class), but none of them is in {out}.",
        ),
        (["--plan", "4"], "--plan takes a .json or .toml plan file; found '4'."),
        (["--plan", "{out}/no.toml"], "the plan file '{out}/no.toml' cannot be read: no such file or directory."),
        (["--target", "best"], "a target is one of acc16-wrap, acc20-saturate-each, acc24-saturate, default, mult31, "
         "or a .toml file; found 'best'."),
        (["--energy", "best"], "an energy table is horowitz-45nm or a .toml file; found 'best'."),
    ],
)  # fmt: skip
def test_refusals(command: Command, files: Path, tmp_path: Path, words: list[str], message: str) -> None:
    model = files / "model.onnx"
    given = [word.format(out=tmp_path, model=model) for word in words]
    output = [] if "-o" in given else ["-o", tmp_path / "r.html"]
    assert refusal(command, "report", files / "model.onnx", *given, *output) == message.format(
        out=tmp_path, model=model
    )
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_do_not_fit(command: Command, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    out.write_text("before", encoding="utf-8")
    model = tmp_path / "model.onnx"
    save(replace(small(), class_names=()), model)
    words = ("report", model, "--data", files / "data", "-o", out)
    assert refusal(command, *words) == (
        f"the model takes codes of dtype uint8 and shape (N, 3, 6, 6); found uint8 ({PICTURES}, 3, 32, 32)."
    )
    save(network(class_names=tuple("abcdefghij")), model)
    assert refusal(command, *words) == (
        f"the classes of '{files / 'data'}' are ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', "
        "'horse', 'ship', 'truck'); the model's are ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j')."
    )
    assert out.read_text(encoding="utf-8") == "before"


def test_a_model_without_layers(command: Command, tmp_path: Path) -> None:
    save(pooled((3, 4, 4), "max_pool", kernel=(2, 2), strides=(1, 1)), tmp_path / "m.onnx")
    message = refusal(command, "report", tmp_path / "m.onnx", "-o", tmp_path / "r.html")
    assert message == "a report is about nested layers; model 'one' has none."


def test_one_picture(command: Command, files: Path, tmp_path: Path) -> None:
    words = ("report", files / "model.onnx", "--data", files / "data", "--limit", 1, "-o", tmp_path / "r.html")
    assert command(*words).exit_code == 0


def test_an_error_in_the_middle_writes_nothing(command: Command, files: Path, tmp_path: Path) -> None:
    target = tmp_path / "tiny.toml"
    text = target_text("default")
    target.write_text(text.replace("width = 32", "width = 12", 1), encoding="utf-8")
    out = tmp_path / "r.html"
    words = ("report", files / "model.onnx", "--data", files / "data", "--target", target, "-o", out)
    assert "accumulator" in refusal(command, *words)
    assert list(tmp_path.iterdir()) == [target]


def test_count_ops_over_pictures(command: Command, files: Path, study: Study) -> None:
    result = command("count-ops", files / "model.onnx", "--data", files / "data", "--threads", 1)
    settings = len(study.own.found.settings)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"tiny, bits dynamic: {PICTURES} pictures, {settings} different settings"
    assert lines[-1].startswith("weight nesting ")


def test_count_ops_over_pictures_as_json(command: Command, files: Path, study: Study) -> None:
    words = ("count-ops", files / "model.onnx", "--data", files / "data", "--json")
    block = json.loads(command(*words).stdout)
    assert block["bits_policy"] == "dynamic"
    assert block["distribution"]["total"]["bitops"]["sum"] == study.own.found.total().bitops.sum
    some = json.loads(command(*words, "--limit", 4, "--bits", "w4a8").stdout)["distribution"]
    assert (some["pictures"], some["settings"], some["rows"][1]["widths"]) == (4, 1, {"w4a8": 4})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "x.npy"], "--input and --data exclude each other."),
        (["--csv"], "--data gives distributions as tables or --json; --csv and --by are for one picture."),
        (["--by", "type"], "--data gives distributions as tables or --json; --csv and --by are for one picture."),
    ],
)
def test_count_ops_refusals(command: Command, files: Path, words: list[str], message: str) -> None:
    assert refusal(command, "count-ops", files / "model.onnx", "--data", files / "data", *words) == message


def test_count_ops_limit_needs_data(command: Command, files: Path) -> None:
    assert refusal(command, "count-ops", files / "model.onnx", "--limit", 3) == "--limit is for --data."

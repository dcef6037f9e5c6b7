"""The tutorial runs as it is printed: the notebook's cells, in their order, and the page says the same."""

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"
CELLS: list[dict[str, Any]] = json.loads((DOCS / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_the_page_is_the_notebook() -> None:
    parts = ["".join(cell["source"]) for cell in CELLS]
    shown = [
        f"```python\n{text}\n```" if cell["cell_type"] == "code" else text
        for cell, text in zip(CELLS, parts, strict=True)
    ]
    assert (DOCS / "tutorial.md").read_text(encoding="utf-8") == "\n\n".join(shown) + "\n"


def test_the_notebook_is_kept_without_results() -> None:
    assert {(cell["execution_count"], *cell["outputs"]) for cell in CELLS if cell["cell_type"] == "code"} == {(None,)}


def test_to_vectors_takes_fifteen_lines() -> None:
    lines = [line for line in CODE[1].splitlines() if line.strip()]
    assert '"vectors", "tutorial.onnx"' in CODE[1]
    assert len(lines) <= 15


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (DOCS / "tutorial.md").read_text(encoding="utf-8"))
    assert links
    assert all((DOCS / link).exists() for link in links)


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, code in enumerate(CODE):
            exec(compile(code, f"cell {number}", "exec"), names)
    shown = capsys.readouterr().out
    agreed = [int(count) for count in re.findall(r"float's class for (\d+) of 100 pictures", shown)]
    assert len(agreed) == 2
    assert agreed[0] >= 98
    if os.environ.get("DQTSIM_SIMULATORS") == "required" or shutil.which("iverilog"):
        assert "\n0 of 2048 codes are wrong\n" in shown

"""What is committed is what it says: models, manifest, golden vectors."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dqtsim.engines.registry import ENGINES
from dqtsim.golden import MANIFEST, find_vectors, hash_file, read_vector, verify
from dqtsim.graph import load, load_proto, to_onnx
from dqtsim.target import load_target

ROOT = Path(__file__).parent.parent
MODELS = json.loads((ROOT / "models" / "manifest.json").read_text(encoding="utf-8"))
NAMES = sorted(MODELS)
LARGEST = 20_000_000


def test_every_model_is_in_the_manifest() -> None:
    assert sorted(path.name for path in (ROOT / "models").glob("*.onnx")) == NAMES


def test_every_file_that_the_readme_names_is_committed() -> None:
    text = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(seed\d-[\w-]+\.(?:pt|onnx))\b", text))
    assert named
    found = subprocess.run(["git", "ls-files", "models"], cwd=ROOT, capture_output=True, text=True, check=False)
    # an installed copy without git has the files, or has not
    there = found.stdout.split() if found.returncode == 0 else [str(p) for p in (ROOT / "models").rglob("*")]
    assert named <= {Path(path).name for path in there}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_the_file_of_the_manifest(name: str) -> None:
    entry = MODELS[name]
    assert hash_file(ROOT / "models" / name) == entry["sha256"]
    assert entry["data"] == "CIFAR-10 (JPEG)"
    assert {"commands", "top1"} <= set(entry)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_passes_the_full_check_and_is_what_dqtsim_would_write(name: str) -> None:
    from onnx import checker

    path = ROOT / "models" / name
    checker.check_model(load_proto(path), full_check=True)
    assert to_onnx(load(path)).SerializeToString(deterministic=True) == path.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_stock_onnxruntime_runs_the_file_and_gives_the_golden_bits(name: str) -> None:
    import onnxruntime

    path = ROOT / "models" / name
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = [value.name for value in session.get_outputs()]
    compared = 0
    for file, entry, _ in find_vectors([ROOT / "golden" / path.stem]):
        vector = read_vector(file, entry)
        if vector.bits_policy != "dynamic":
            continue
        for output, array in zip(outputs, session.run(None, {"input": vector.input}), strict=True):
            assert np.array_equal(array, vector.tensors[output])
            compared += 1
    assert compared >= 20


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_golden_vectors_are_what_every_engine_gives(name: str, engine: str) -> None:
    path = ROOT / "models" / name
    folder = ROOT / "golden" / path.stem
    # the law itself takes seconds a picture
    paths = [folder] if engine != "spec" else [file for file, _, _ in find_vectors([folder])][:2]
    verdicts = list(verify(path, load(path), load_target("default"), engine, paths))
    assert len(verdicts) >= (2 if engine == "spec" else 10)
    assert all(verdict.first is None for verdict in verdicts)
    assert sum(verdict.elements for verdict in verdicts) > 200_000


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_controllers_choose_different_widths(name: str) -> None:
    vectors = [read_vector(file, entry) for file, entry, _ in find_vectors([ROOT / "golden" / Path(name).stem])]
    dynamic = {vector.tensors["bits"].tobytes() for vector in vectors if vector.bits_policy == "dynamic"}
    assert len(dynamic) >= 10


def test_golden_folders_hold_just_what_their_manifests_list() -> None:
    for folder in (ROOT / "golden").iterdir():
        listed = {entry["file"] for entry in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["vectors"]}
        assert {path.name for path in folder.glob("*.npz")} == listed


def test_binaries_are_small() -> None:
    files = [path for folder in ("models", "golden") for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST

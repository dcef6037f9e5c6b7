"""Golden vectors: the same, different in one place, damaged; and faults in kernels and function bodies."""

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import load as load_onnx

from dqtsim.compare import compare_tensors
from dqtsim.engines.numba import mac, nest, requantize
from dqtsim.errors import DqtsimError, GoldenError, InputError, ModelError, TargetError
from dqtsim.golden import Verdict, hash_file, verify
from dqtsim.graph import load
from dqtsim.graph.model import Array
from dqtsim.target import load_target

from .builders import compiled, conv, network, picture, run
from .vectors import Folder, Tensors

ENGINES = ("spec", "jit", "onnxruntime")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def verdicts(folder: Folder, engine: str = "jit", *paths: Path) -> list[Verdict]:
    graph = load(folder.model)
    return list(verify(folder.model, graph, load_target("default"), engine, paths or (folder.path,)))


def refusal(folder: Folder, *paths: Path, engine: str = "jit") -> str:
    with pytest.raises(DqtsimError) as caught:
        verdicts(folder, engine, *paths)
    assert type(caught.value) is GoldenError
    return str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_by_every_engine(folder: Folder, engine: str) -> None:
    dynamic, static = verdicts(folder, engine)
    assert (dynamic.path, static.path) == (folder.path / "dynamic.npz", folder.path / "static.npz")
    for verdict, name in ((dynamic, "dynamic"), (static, "static")):
        tensors = folder.tensors(name)
        seen = {
            key: a for key, a in tensors.items() if key != "input" and not (engine == "onnxruntime" and ".acc" in key)
        }
        assert verdict.first is None
        assert (verdict.different_tensors, verdict.different_elements) == (0, 0)
        assert (verdict.tensors, verdict.elements) == (len(seen), sum(a.size for a in seen.values()))
    assert {"scores", "scores.acc", "bits"} < set(folder.tensors("dynamic"))
    assert "scores" not in folder.tensors("static")


def test_one_vector_of_a_folder(folder: Folder) -> None:
    (verdict,) = verdicts(folder, "jit", folder.path / "static.npz")
    assert verdict.path == folder.path / "static.npz"
    assert len(verdicts(folder, "jit", folder.path / "static.npz", folder.path)) == 3


def plant(name: str, *index: int, by: int = 1) -> Callable[[Tensors], object]:
    """Return the change that moves one element of a tensor."""

    def change(tensors: Tensors) -> None:
        array = tensors[name].copy()
        moved = int(array[index]) + by
        array[index] = moved if moved <= np.iinfo(array.dtype).max else moved - 2 * by
        tensors[name] = array

    return change


def planted(folder: Folder, vector: str, name: str, *index: int, by: int = 1) -> tuple[int, int, Any]:
    """Plant a fault; return the value expected, the value got, and all tensors as they were."""
    before = folder.tensors(vector)
    folder.change(vector, plant(name, *index, by=by))
    return int(folder.tensors(vector)[name][index]), int(before[name][index]), before


def first(folder: Folder, vector: str, engine: str = "jit") -> tuple[Verdict, str]:
    (verdict,) = verdicts(folder, engine, folder.path / f"{vector}.npz")
    return verdict, str(verdict.first)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_code_is_different(folder: Folder, engine: str) -> None:
    at = (0, 3, 5, 1)
    expected, got, before = planted(folder, "static", "left", *at)
    p = before["left.acc"][at]
    verdict, text = first(folder, "static", engine)
    known = "unknown" if engine == "onnxruntime" else p
    assert text == (
        f"'left' (dqtsim.NestedConv) at [0, 3, 5, 1]: expected {expected}, got {got}; accumulator before "
        f"requantization: "
        f"expected {p}, got {known}; 1 of 144 elements differ"
    )
    assert (verdict.different_tensors, verdict.different_elements) == (1, 1)


def test_an_accumulator_is_different(folder: Folder) -> None:
    expected, got, _ = planted(folder, "dynamic", "right.acc", 0, 0, 2, 2, by=-5)
    assert first(folder, "dynamic")[1] == (
        f"'right.acc' (dqtsim.NestedConv, accumulator) at [0, 0, 2, 2]: expected {expected}, got {got}; "
        "1 of 36 elements differ"
    )
    assert first(folder, "dynamic", "onnxruntime")[0].first is None  # it shows no accumulators


def test_logits_widths_and_codes_of_an_add_are_different(folder: Folder) -> None:
    expected, got, before = planted(folder, "dynamic", "result", 0, 2, by=100000)
    assert first(folder, "dynamic")[1] == (
        f"'result' (dqtsim.NestedLogits) at [0, 2]: expected {expected}, got {got}; accumulator before requantization: "
        f"expected {before['result.acc'][0, 2]}, got {before['result.acc'][0, 2]}; 1 of 3 elements differ"
    )
    expected, got, _ = planted(folder, "static", "total", 0, 0, 0, 0, by=3)
    assert first(folder, "static")[1] == (
        f"'total' (dqtsim.NestedAdd) at [0, 0, 0, 0]: expected {expected}, got {got}; 1 of 144 elements differ"
    )
    folder.change("dynamic", plant("bits", 2, 1))
    assert first(folder, "dynamic")[1].startswith("'bits' (Gather) at [2, 1]: expected ")


def test_the_first_divergence_is_first_in_the_order_of_execution(folder: Folder) -> None:
    for name, index in (("result", (0, 0)), ("flat", (0, 7)), ("stem", (0, 1, 0, 0)), ("stem", (0, 0, 5, 5))):
        folder.change("dynamic", plant(name, *index))
    verdict, text = first(folder, "dynamic")
    assert text.startswith("'stem' (dqtsim.NestedConv) at [0, 0, 5, 5]: expected ")
    assert text.endswith("; 2 of 144 elements differ")
    assert (verdict.different_tensors, verdict.different_elements) == (3, 4)


def test_every_single_tensor_is_compared(folder: Folder) -> None:
    whole = folder.tensors("dynamic")
    for name in set(whole) - {"input"}:
        folder.write("dynamic", dict(whole))
        folder.change("dynamic", plant(name, *(0,) * whole[name].ndim))
        found = first(folder, "dynamic")[0]
        assert found.first is not None
        assert (found.first.tensor, found.different_elements) == (name, 1)


def test_values_are_compared_and_not_their_bytes(folder: Folder) -> None:
    wide = {name: array if name == "input" else array.astype(">i8") for name, array in folder.tensors("static").items()}
    folder.write("static", wide)
    assert first(folder, "static")[0].first is None
    wide["result"] = wide["result"].astype(np.int64).view(np.uint64)
    folder.write("static", wide)
    assert (wide["result"] >> np.uint64(63)).any()
    assert first(folder, "static")[0].first is not None


def test_widths_out_of_range_are_refused(folder: Folder) -> None:
    folder.change("static", plant("bits", 1, 0, by=5))
    with pytest.raises(ModelError) as caught:
        verdicts(folder)
    assert str(caught.value) == "initializer 'bits' holds widths of 1 to 8; found 4 to 9."


MUST_HOLD = "the golden vector '{path}' must hold 'input', 'bits' and just the tensors of its manifest."


def without(*names: str) -> Callable[[Tensors], object]:
    return lambda tensors: [tensors.pop(name) for name in names]


def reshaped(name: str, *shape: int) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: tensors[name].reshape(shape)})


def added(name: str, array: Array) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: array})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (without("left"), "a golden vector holds every nested node's output; '{path}' lacks 'left'."),
        (without("input"), MUST_HOLD),
        (without("bits"), MUST_HOLD),
        (added("z", np.zeros(3, np.int8)), "the golden vector '{path}' holds tensor 'z', which the model does not."),
        (added("left", np.zeros(3)), "golden tensors are integers; 'left' of '{path}' is float64."),
        (added("left", np.zeros(3, bool)), "golden tensors are integers; 'left' of '{path}' is bool."),
        (reshaped("left", 1, 4, 36), "'left' of '{path}' has shape (1, 4, 36); the model gives (1, 4, 6, 6)."),
        (reshaped("left", 4, 6, 6), "'left' of '{path}' has shape (4, 6, 6); the model gives (1, 4, 6, 6)."),
        (reshaped("bits", 8), "'bits' of '{path}' has shape (8,); the model has 4 layers."),
        (reshaped("input", 1, 108), "'input' of '{path}' is uint8 (1, 108); the model takes uint8 (1, 3, 6, 6)."),
        (
            added("input", np.zeros((1, 3, 6, 6), np.int64)),
            "'input' of '{path}' is int64 (1, 3, 6, 6); the model takes uint8 (1, 3, 6, 6).",
        ),
    ],
)  # fmt: skip
def test_vectors_that_do_not_belong_to_the_model(
    folder: Folder, change: Callable[[Tensors], object], text: str
) -> None:
    folder.change("static", change)
    assert refusal(folder) == text.format(path=folder.path / "static.npz")


def test_a_tensor_without_its_hash(folder: Folder) -> None:
    path = folder.path / "static.npz"
    for name in ("left", "input", "bits"):
        hashes = folder.entry("static")["sha256"]
        good = hashes[name]
        hashes[name] = "0" * 64
        folder.write_manifest()
        assert refusal(folder) == f"the golden vector '{path}' is damaged: tensor '{name}' does not have its SHA-256."
        hashes[name] = good
    folder.write_manifest()
    del folder.entry("static")["sha256"]["left"]
    folder.write_manifest()
    assert (
        refusal(folder) == f"the golden vector '{path}' must hold 'input', 'bits' and just the tensors of its manifest."
    )


def test_a_changed_file_under_an_old_hash(folder: Folder) -> None:
    tensors = folder.tensors("dynamic")
    plant("stem", 0, 0, 0, 0)(tensors)
    np.savez(folder.path / "dynamic.npz", **tensors)  # type: ignore[arg-type]
    assert refusal(folder) == (
        f"the golden vector '{folder.path / 'dynamic.npz'}' is damaged: tensor 'stem' does not have its SHA-256."
    )


def test_files_that_are_no_vectors(folder: Folder) -> None:
    path = folder.path / "static.npz"
    whole, single, text, pickled = path.read_bytes(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(single, np.zeros(3))
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr("input", "hello")
    np.savez(pickled, input=np.array([{}], object))
    for content in (
        b"",
        b"PK",
        whole[:-40],
        whole[: len(whole) // 2],
        *(f.getvalue() for f in (single, text, pickled)),
    ):
        path.write_bytes(content)
        assert refusal(folder) == f"the golden vector '{path}' is not an .npz file of numbers, or is damaged."
    path.unlink()
    assert refusal(folder) == f"the manifest lists 'static.npz'; '{path}' is no file."


def test_damaged_bytes_are_noticed(folder: Folder) -> None:
    path = folder.path / "static.npz"
    whole = path.read_bytes()
    for position in range(0, len(whole), 499):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        with suppress(GoldenError):
            assert [verdict.first for verdict in verdicts(folder)] == [None, None]


def test_another_model(folder: Folder, tmp_path: Path) -> None:
    good = hash_file(folder.model)
    other = tmp_path / "other.onnx"
    other.write_bytes(folder.model.read_bytes() + b"")
    folder.manifest["model_sha256"] = "0123456789abcdef" * 4
    folder.write_manifest()
    assert refusal(folder) == (
        f"the vectors of '{folder.path}' were made from a model with SHA-256 0123456789ab…; '{folder.model}' "
        f"has {good[:12]}…."
    )


def test_manifests(folder: Folder) -> None:
    path = folder.path / "manifest.json"
    good = dict(folder.manifest)
    entry = {"file": "a.npz", "sha256": {}, "bits_policy": "4"}
    incomplete: list[Any] = [[], 3, {}, {"vectors": []}, {"model_sha256": "0"}, {"model_sha256": 3, "vectors": []}]
    incomplete += [{"model_sha256": "0", "vectors": [{**entry, key: None}]} for key in entry]
    incomplete += [
        {"model_sha256": "0", "vectors": [{**entry, "file": name}]} for name in ("../a.npz", "/a.npz", "b/a.npz")
    ]
    incomplete += [{"model_sha256": "0", "vectors": entry}, {"model_sha256": "0", "vectors": [3]}]
    for content in incomplete:
        path.write_text(json.dumps(content), encoding="utf-8")
        assert (
            refusal(folder)
            == f"the manifest '{path}' lacks 'model_sha256' or 'vectors' with 'file', 'sha256', 'bits_policy'."
        )
    for malformed in (b"{", b"\xff", b"[" * 100000):
        path.write_bytes(malformed)
        assert refusal(folder) == f"the manifest '{path}' is not JSON."
    path.write_text(json.dumps({**good, "vectors": good["vectors"][:1]}), encoding="utf-8")
    unlisted = f"'{path}' lists every vector of its folder; 'static.npz' is not listed."
    assert refusal(folder, folder.path / "static.npz") == unlisted
    path.unlink()
    assert (
        refusal(folder) == f"golden vectors come with a manifest; '{path}' cannot be read: no such file or directory."
    )
    missing = folder.path / "nowhere" / "x.npz"
    path = missing.parent / "manifest.json"
    assert (
        refusal(folder, missing)
        == f"golden vectors come with a manifest; '{path}' cannot be read: no such file or directory."
    )


def break_kernel(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, position: int, change: Callable[[Any], Any]
) -> None:
    """Let a kernel run with one argument changed."""
    kernel = getattr(module, name)

    def broken(*arguments: Any) -> Any:
        changed = [change(argument) if at == position else argument for at, argument in enumerate(arguments)]
        return kernel(*changed)

    monkeypatch.setattr(module, name, broken)


@pytest.mark.parametrize(
    ("module", "name", "position", "change", "tensor"),
    [
        (requantize, "requantize", 4, lambda shift: shift + 1, "'stem' (dqtsim.NestedConv)"),
        (requantize, "add_bias", 1, lambda exponent: exponent + 1, "'scores' (dqtsim.NestedLogits)"),
        (nest, "nest_planes", 3, lambda left: left - 1, "'stem.acc' (dqtsim.NestedConv, accumulator)"),
        (mac, "gemm", 1, lambda weights: -weights, "'hidden.acc' (dqtsim.NestedGemm, accumulator)"),
    ],
)
def test_a_fault_in_a_kernel_is_reported(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, position: int, change: Any, tensor: str
) -> None:
    break_kernel(monkeypatch, module, name, position, change)
    verdict, text = first(folder, "dynamic", "numba")
    assert text.startswith(f"{tensor} at [0, ")
    assert verdict.different_tensors > 1
    assert first(folder, "dynamic", "spec")[0].first is None


def test_a_fault_in_a_function_body_is_reported(folder: Folder) -> None:
    model = load_onnx(folder.model)
    (body,) = (function for function in model.functions if function.name == "Align")
    for node in body.node:
        node.op_type = "Add" if node.op_type == "Mul" else node.op_type
    folder.model.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        load(folder.model)
    assert str(caught.value) == (
        "the function body of operator 'Align' (domain 'dqtsim') differs from the law: node 4 must be "
        "'a = Mul(wide, factor)'; found 'a = Add(wide, factor)'."
    )


def test_engines_check_their_codes() -> None:
    plan = compiled(conv((1, 1, 1), [[[[1]]]], z_x=8, z_y=8, rules={"master_width": 4}))
    for engine in ENGINES:
        with pytest.raises(InputError) as caught:
            run(plan, engine, [[[16]]])
        assert str(caught.value) == "the model takes codes of 4 bits, 0 to 15; found 16."
        with pytest.raises(InputError) as caught:
            run(plan, engine, [[1]])
        assert (
            str(caught.value) == "the model takes codes of dtype uint8 and shape (N, 1, 1, 1); found uint8 (1, 1, 1)."
        )
    with pytest.raises(InputError) as caught:
        run(plan, "fpga", [[[1]]])
    assert str(caught.value).endswith("; found 'fpga'.")


def test_two_engines_compared_directly() -> None:
    plan = compiled(network())
    _, law = run(plan, "spec", picture()[0])
    other = {name: array.copy() for name, array in law.items()}
    assert compare_tensors(plan, law, other, "engine spec").first is None
    other["seen"][0, 0, 0, 0] ^= 1
    found = compare_tensors(plan, law, other, "engine spec").first
    assert found is not None
    assert (found.tensor, found.index, found.expected, found.got) == (
        "seen", (0, 0, 0, 0), int(law["seen"][0, 0, 0, 0]), int(other["seen"][0, 0, 0, 0]),
    )  # fmt: skip


def test_onnxruntime_says_why_it_cannot() -> None:
    plan = compiled(network(), accumulator_width=12)
    with pytest.raises(TargetError) as caught:
        run(plan, "onnxruntime", picture()[0])
    assert str(caught.value) == (
        "onnxruntime runs the file's bodies, which never overflow; layer 'stem' at widths (8, 8) may need 19 bits, and "
        "target 'test' has 12."
    )

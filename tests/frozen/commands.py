"""The pinned commands: which, on what files, and what of their output differs from run to run."""

import base64
import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from click.testing import CliRunner
from onnx import TensorProto, helper

from . import places

ROOT = Path(__file__).parents[2]
TEXTS = Path(__file__).parent / "cli"
MODEL, GOLDEN = "models/resnet8-cifar10.onnx", "golden/resnet8-cifar10"
PICTURE = f"{GOLDEN}/picture.npy"
ENGINES = ("jit", "numba", "spec", "onnxruntime", "torch")
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
# click folds help at the terminal's width; colours would be escape sequences
ENVIRONMENT = {"COLUMNS": "80", "NO_COLOR": "1", "FORCE_COLOR": None, "TTY_COMPATIBLE": None, "DQTSIM_KERNEL": None}
VARYING: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\d+(\.\d+)? ms"), "_ ms"),
    (re.compile(r'"seconds": [0-9.e+-]+'), '"seconds": 0'),
    # the size of a page depends on how zlib compresses pictures
    (re.compile(r"( settings.*), [\d,]+ bytes"), r"\1, _ bytes"),
    # has a file of its own
    (re.compile(r"<style>.*?</style>", re.S), lambda found: f"<style>{_digest(found[0].encode())}</style>"),
    (re.compile(r"dqtsim(, version)? \d+\.\d+\.\d+"), r"dqtsim\1 VERSION"),
)
PLAN = "[bits]\n" + "".join(
    f'"block{block}.{layer}" = "{bits}"\n'
    for block, layer, bits in (
        (1, "conv1", "4"), (1, "conv2", "3"), (2, "conv1", "2"), (2, "conv2", "8"), (2, "down", "2"),
        (3, "conv1", "3"), (3, "conv2", "2"), (3, "down", "4"),
    )
) + 'fc = "8"\n'  # fmt: skip
MARKS = ("keys:", "hashes:")
IMAGE = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")


# nodes of the committed model; what an object holds for each of them is the same
NODE = re.compile(r"stem|fc|(block\d|controller)\.\w+.*")


def pictures(name: str, count: int) -> bytes:
    """Return codes of CIFAR pictures that look random and are the same under every version of everything."""
    return hashlib.shake_128(name.encode()).digest(count * 3072)


def prepare(place: Path) -> None:
    """Write the files that commands read: a data set, a batch, a plan, a target, a standard model, wrong vectors."""
    data = place / "data"
    data.mkdir()
    for batch in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        codes = pictures(batch, 8)
        records = [bytes([(3 * i) % 10]) + codes[3072 * i : 3072 * (i + 1)] for i in range(8)]
        (data / f"{batch}.bin").write_bytes(b"".join(records))
    (data / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    np.save(place / "three.npy", np.frombuffer(pictures("three", 3), np.uint8).reshape(3, 3, 32, 32))
    np.save(place / "grey.npy", np.zeros((32, 32), np.uint8))
    shown = CliRunner().invoke(places.command_line(), ["target", "show", "acc24-saturate"]).stdout
    (place / "mine.toml").write_text(shown, encoding="utf-8")
    (place / "plan.toml").write_text(PLAN, encoding="utf-8")
    (place / "broken.toml").write_text("name = 3\n", encoding="utf-8")
    (place / "text.onnx").write_text("no model", encoding="utf-8")
    onnx.save(standard(), place / "standard.onnx")
    wrong_vector(place / "wrong")


def standard() -> onnx.ModelProto:
    """Return a QDQ model of one matrix product."""
    arrays = {"w": np.ones((8, 4), np.int8), "s": np.float32(1), "z": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantize"),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"], name="weight"),
        helper.make_node("MatMul", ["d", "v"], ["y"], name="product"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in (("x", 8), ("y", 4))]
    tensors = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "standard", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def wrong_vector(folder: Path) -> None:
    """Write a golden vector with one wrong code, and right hashes."""
    folder.mkdir()
    manifest = json.loads((ROOT / GOLDEN / "manifest.json").read_text(encoding="utf-8"))
    manifest["vectors"] = [v for v in manifest["vectors"] if v["file"] == "test-00000-w2a2.npz"]
    with np.load(ROOT / GOLDEN / "test-00000-w2a2.npz") as archive:
        tensors: dict[str, Any] = {name: archive[name] for name in archive.files}
    tensors["block1.conv2"] = tensors["block1.conv2"].copy()
    tensors["block1.conv2"][0, 3, 5, 7] ^= 1
    manifest["vectors"][0]["sha256"]["block1.conv2"] = places.tensor_hash(tensors["block1.conv2"])
    np.savez(folder / "test-00000-w2a2.npz", **tensors)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def cases() -> dict[str, list[str]]:
    """Return the words of every pinned command by the name of its text; `@` is the prepared folder, `@/out` a new one.

    `keys:` before the first word: only the keys of its JSON are pinned; `hashes:`: of its files only hashes.
    """
    lines = {**_runs(), **_checks(), **_counts(), **_files(), **_refusals()}
    found = {name: [MODEL if word == "MODEL" else word for word in line.split()] for name, line in lines.items()}
    return {"help" + "-".join(["", *path]): [*path, "--help"] for path in _paths(places.command_line())} | found


def _paths(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _paths(inner, *path, name)


def _runs() -> dict[str, str]:
    run = f"run MODEL --input {PICTURE}"
    each = "8,2,3,4,8,w4a8,2,3,4,8"
    found = {"run": run, "run-json": f"{run} --json", "run-json-keys": f"keys: {run} --json"}
    found |= {f"run-bits-{bits}": f"{run} --bits {bits}" for bits in ("dynamic", "2", "w4a8", each, "@/plan.toml")}
    found |= {f"run-target-{name}": f"{run} --target {name}" for name in (*places.target_names(), "@/mine.toml")}
    found |= {f"run-engine-{name}": f"{run} --bits 2 --engine {name}" for name in ENGINES}
    found |= {
        "run-each-order": f"{run} --bits 3 --target acc20-saturate-each --json",
        "run-batch": "run MODEL --input @/three.npy --threads 2",
        "run-batch-json": "run MODEL --input @/three.npy --target acc16-wrap --bits 8 --threads 1 --json",
        "run-dump": f"{run} --dump @/out/tensors.npz",
        "run-dump-batch": "run MODEL --input @/three.npy --dump @/out/tensors.npz --bits 4",
    }
    return {name.replace("@/", "").replace(each, "list"): line for name, line in found.items()}


def _checks() -> dict[str, str]:
    one = f"verify MODEL --golden {GOLDEN}/test-00000-"
    found = {f"verify-engine-{name}": f"{one}w2a2.npz --engine {name}" for name in ENGINES}
    return found | {
        "verify": f"verify MODEL --golden {GOLDEN}",
        "verify-two": f"{one}w2a2.npz {GOLDEN}/test-00003-dynamic.npz --engine onnxruntime",
        "verify-different": "verify MODEL --golden @/wrong",
        "verify-target-different": f"{one}w8a8.npz --target acc16-wrap",
        "compare": f"compare MODEL --input {PICTURE} --bits 2 --engines spec,jit,numba,onnxruntime,torch",
        "compare-batch": "compare MODEL --input @/three.npy --target acc24-saturate --engines jit,numba",
        "evaluate": "evaluate MODEL --data @/data",
        "evaluate-bits": "evaluate MODEL --data @/data --limit 5 --bits dynamic --bits w4a8 --bits 2 --threads 2",
        "evaluate-numba": "evaluate MODEL --data @/data --limit 3 --engine numba --target acc16-wrap",
    }


def _counts() -> dict[str, str]:
    count, standard_count = "count-ops MODEL", "count-ops @/standard.onnx"
    found = {f"count-ops-{name}": f"{count} --by {name}" for name in ("layer", "type", "width")}
    found |= {f"count-ops-standard-{name}": f"{standard_count} --by {name}" for name in ("layer", "type", "width")}
    return found | {
        "count-ops-json": f"{count} --bits 4 --json",
        "count-ops-json-keys": f"keys: {count} --json",
        "count-ops-csv": f"{count} --csv",
        "count-ops-bits": f"{count} --bits w4a8",
        "count-ops-target": f"{count} --bits 2 --target mult31",
        "count-ops-picture": f"{count} --input {PICTURE}",
        "count-ops-data": f"{count} --data @/data",
        "count-ops-data-json": f"{count} --data @/data --limit 6 --json",
        "count-ops-resnet20": "count-ops models/resnet20/seed0-bits3.onnx",
        "count-ops-standard-json": f"{standard_count} --json",
        "count-ops-standard-csv": f"{standard_count} --csv",
        "info": "info MODEL",
        "info-target": "info MODEL --bits 3 --target mult31",
        "info-resnet20": "info models/resnet20/seed0-bits3.onnx",
        "info-machine-keys": "keys: info --machine --json",
        "bench-json-keys": "keys: bench MODEL --runs 1 --bits 2 --json -",
        "target-list": "target list",
        "target-show-mine": "target show @/mine.toml",
        "rtl-params-model": "rtl params default --model MODEL",
        "version": "--version",
        **{f"target-show-{name}": f"target show {name}" for name in places.target_names()},
        **{f"rtl-params-{name}": f"rtl params {name}" for name in places.target_names()},
    }


def _files() -> dict[str, str]:
    vectors, plan = f"vectors MODEL --input {PICTURE} -o @/out/vectors", "plan MODEL --data @/data --pictures 8"
    return {
        "vectors": vectors,
        "vectors-target": f"{vectors} --bits w4a8 --target acc16-wrap --layer block2.conv1 --layer controller.logits",
        "vectors-seed": f"{vectors} --seed 7 --bits 3 --layer stem --layer block2.down --layer fc",
        "plan-bits": f"{plan} --budget 4.0bits -o @/out/plan.toml",
        "plan-bitops": f"{plan} --budget 120MBitOPs --refine 2 -o @/out/plan.toml",
        "report": "hashes: report MODEL -o @/out/page.html --figures @/out",
        "report-data": "report MODEL --data @/data --limit 6 --plan @/plan.toml -o @/out/page.html --figures @/out",
        "new-resnet8": "new resnet8 -o @/out/new.onnx",
        "new-resnet8-dynamic": "new resnet8 --dynamic --seed 3 --classes 7 -o @/out/new.onnx",
        "new-mobilenetv2": "new mobilenetv2 --input-size 32 --classes 10 -o @/out/new.onnx",
    }


def _refusals() -> dict[str, str]:
    run = f"run MODEL --input {PICTURE}"
    lines = {
        "command": "simulate",
        "option": f"{run} --bit 3",
        "no-input": "run MODEL",
        "engine": f"{run} --engine gpu",
        "no-model": f"run none.onnx --input {PICTURE}",
        "not-onnx": "info @/text.onnx",
        "not-nested": "info @/standard.onnx",
        "bits-width": f"{run} --bits 9",
        "bits-list": f"{run} --bits 4,4",
        "target": f"{run} --target gpu",
        "target-file": "target show @/broken.toml",
        "picture-shape": "run MODEL --input @/grey.npy",
        "engine-rounding": f"{run} --engine onnxruntime --target mult31",
        "dump": f"{run} --dump x.npy",
        "golden": "verify MODEL --golden @/data",
        "golden-model": f"verify models/resnet8/seed0-bits3.onnx --golden {GOLDEN}",
        "engines": f"compare MODEL --input {PICTURE} --engines spec",
        "data": "evaluate MODEL --data @/none",
        "json-csv": "count-ops MODEL --json --csv",
        "standard-bits": "count-ops @/standard.onnx --bits 4",
        "energy": "count-ops MODEL --energy none",
        "budget": "plan MODEL --data @/data --budget 1bits -o @/out/plan.toml",
        "budget-text": "plan MODEL --data @/data --budget 4 -o @/out/plan.toml",
        "structure": "new resnet9 -o @/out/new.onnx",
        "layer": f"vectors MODEL --input {PICTURE} --layer none -o @/out",
        "page": "report MODEL -o @/out/page.txt",
        "info": "info",
    }
    return {f"refused-{name}": line for name, line in lines.items()}


def output(words: list[str], place: Path) -> str:
    """Run one command; return its words, what it printed and wrote, and its exit code, without what varies."""
    marks, words = [word for word in words if word in MARKS], [word for word in words if word not in MARKS]
    out = place / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    given = [str(place) + word[1:] if word.startswith("@") else word for word in words]
    result = CliRunner().invoke(
        places.command_line(), given, prog_name="dqtsim", env=ENVIRONMENT, catch_exceptions=False
    )
    printed = _keys(result.stdout) if "keys:" in marks else _readable(_same(result.stdout, place))
    text = f"$ dqtsim {' '.join(words)}\n{printed}"
    if result.stderr:
        text += f"[stderr]\n{_same(result.stderr, place)}"
    text += "".join(_file(path, out, place, "hashes:" in marks) for path in sorted(out.rglob("*")) if path.is_file())
    return f"{text}[exit {result.exit_code}]\n"


def _same(text: str, place: Path) -> str:
    text = text.replace(str(place), "@")
    for pattern, instead in VARYING:
        text = pattern.sub(instead, text)
    # the compressed bytes of a picture are zlib's choice
    return IMAGE.sub(lambda found: f"PNG {_digest(_pixels(base64.b64decode(found[1])))}", text)


def _pixels(png: bytes) -> bytes:
    """Return the header of a PNG and its decompressed lines."""
    at = png.index(b"IDAT")
    return png[:33] + zlib.decompress(png[at + 4 : at + 4 + int.from_bytes(png[at - 4 : at])])


def _readable(text: str) -> str:
    """Return a line of JSON, if it is just what json.dumps prints, on many lines."""
    if not text.startswith("{") or text.count("\n") != 1 or json.dumps(json.loads(text)) + "\n" != text:
        return text
    return _folded(json.dumps(json.loads(text), indent=1)) + "\n"


def _folded(text: str) -> str:
    """Return JSON with its innermost lists and objects on one line."""
    return re.sub(r"[\[{][^\[\]{}]{,400}[\]}]", lambda found: re.sub(r"\n\s*", " ", found[0]), text)


def _keys(text: str) -> str:
    """Return the keys of a JSON object, one path a line."""
    return "".join(f"{path}\n" for path in dict.fromkeys(_walk(json.loads(text), "")))


def _walk(tree: Any, path: str) -> Iterator[str]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            key = "(node)" if NODE.fullmatch(name) else name
            yield f"{path}.{key}"
            if key == "features":  # those of the computer's architecture
                continue
            yield from _walk(value, f"{path}.{key}")
    elif isinstance(tree, list):
        for value in tree:
            yield from _walk(value, f"{path}[]")


def _file(path: Path, out: Path, place: Path, hashes: bool) -> str:
    """Return the text of a file, or its hash; of an .npz file the hash of every tensor."""
    name = path.relative_to(out).as_posix()
    if path.suffix in (".toml", ".html") and not hashes:
        return f"[file {name}]\n{_same(path.read_text(encoding='utf-8'), place)}"
    if path.suffix in (".html", ".svg"):
        return f"[file {name}] {_digest(_same(path.read_text(encoding='utf-8'), place).encode())}\n"
    if path.suffix != ".npz":
        return f"[file {name}] {_digest(path.read_bytes())}\n"
    with np.load(path) as archive:
        return "".join(
            f"[tensor {key}] {archive[key].dtype} {archive[key].shape} {_digest(archive[key].tobytes())}\n"
            for key in archive.files
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

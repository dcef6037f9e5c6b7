"""Golden vectors: tensors that another implementation of the law has produced, and the comparison with them.

A folder of vectors holds one `.npz` per picture (never pickled) and `manifest.json`, which states SHA-256 of the model
file and of every tensor, the producing command and its versions. Tensors are compared by equality, in execution order.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import limits
from .compare import Comparison, compare_tensors
from .engines.registry import engine
from .engines.result import Trace
from .errors import GoldenError, reason
from .graph import BITS, with_bits
from .graph.model import Array, Graph
from .planner import Plan, plan
from .target import Target

MANIFEST = "manifest.json"


@dataclass(frozen=True, eq=False)
class GoldenVector:
    """One golden vector: its file, the policy that chose its widths, and its tensors by name."""

    path: Path
    bits_policy: str
    tensors: Mapping[str, Array]

    @property
    def input(self) -> Array:
        """Return the input codes, uint8 (1, ...)."""
        return self.tensors["input"]


@dataclass(frozen=True)
class Verdict(Comparison):
    """The result of comparing one vector."""

    path: Path


def find_vectors(paths: Sequence[Path]) -> list[tuple[Path, dict[str, Any], Mapping[str, Any]]]:
    """Return (npz file, its manifest entry, its manifest) for folders of vectors and single `.npz` files."""
    found: list[tuple[Path, dict[str, Any], Mapping[str, Any]]] = []
    for path in paths:
        folder = path if path.is_dir() else path.parent
        manifest = _read_manifest(folder)
        entries = [entry for entry in manifest["vectors"] if path.is_dir() or entry["file"] == path.name]
        if not entries:
            raise GoldenError(f"'{folder / MANIFEST}' lists every vector of its folder; '{path.name}' is not listed.")
        found += [(folder / entry["file"], entry, manifest) for entry in entries]
    return found


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = limits.json_tree(limits.read_text(path, limits.MANIFEST_BYTES))
    except OSError as error:
        raise GoldenError(f"golden vectors come with a manifest; '{path}' cannot be read: {reason(error)}.") from None
    except ValueError:
        raise GoldenError(f"the manifest '{path}' is not JSON.") from None
    entries = manifest.get("vectors") if isinstance(manifest, dict) else None
    complete = isinstance(entries, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("file"), str)
        and Path(entry["file"]).name == entry["file"]
        and isinstance(entry.get("sha256"), dict)
        and isinstance(entry.get("bits_policy"), str)
        for entry in entries
    )
    if not complete or not isinstance(manifest.get("model_sha256"), str):
        raise GoldenError(
            f"the manifest '{path}' lacks 'model_sha256' or 'vectors' with 'file', 'sha256', 'bits_policy'."
        )
    return dict(manifest)


def read_vector(path: Path, entry: Mapping[str, Any]) -> GoldenVector:
    """Return the vector in `path`, every tensor checked against the SHA-256 of its manifest entry."""
    try:
        file = limits.open_file(path, limits.VECTOR_BYTES)
    except FileNotFoundError:
        raise GoldenError(f"the manifest lists '{path.name}'; '{path}' is no file.") from None
    except OSError as error:
        raise GoldenError(f"the golden vector '{path}' cannot be read: {reason(error)}.") from None
    try:
        with file, zipfile.ZipFile(file) as archive:
            _check_members(archive, path)
            tensors = {name.removesuffix(".npy"): _read_member(archive, name) for name in archive.namelist()}
    except (ValueError, OSError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error):
        raise GoldenError(f"the golden vector '{path}' is not an .npz file of numbers, or is damaged.") from None
    hashes: Mapping[str, str] = entry["sha256"]
    if set(hashes) - {"input"} != set(tensors) - {"input"} or "input" not in tensors or BITS not in tensors:
        raise GoldenError(f"the golden vector '{path}' must hold 'input', 'bits' and just the tensors of its manifest.")
    for name, array in tensors.items():
        if array.dtype.kind not in "iu":
            raise GoldenError(f"golden tensors are integers; '{name}' of '{path}' is {array.dtype}.")
        expected = hashes.get(name, entry.get("input_sha256"))
        if hash_tensor(array) != expected:
            raise GoldenError(f"the golden vector '{path}' is damaged: tensor '{name}' does not have its SHA-256.")
    return GoldenVector(path, entry["bits_policy"], tensors)


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    """Raise GoldenError, before anything is unpacked, if an archive states that it holds too much."""
    members = archive.infolist()
    size = sum(member.file_size for member in members)
    if len(members) > limits.VECTOR_TENSORS or size > limits.VECTOR_BYTES:
        raise GoldenError(
            f"a golden vector has at most {limits.VECTOR_TENSORS:,} tensors and {limits.VECTOR_BYTES:,} bytes; "
            f"'{path}' unpacks to {len(members):,} and {size:,}."
        )


def _read_member(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(name) as member:
        return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


def hash_tensor(array: Array) -> str:
    """Return the SHA-256 of the elements in C order, little endian."""
    return hashlib.sha256(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(limits.read_bytes(path, limits.MODEL_BYTES)).hexdigest()


def verify(model: Path, graph: Graph, target: Target, engine_name: str, paths: Sequence[Path]) -> Iterator[Verdict]:
    """Run `graph` on every golden input and compare every golden tensor; yield a verdict per vector.

    Raises GoldenError where the vectors are damaged or were made from another model file.
    """
    vectors = find_vectors(paths)
    model_hash = hash_file(model)
    plans: dict[bytes, Plan] = {}
    for path, entry, manifest in vectors:
        if manifest["model_sha256"] != model_hash:
            raise GoldenError(
                f"the vectors of '{path.parent}' were made from a model with SHA-256 "
                f"{manifest['model_sha256'][:12]}…; '{model}' has {model_hash[:12]}…."
            )
        vector = read_vector(path, entry)
        key = b"" if vector.bits_policy == "dynamic" else vector.tensors[BITS].tobytes()
        if key not in plans:
            plans[key] = plan(graph if not key else _with_rows(graph, vector), target)
        yield compare(plans[key], engine_name, vector)


def _with_rows(graph: Graph, vector: GoldenVector) -> Graph:
    rows = vector.tensors[BITS]
    if rows.shape != (len(graph.layers), 2):
        raise GoldenError(
            f"'bits' of '{vector.path}' has shape {rows.shape}; the model has {len(graph.layers)} layers."
        )
    return with_bits(graph, [(int(w), int(a)) for w, a in rows.tolist()])


def compare(compiled: Plan, engine_name: str, vector: GoldenVector) -> Verdict:
    """Run `compiled` on the vector's input and compare every tensor, in execution order."""
    wanted = compiled.graph.input
    if vector.input.dtype != np.uint8 or vector.input.shape != wanted.shape:
        raise GoldenError(
            f"'input' of '{vector.path}' is {vector.input.dtype} {vector.input.shape}; the model takes "
            f"uint8 {wanted.shape}."
        )
    trace = Trace()
    engine(compiled, engine_name)(vector.input, [trace])
    got = {**compiled.graph.initializers, **trace.tensors}
    unknown = sorted(set(vector.tensors) - set(got) - {"input"} - _unseen(compiled, engine_name))
    if unknown:
        raise GoldenError(f"the golden vector '{vector.path}' holds tensor '{unknown[0]}', which the model does not.")
    missing = [
        step.node.name for step in compiled.steps if step.node.domain and step.node.outputs[0] not in vector.tensors
    ]
    if missing:
        raise GoldenError(f"a golden vector holds every nested node's output; '{vector.path}' lacks '{missing[0]}'.")
    found = compare_tensors(compiled, vector.tensors, got, f"'{vector.path}'")
    return Verdict(
        found.tensors, found.elements, found.different_tensors, found.different_elements, found.first, vector.path
    )


def _unseen(compiled: Plan, engine_name: str) -> set[str]:
    """Return the tensors that an engine cannot show: onnxruntime does not give its accumulators."""
    return {f"{step.node.name}.acc" for step in compiled.layer_steps()} if engine_name == "onnxruntime" else set()

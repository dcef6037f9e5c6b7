"""Golden vectors: the integer path's tensors, picture by picture, with a manifest of their SHA-256."""

import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dqtsim.graph import with_bits
from dqtsim.graph.model import BITS, Graph
from dqtsim.outputs import MANIFEST, Kind, write_folder
from dqtsim.train.exact import classify, run_graph
from dqtsim.train.files import Pictures

_SCANNED = 500
FOLDER = Kind(
    ("model", "model_sha256", "producer", "versions", "vectors"),
    lambda manifest: [entry["file"] for entry in manifest["vectors"]],
)


@dataclass(frozen=True)
class Request:
    """One vector to write: the picture's index, and the graph whose policy it runs under."""

    index: int
    policy: str
    graph: Graph


def sha256(array: npt.NDArray[np.generic]) -> str:
    """SHA-256 of an array's bytes: C order, little-endian."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(little.tobytes()).hexdigest()


def diverse_pictures(graph: Graph, images: Pictures, count: int) -> list[int]:
    """Indices of pictures whose widths differ most: each next picture is the farthest from those already taken."""
    if not graph.dynamic:
        # Static widths are alike.
        return list(range(min(count, len(images), _SCANNED)))
    _, widths = classify(graph, images[:_SCANNED])
    rows = widths.flatten(1)
    taken = [0]
    distance = (rows != rows[0]).sum(1)
    while len(taken) < min(count, len(rows)):
        # Equal rows have distance 0, as a picture to itself: -1 keeps a picture from being taken twice.
        distance[taken[-1]] = -1
        taken.append(int(distance.argmax()))
        distance = torch.minimum(distance, (rows != rows[taken[-1]]).sum(1))
        distance[taken] = -1
    return sorted(taken)


def requests(graph: Graph, images: Pictures, count: int) -> list[Request]:
    """`count` pictures at the model's own widths, and the first of them with every layer at each candidate."""
    chosen = diverse_pictures(graph, images, count)
    found = [Request(index, "dynamic", graph) for index in chosen] if graph.dynamic else []
    for pair in graph.candidates:
        static = with_bits(graph, [graph.pinned.get(layer, pair) for layer in graph.layers])
        pictures = chosen[:1] if graph.dynamic else chosen
        found += [Request(index, f"w{pair[0]}a{pair[1]}", static) for index in pictures]
    return found


def vector(graph: Graph, picture: torch.Tensor) -> dict[str, npt.NDArray[np.generic]]:
    """The codes, accumulators and logits of one picture uint8 [1, C, H, W], and `bits` int64 [layers, 2]."""
    tensors = run_graph(graph, picture.numpy())
    plumbing = {node.outputs[0] for node in graph.nodes if tensors[node.outputs[0]].dtype == np.int64}
    # Accumulators fit 32 bits wherever int32 logits do; storing int32 halves the files.
    arrays: dict[str, npt.NDArray[np.generic]] = {
        name: array.astype(np.int32) if array.dtype == np.int64 and abs(array).max(initial=0) < 2**31 else array
        for name, array in tensors.items()
        if name not in plumbing
    }
    arrays[BITS] = tensors[BITS] if BITS in tensors else graph.initializers[BITS]
    return arrays


def write_golden(
    graph: Graph, images: Pictures, labels: torch.Tensor | None, folder: Path, *,
    model: Path, source: str, command: str, count: int,
) -> list[Path]:  # fmt: skip
    """Write `<picture>.npz` files and manifest.json into `folder`; older vectors in it are all replaced.

    `source` says what the pictures uint8 [N, C, H, W] are, `command` what produced the vectors.
    Raises OutputError if `folder` holds anything else, or cannot be written.
    """
    entries, paths = [], []
    with write_folder(folder, FOLDER) as aside:
        for request in requests(graph, images, count):
            name = f"test-{request.index:05d}-{request.policy}.npz"
            arrays = vector(request.graph, images[request.index : request.index + 1])
            # A plain mapping of arrays, which NumPy does not pickle.
            np.savez_compressed(aside / name, **arrays)  # type: ignore[arg-type]
            hashes = {key: sha256(array) for key, array in arrays.items()}
            entry: dict[str, object] = {
                "file": name,
                "picture": f"{source} index {request.index}",
                "bits_policy": request.policy,
                "input_sha256": hashes[graph.input.name],
                "sha256": hashes,
            }
            entries.append(entry | ({} if labels is None else {"label": int(labels[request.index])}))
            paths.append(folder / name)
        manifest = {
            "model": model.name,
            "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            "producer": command,
            "versions": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "torch": str(torch.__version__),
            },
            "vectors": entries,
        }
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return paths

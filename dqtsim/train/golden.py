"""Golden vectors: the integer path's tensors, picture by picture, with a manifest of their SHA-256."""

import hashlib
import json
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dqtsim.train.data import Split
from dqtsim.train.integer import IntegerNetwork, run

_SCANNED = 500


@dataclass(frozen=True)
class Request:
    """One vector to write: the picture's index in the split and widths, int64 [layers, 2], or None for dynamic."""

    index: int
    policy: str
    bits: torch.Tensor | None


def sha256(array: npt.NDArray[np.generic]) -> str:
    """SHA-256 of an array's bytes: C order, little-endian."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(little.tobytes()).hexdigest()


def diverse_pictures(network: IntegerNetwork, split: Split, count: int) -> list[int]:
    """Indices of pictures whose dynamic widths differ most: each next one is farthest from those taken."""
    _, widths = run(network, split.images[:_SCANNED])
    rows = widths.flatten(1)
    taken = [0]
    distance = (rows != rows[0]).sum(1)
    while len(taken) < min(count, len(rows)):
        # Distance to itself is 0 or, among equal rows, 0 too: -1 keeps a picture from being taken twice.
        distance[taken[-1]] = -1
        taken.append(int(distance.argmax()))
        distance = torch.minimum(distance, (rows != rows[taken[-1]]).sum(1))
        distance[taken] = -1
    return sorted(taken)


def requests(network: IntegerNetwork, split: Split, count: int) -> list[Request]:
    """`count` pictures at their controller's widths, and the first of them with every layer at each candidate."""
    chosen = diverse_pictures(network, split, count)
    found = [Request(index, "dynamic", None) for index in chosen]
    for pair in network.candidates:
        rows = [layer.pinned or pair for layer in network.layers]
        found.append(Request(chosen[0], f"w{pair[0]}a{pair[1]}", torch.tensor(rows)))
    return found


def vector(
    network: IntegerNetwork, picture: torch.Tensor, bits: torch.Tensor | None
) -> dict[str, npt.NDArray[np.generic]]:
    """Every named tensor of one picture uint8 [1, C, H, W], and `bits` int64 [layers, 2]."""
    tensors, used = run(network, picture, bits)
    arrays: dict[str, npt.NDArray[np.generic]] = {name: value.numpy() for name, value in tensors.items()}
    arrays["bits"] = used[0].numpy()
    return arrays


def write_golden(
    network: IntegerNetwork, split: Split, folder: Path, *, model: Path, source: str, command: str, count: int
) -> list[Path]:
    """Write `<picture>.npz` files and manifest.json into `folder`, replacing it whole.

    `source` says what the pictures are, `command` what produced them.
    """
    aside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    entries, files = [], []
    for request in requests(network, split, count):
        name = f"test-{request.index:05d}-{request.policy}.npz"
        arrays = vector(network, split.images[request.index : request.index + 1], request.bits)
        # A plain mapping of arrays: numpy never pickles those.
        np.savez_compressed(aside / name, **arrays)  # type: ignore[arg-type]
        hashes = {key: sha256(array) for key, array in arrays.items()}
        entries.append(
            {
                "file": name,
                "picture": f"{source} test index {request.index}",
                "label": int(split.labels[request.index]),
                "bits_policy": request.policy,
                "input_sha256": hashes[network.input_name],
                "sha256": hashes,
            }
        )
        files.append(folder / name)
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
    (aside / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    aside.replace(folder)
    return files

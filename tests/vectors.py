"""Golden vectors made in the test: by the law, from a small network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dqtsim.engines.registry import traced
from dqtsim.golden import MANIFEST, hash_file, hash_tensor
from dqtsim.graph import Graph, save
from dqtsim.planner import plan
from dqtsim.target import load_target
from dqtsim.widths import apply_bits

from .builders import Array, network, picture

Tensors = dict[str, Array]


class Folder:
    """A model file and a folder of golden vectors for it: 'dynamic.npz' and 'static.npz' (widths w4a8)."""

    def __init__(self, root: Path, graph: Graph | None = None) -> None:
        self.graph = network() if graph is None else graph
        self.model = root / "model.onnx"
        self.path = root / "golden"
        self.path.mkdir()
        save(self.graph, self.model)
        self.manifest: dict[str, Any] = {"model_sha256": hash_file(self.model), "vectors": []}
        self.add("dynamic", None)
        self.add("static", "w4a8")

    def add(self, name: str, bits: str | None) -> None:
        """Write one vector."""
        graph, policy = apply_bits(self.graph, bits)
        _, tensors = traced(plan(graph, load_target("default")), picture(len(name)), "spec")
        tensors["input"] = tensors.pop("x")
        self.manifest["vectors"].append({"file": f"{name}.npz", "bits_policy": policy, "sha256": {}})
        self.write(name, tensors)

    def entry(self, name: str) -> dict[str, Any]:
        """Return the manifest's entry of a vector."""
        return next(entry for entry in self.manifest["vectors"] if entry["file"] == f"{name}.npz")

    def tensors(self, name: str) -> Tensors:
        """Return the tensors of a vector."""
        with np.load(self.path / f"{name}.npz") as archive:
            return {key: archive[key] for key in archive.files}

    def write(self, name: str, tensors: Tensors) -> None:
        """Write a vector and its hashes."""
        np.savez(self.path / f"{name}.npz", **tensors)  # type: ignore[arg-type]
        self.entry(name)["sha256"] = {key: hash_tensor(array) for key, array in tensors.items()}
        self.write_manifest()

    def write_manifest(self) -> None:
        """Write the manifest as it stands."""
        (self.path / MANIFEST).write_text(json.dumps(self.manifest), encoding="utf-8")

    def change(self, name: str, change: Callable[[Tensors], object]) -> None:
        """Change the tensors of a vector and hash them anew."""
        tensors = self.tensors(name)
        change(tensors)
        self.write(name, tensors)

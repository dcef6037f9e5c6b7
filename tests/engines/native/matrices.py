"""Layers for the kernel `amx`: their geometry by what comes out, and how the kernel finds their taps."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from dqtsim.engines.native import native
from dqtsim.engines.native.emit.matrix import ALL_PANELS, DIRECT, PANELS
from dqtsim.engines.native.program import Operation, Program
from dqtsim.planner import Plan
from tests import builders
from tests.builders import Array
from tests.vectorkernels import kernel, kernels

from .same import assert_native

NAMES = {DIRECT: "direct", PANELS: "panels", ALL_PANELS: "all panels"}
only_amx = pytest.mark.skipif("amx" not in kernels(), reason="this machine has no kernel amx")


@dataclass(frozen=True)
class Layer:
    """One convolution by its output (rows, columns); spread: codes of weights and inputs, or None for any."""

    channels: int
    outputs: int
    out: tuple[int, int]
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    group: int = 1
    bits: tuple[int, int] = (8, 8)
    z_x: int = 128
    weight: int | None = None

    def __str__(self) -> str:
        """Return what tells it from others."""
        words = [
            f"{self.channels}to{self.outputs}",
            "x".join(map(str, self.out)),
            "k" + "x".join(map(str, self.kernel)),
        ]
        words += [f"s{self.strides[0]}{self.strides[1]}", f"d{self.dilations[0]}{self.dilations[1]}"]
        return "-".join([*words, "p" + "".join(map(str, self.pads)), f"g{self.group}"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (C, H, W) of the input."""
        size = [(self.out[i] - 1) * self.strides[i] + self.dilations[i] * (self.kernel[i] - 1) + 1 for i in range(2)]
        return self.channels, size[0] - self.pads[0] - self.pads[2], size[1] - self.pads[1] - self.pads[3]

    def graph(self, **how: Any) -> Any:
        """Return its graph; `how` replaces arguments of `builders.conv`."""
        random = np.random.default_rng([self.channels, self.outputs, *self.out, *self.kernel])
        per_group = self.channels // self.group
        shape = (self.outputs, per_group, *self.kernel)
        weight = random.integers(-128, 128, shape) if self.weight is None else np.full(shape, self.weight)
        taps = per_group * self.kernel[0] * self.kernel[1]
        spread = 14 + (taps.bit_length() + 1) // 2
        arguments: dict[str, Any] = {
            "bits": self.bits,
            "bias": random.integers(-(1 << spread), 1 << spread, self.outputs),
            "multiplier": random.integers(1 << 15, 1 << 16, self.outputs),
            "shift": random.integers(spread + 6, spread + 11, self.outputs),
            "z_x": self.z_x,
            "strides": self.strides,
            "dilations": self.dilations,
            "pads": self.pads,
            "group": self.group,
        }
        return builders.conv(self.shape, weight, **(arguments | how))

    def codes(self, count: int = 1, seed: int = 0) -> Array:
        """Return any inputs."""
        return np.random.default_rng(seed).integers(0, 256, (count, *self.shape), np.uint8)


def convolutions(program: Program) -> list[Operation]:
    """Return the operations that multiply."""
    return [op for op in program.operations if isinstance(op, Operation) and op.function == "conv"]


def modes(plan: Plan) -> list[str]:
    """Return how each layer of a plan finds its taps; all panels are made by an operation of their own."""
    with kernel("amx"):
        program = native(plan).program
    operations = program.operations
    found = []
    for number, operation in enumerate(operations):
        if isinstance(operation, Operation) and operation.function == "conv":
            before = operations[number - 1]
            made = isinstance(before, Operation) and before.function == "panels" and before.step == operation.step
            found.append(NAMES.get(int(str(operation.words["matrices"])), "vectors"))
            assert made == (found[-1] == "all panels")
    return found


def assert_bits(
    plan: Plan, codes: Array, mode: str, *, reference: str = "numba", threads: tuple[int, ...] = (1, 3)
) -> None:
    """The layer finds its taps by `mode`, and gives all tensors, sums and flags of the reference."""
    assert modes(plan) == [mode]
    assert_native(plan, codes, names=["amx"], threads=threads, reference=reference)


def as_many_as_allowed(_total: int, *, at_most: int, least: int = 1) -> int:
    """Return as many chunks as an operation can have; small layers are otherwise one."""
    return max(1, at_most) * min(1, least)


def set_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Split every layer into as many chunks as it can have."""
    monkeypatch.setattr(import_module("dqtsim.engines.native.lower.layer"), "spread", as_many_as_allowed)


def never_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gather the taps of every layer, also where its pixels lie one distance apart."""
    monkeypatch.setattr(import_module("dqtsim.engines.native.lower.geometry"), "distance", lambda _offsets: 0)


def set_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let several tiles take turns, as they do where weights leave the cache."""
    monkeypatch.setattr(import_module("dqtsim.engines.native.lower.tiles"), "L2_BYTES", 0)

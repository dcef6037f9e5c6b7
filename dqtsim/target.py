"""HARDWARE: the accelerator on which a network runs, one validated TOML file.

A target fixes what the law leaves to the hardware: accumulator width and overflow, tap order, bias and multiplier
width, the rounding of the requantizer, and the shape of its array. `dqtsim target show default` prints a commented
example.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any, TypeVar

from . import limits
from .errors import TargetError, cut, listed, reason
from .spec.rules import Overflow, Rounding, TapOrder

MODEL_ROUNDING = "MODEL"
T = TypeVar("T")


class ArrayMode(StrEnum):
    """How a processing element multiplies: in one step, or serially over activation bits or 2-bit digits."""

    PARALLEL = "PARALLEL"
    ACTIVATION_SERIAL = "ACTIVATION_SERIAL"
    DIGIT_SERIAL = "DIGIT_SERIAL"


@dataclass(frozen=True)
class Target:
    """One accelerator. Widths are in bits; `rounding` None means: as the model states."""

    name: str
    description: str
    accumulator_width: int
    overflow: Overflow
    tap_order: TapOrder
    bias_width: int
    multiplier_width: int
    rounding: Rounding | None
    rows: int
    columns: int
    mode: ArrayMode


def target_names() -> list[str]:
    """Return the names of the targets that come with dqtsim."""
    folder = resources.files("dqtsim") / "targets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def target_text(name: str) -> str:
    """Return the TOML text of the built-in target `name`. Raises TargetError if there is none."""
    if name not in target_names():
        raise TargetError(f"a target is one of {', '.join(target_names())}, or a .toml file; found '{name}'.")
    return (resources.files("dqtsim") / "targets" / f"{name}.toml").read_text(encoding="utf-8")


def load_target(name: str | os.PathLike[str]) -> Target:
    """Return the target called `name`, or described by the TOML file `name`.

    Raises TargetError, which lists every violation at once.
    """
    text = str(name)
    if not text.endswith(".toml"):
        return parse_target(target_text(text), f"target '{text}'")
    try:
        content = limits.read_text(text)
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"the target file '{text}' cannot be read: {reason(error)}.") from None
    return parse_target(content, f"target file '{text}'")


def parse_target(text: str, where: str) -> Target:
    """Return the target that the TOML `text` describes; `where` names it in errors."""
    try:
        tree = limits.toml_tree(text)
    except ValueError as error:
        raise TargetError(f"{where} is not TOML: {str(error).rstrip('.')}.") from None
    reader = _Reader(tree)
    target = Target(
        name=reader.text("name"),
        description=reader.text("description"),
        accumulator_width=reader.integer("accumulator.width", 8, 48),
        overflow=reader.choice("accumulator.overflow", Overflow, [m.value for m in Overflow]),
        tap_order=reader.choice("accumulator.tap_order", TapOrder, [m.value for m in TapOrder]),
        bias_width=reader.integer("bias.width", 8, 48),
        multiplier_width=reader.integer("requantize.multiplier_width", 2, 31),
        rounding=reader.choice("requantize.rounding", _rounding, [MODEL_ROUNDING, *(m.value for m in Rounding)]),
        rows=reader.integer("array.rows", 1, 4096),
        columns=reader.integer("array.columns", 1, 4096),
        mode=reader.choice("array.mode", ArrayMode, [m.value for m in ArrayMode]),
    )
    reader.refuse_unread()
    if reader.violations:
        count = len(reader.violations)
        rules = listed(reader.violations, "; ")
        raise TargetError(f"{where} breaks {count} rule{'s' if count > 1 else ''}: {rules}.")
    return target


def _rounding(value: str) -> Rounding | None:
    return None if value == MODEL_ROUNDING else Rounding(value)


class _Reader:
    """Reads entries of a TOML tree and collects what is wrong with them instead of stopping at the first."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.violations: list[str] = []
        self._entries: dict[str, Any] = {}
        for key, value in tree.items():
            if isinstance(value, dict):
                self._entries |= {f"{key}.{name}": entry for name, entry in value.items()}
            else:
                self._entries[key] = value
        self._unread = set(self._entries)

    def text(self, key: str) -> str:
        value = self._take(key, "a text")
        if value is not None and (not isinstance(value, str) or not value):
            self._violation(key, "a text", value)
        return str(value)

    def integer(self, key: str, low: int, high: int) -> int:
        expected = f"an integer from {low} to {high}"
        value = self._take(key, expected)
        if value is not None and (type(value) is not int or not low <= value <= high):
            self._violation(key, expected, value)
        return value if type(value) is int else low

    def choice(self, key: str, convert: Callable[[str], T], names: list[str]) -> T:
        expected = f"one of {', '.join(names)}"
        value = self._take(key, expected)
        if value is not None and value not in names:
            self._violation(key, expected, value)
        return convert(value if value in names else names[0])

    def refuse_unread(self) -> None:
        self.violations += [f"'{cut(key)}' is no entry of a target" for key in sorted(self._unread)]

    def _take(self, key: str, expected: str) -> Any:
        if key not in self._entries:
            self.violations.append(f"'{key}' must be {expected}, and is missing")
            return None
        self._unread.discard(key)
        return self._entries[key]

    def _violation(self, key: str, expected: str, value: Any) -> None:
        self.violations.append(f"'{key}' must be {expected}, found {cut(repr(value))}")

"""Building a graph: the domain's operators on codes that have no widths, and what all operators share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from ..spec.window import Window
from .model import Array, Node, Quantization, freeze
from .schema import DOMAIN, SCHEMAS, Attribute, Form

Integers = npt.ArrayLike


@dataclass(frozen=True)
class Tensor:
    """A tensor under construction: its name, shape (N = 1 first) and, for codes, the quantization."""

    name: str
    shape: tuple[int, ...]
    quantization: Quantization | None = None


class CodesBuilder:
    """Collects nodes, arrays and quantizations; the name of an operator is also the name of its output tensor."""

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._arrays: dict[str, Array] = {}
        self._quantization: dict[str, Quantization] = {}

    def add(
        self,
        name: str,
        a: Tensor,
        b: Tensor,
        *,
        multiplier_a: int,
        multiplier_b: int,
        shift: int,
        zero_point: int,
        scale: float,
        clip: tuple[int, int],
    ) -> Tensor:
        """Add a NestedAdd (B5)."""
        constants = {"a_multiplier": multiplier_a, "b_multiplier": multiplier_b, "shift": shift}
        given = {"a": a, "b": b}, constants, clipped(clip)
        return self.operator("NestedAdd", name, a.shape, *given, zero_point=zero_point, scale=scale)

    def multiply(
        self,
        name: str,
        a: Tensor,
        b: Tensor,
        *,
        multiplier: int,
        shift: int,
        zero_point: int,
        scale: float,
        clip: tuple[int, int],
    ) -> Tensor:
        """Add a NestedMultiply (B10); `b` has the shape of `a`, or (1, C, 1, 1): one code per channel."""
        given = {"a": a, "b": b}, {"multiplier": multiplier, "shift": shift}, clipped(clip)
        return self.operator("NestedMultiply", name, a.shape, *given, zero_point=zero_point, scale=scale)

    def average_pool(
        self,
        name: str,
        x: Tensor,
        *,
        kernel: tuple[int, int],
        strides: tuple[int, int],
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        multiplier: Integers,
        shift: int,
        zero_point: int,
        scale: float,
        clip: tuple[int, int],
    ) -> Tensor:
        """Add a NestedAveragePool; the multiplier carries 1/area (B6), or there is one per output position (B6')."""
        rows, columns = Window(kernel, strides, pads=pads).output_size(x.shape[2], x.shape[3])
        attributes: dict[str, Attribute] = {"kernel_shape": kernel, "strides": strides, "pads": pads, **clipped(clip)}
        given = {"x": x}, {"multiplier": multiplier, "shift": shift}, attributes
        shape = (*x.shape[:2], rows, columns)
        form = ("positions",) if np.ndim(multiplier) else ()
        return self.operator("NestedAveragePool", name, shape, *given, zero_point=zero_point, scale=scale, form=form)

    def requantize(
        self, name: str, x: Tensor, *, multiplier: int, shift: int, zero_point: int, scale: float, clip: tuple[int, int]
    ) -> Tensor:
        """Add a NestedRequantize: the same values on another grid (B4), as a Concat of unlike scales needs it."""
        given = {"x": x}, {"multiplier": multiplier, "shift": shift}, clipped(clip)
        return self.operator("NestedRequantize", name, x.shape, *given, zero_point=zero_point, scale=scale)

    def table(self, name: str, x: Tensor, table: Integers, *, zero_point: int, scale: float) -> Tensor:
        """Add a NestedTable: `table` (2^n) for all channels (B9), or (C, 2^n), one per channel (B9')."""
        form = ("channels",) if np.ndim(table) > 1 else ()
        given = {"x": x}, {"table": table}
        return self.operator("NestedTable", name, x.shape, *given, zero_point=zero_point, scale=scale, form=form)

    def operator(
        self,
        operator: str,
        name: str,
        shape: Sequence[int],
        tensors: Mapping[str, Tensor],
        constants: Mapping[str, Integers],
        attributes: Mapping[str, Attribute] = MappingProxyType({}),
        *,
        zero_point: int,
        scale: float,
        form: Form = (),
    ) -> Tensor:
        """Add any operator of the domain that gives codes and has no widths; `tensors` and `constants` come by role.

        The zero points in its schema are those of the tensors; `y_zero_point` is that of the result. `form` names the
        parts of the schema that the node uses. Raises ModelError for a constant that the dtype of its role does not
        hold.
        """
        y = self._codes(name, tuple(shape), zero_point, (scale,))
        schema = SCHEMAS[DOMAIN, operator]
        operands = {role: x.name for role, x in tensors.items()}
        for role, x in {**tensors, "y": y}.items():
            if f"{role}_zero_point" in schema.roles(0):
                operands[f"{role}_zero_point"] = self._zero_point(x)
        dtypes = {entry.name: entry.dtypes[0] for entry in schema.inputs_of(form)}
        for role, value in constants.items():
            array = np.asarray(value).astype(dtypes[role])
            if not np.array_equal(array, value):
                raise ModelError(f"'{role}' of '{name}' holds numbers that are no {dtypes[role]}.")
            operands[role] = self._array(f"{name}.{role}", array)
        self._node(name, DOMAIN, operator, operands, attributes, form)
        return y

    def _codes(self, name: str, shape: tuple[int, ...], zero_point: int, scale: tuple[float, ...]) -> Tensor:
        quantization = Quantization(tuple(float(s) for s in scale), int(zero_point))
        self._quantization[name] = quantization
        return Tensor(name, shape, quantization)

    def _same(self, name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        assert x.quantization is not None
        return self._codes(name, shape, x.quantization.zero_point, x.quantization.scale)

    def _zero_point(self, x: Tensor) -> str:
        assert x.quantization is not None
        return self._array(f"{x.name}.zero_point", np.array(x.quantization.zero_point, np.uint8))

    def _array(self, name: str, array: Array) -> str:
        self._arrays[name] = freeze(array)
        return name

    def _node(
        self,
        name: str,
        domain: str,
        operator: str,
        operands: Mapping[str, str],
        attributes: Mapping[str, Attribute],
        form: Form = (),
    ) -> None:
        """Add a node whose inputs are `operands`, tensor names by role."""
        inputs = tuple(operands[role] for role in SCHEMAS[domain, operator].roles(len(operands), form))
        self._nodes.append(Node(name, domain, operator, inputs, (name,), MappingProxyType(dict(attributes)), form))


def clipped(clip: tuple[int, int]) -> dict[str, Attribute]:
    """Return the attributes of a clip (B4)."""
    return {"low": int(clip[0]), "high": int(clip[1])}

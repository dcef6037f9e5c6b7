"""One node of an ONNX graph, with what is known of its inputs, and the module that computes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from dqtsim.errors import ModelError, cut

Constant = npt.NDArray[Any]
Function = Callable[..., Any]
Sizes = tuple[int, ...]


class Operation(nn.Module):
    """A function of tensors; its constants are this module's parameters, given to it by name."""

    def __init__(self, function: Function, **constants: torch.Tensor | None) -> None:
        super().__init__()
        self.function = function
        for name, constant in constants.items():
            if constant is not None:
                self.register_parameter(name, nn.Parameter(constant, requires_grad=False))

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The function's result, of tensors [N, ...]."""
        return self.function(*inputs, **dict(self.named_parameters()))


@dataclass(frozen=True)
class Call:
    """A node that depends on the picture.

    An input is a constant, or an example of its values (a tensor whose first axis is the batch), or None where it is
    left out. `opset` is the version of the operators of the file.
    """

    node: onnx.NodeProto
    opset: int
    inputs: tuple[Constant | torch.Tensor | None, ...]

    @property
    def name(self) -> str:
        """The name of the node, or of its result."""
        return self.node.name or self.node.output[0]

    def refuse(self, why: str) -> ModelError:
        """The error that names this node and its operator."""
        return ModelError(f"node '{cut(self.name)}' ({cut(self.node.op_type)}) {why}.")

    def has(self, position: int) -> bool:
        """Whether the input at `position` is given."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def x(self, position: int = 0) -> torch.Tensor:
        """The example of an input that must depend on the picture."""
        value = self.inputs[position] if position < len(self.inputs) else None
        if not isinstance(value, torch.Tensor):
            raise self.refuse(f"must have a feature map as input {position}, and has a constant")
        return value

    def constant(self, position: int) -> Constant:
        """The value of an input that must be a constant."""
        value = self.inputs[position] if position < len(self.inputs) else None
        if not isinstance(value, np.ndarray):
            raise self.refuse(f"must have a constant as input {position}, and it depends on the picture or is missing")
        return value

    def tensor(self, position: int) -> torch.Tensor:
        """A constant of float32 as a tensor."""
        value = self.constant(position)
        if value.dtype != np.float32:
            raise self.refuse(f"must have float32 as input {position}, and has {value.dtype}")
        return torch.from_numpy(value.copy())

    def integers(self, position: int) -> list[int]:
        """A constant of integers as a list."""
        value = self.constant(position)
        if value.dtype.kind not in "iu":
            raise self.refuse(f"must have integers as input {position}, and has {value.dtype}")
        return [int(entry) for entry in value.reshape(-1)]

    def number(self, position: int) -> float:
        """A constant of one number."""
        value = self.constant(position)
        if value.size != 1:
            raise self.refuse(f"must have one number as input {position}, and has {value.size}")
        return float(value.reshape(-1)[0])

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute: an int, a float, a text, or a list of these."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                if isinstance(value, bytes):
                    return value.decode("utf-8", "replace")
                return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        return default

    def axis(self, value: int, rank: int) -> int:
        """An axis from the front; the batch's is refused."""
        found = value + rank if value < 0 else value
        if not 0 <= found < rank:
            raise self.refuse(f"names axis {value} of a tensor with {rank} axes")
        if found == 0:
            raise self.refuse("works on the axis of the batch, so that pictures would depend on each other")
        return found

    def axes(self, position: int, since: int, rank: int) -> list[int] | None:
        """Axes from an attribute, or from the input at `position` since an opset; None if there are none."""
        if self.opset >= since:
            given = self.integers(position) if self.has(position) else None
        else:
            given = self.attribute("axes")
        return None if given is None else sorted(self.axis(axis, rank) for axis in given)


Handler = Callable[[Call], Operation]

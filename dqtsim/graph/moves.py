"""Standard operators on codes for GraphBuilder: maxima and moves, whose results are on the grid of their input."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..spec.window import Window
from .codes import CodesBuilder, Tensor
from .schema import Attribute

# More pieces than these are gathered one by one.
_MOST_PIECES = 5


class MovesBuilder(CodesBuilder):
    """The part of GraphBuilder that adds standard operators."""

    def max_pool(
        self,
        name: str,
        x: Tensor,
        *,
        kernel: tuple[int, int],
        strides: tuple[int, int],
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilations: tuple[int, int] = (1, 1),
    ) -> Tensor:
        """Add a MaxPool on codes (B6)."""
        rows, columns = Window(kernel, strides, dilations, pads).output_size(x.shape[2], x.shape[3])
        attributes: dict[str, Attribute] = {
            "kernel_shape": kernel,
            "strides": strides,
            "pads": pads,
            "dilations": dilations,
            "ceil_mode": 0,
            "storage_order": 0,
            "auto_pad": "NOTSET",
        }
        self._node(name, "", "MaxPool", {"x": x.name}, attributes)
        return self._same(name, x, (*x.shape[:2], rows, columns))

    def flatten(self, name: str, x: Tensor) -> Tensor:
        """Add a Flatten to (1, K), in C, H, W order."""
        self._node(name, "", "Flatten", {"input": x.name}, {"axis": 1})
        return self._same(name, x, (1, int(np.prod(x.shape[1:]))))

    def concat(self, name: str, parts: Sequence[Tensor], axis: int = 1) -> Tensor:
        """Add a Concat along an axis, by default the channels; the parts must share one quantization."""
        self._node(name, "", "Concat", {f"inputs.{i}": part.name for i, part in enumerate(parts)}, {"axis": axis})
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        return self._same(name, parts[0], tuple(shape))

    def reshape(self, name: str, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Add a Reshape to (1, *shape), the codes in the same order."""
        # 0 copies the axis of the pictures
        self._array(f"{name}.shape", np.array([0, *shape], np.int64))
        self._node(name, "", "Reshape", {"data": x.name, "shape": f"{name}.shape"}, {"allowzero": 0})
        return self._same(name, x, (1, *shape))

    def transpose(self, name: str, x: Tensor, axes: Sequence[int]) -> Tensor:
        """Add a Transpose: axis i of the result is axis `axes[i]` of `x`; the first must be 0."""
        self._node(name, "", "Transpose", {"data": x.name}, {"perm": tuple(axes)})
        return self._same(name, x, tuple(x.shape[axis] for axis in axes))

    def take(self, name: str, x: Tensor, axis: int, indices: Sequence[int]) -> Tensor:
        """Take positions along an axis; -1 is the zero point (real 0). The last node is called `name`.

        A few runs of positions become a Slice each, joined by a Concat; else one Gather takes all.
        """
        runs = _runs(indices)
        if len(runs) > _MOST_PIECES:
            return self._gather(name, x, axis, indices)
        pieces = []
        for number, run in enumerate(runs):
            piece = name if len(runs) == 1 else f"{name}.{number}"
            if run[0] < 0:
                pieces.append(self._zeros(piece, x, axis, len(run)))
            elif len(runs) > 1 and list(run) == list(range(x.shape[axis])):
                pieces.append(x)
            else:
                pieces.append(self._slice(piece, x, axis, run))
        return pieces[0] if len(pieces) == 1 else self.concat(name, pieces, axis)

    def _gather(self, name: str, x: Tensor, axis: int, indices: Sequence[int]) -> Tensor:
        size, places = x.shape[axis], np.array(indices, np.int64)
        if min(indices) < 0:
            zero = self._zeros(f"{name}.zero", x, axis, 1)
            x = self.concat(f"{name}.with_zero", [x, zero], axis)
            places = np.where(places < 0, size, places)
        self._array(f"{name}.indices", places)
        self._node(name, "", "Gather", {"data": x.name, "indices": f"{name}.indices"}, {"axis": axis})
        return self._same(name, x, _resized(x.shape, axis, len(indices)))

    def _slice(self, name: str, x: Tensor, axis: int, run: Sequence[int]) -> Tensor:
        step = run[1] - run[0] if len(run) > 1 else 1
        bounds = {"starts": run[0], "ends": run[-1] + 1, "axes": axis, "steps": step}
        operands = {role: self._array(f"{name}.{role}", np.array([value], np.int64)) for role, value in bounds.items()}
        self._node(name, "", "Slice", {"data": x.name, **operands}, {})
        return self._same(name, x, _resized(x.shape, axis, len(run)))

    def _zeros(self, name: str, x: Tensor, axis: int, count: int) -> Tensor:
        """Return an initializer that stands for real zeros, shaped like `x` but for `count` positions along an axis."""
        assert x.quantization is not None
        shape = _resized(x.shape, axis, count)
        self._array(name, np.full(shape, x.quantization.zero_point, np.uint8))
        return self._same(name, x, shape)


def _resized(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _runs(indices: Sequence[int]) -> list[list[int]]:
    """Return the indices cut into runs: of -1 alone, or of positions one or more apart, always the same."""
    runs = [[indices[0]]]
    for before, index in pairwise(indices):
        run = runs[-1]
        step = run[1] - run[0] if len(run) > 1 else index - before
        if (before < 0 and index < 0) or (before >= 0 and index >= 0 and step > 0 and index - before == step):
            run.append(index)
        else:
            runs.append([index])
    return runs

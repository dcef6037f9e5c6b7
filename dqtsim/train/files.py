"""Pictures of an image folder that may not fit into memory: decoded when needed, and brought to one size.

For evaluation, a picture is its central square, whose side is 7/8 of the shorter side, scaled (bilinear) to the size:
as the usual scaling of the shorter side to 256 and cropping of the central 224. For training it is the usual random
crop, of 8 to 100 % of the area and of sides 3:4 to 4:3, scaled to the size, and mirrored every other time.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from dqtsim.inputs.decode import Pictures as Codes
from dqtsim.inputs.decode import as_codes, open_picture

if TYPE_CHECKING:
    from PIL import Image

_SHARE = 7 / 8
_TRIES = 10
_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
# Random numbers per picture: area and ratio of each try, place, mirror.
_NUMBERS = 2 * _TRIES + 3
# Number of batches that are decoded ahead.
_AHEAD = 1

# Limit of the pixels evaluated at once, so that a network's tensors fit into memory, and the least number of pictures.
_PART = 250 * 32 * 32
_FEWEST = 16

Box = tuple[int, int, int, int]


class Pictures(Protocol):
    """Pictures uint8 [N, 3, H, W] on the CPU, in memory (a tensor) or in files (`PictureFiles`)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N, 3, H and W."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | torch.Tensor) -> torch.Tensor:
        """The pictures of a slice or of an index int64 [n]: uint8 [n, 3, H, W]."""


def in_parts(images: Pictures) -> Iterator[slice]:
    """Slices that cover `images` in order, each small enough to be computed with at once."""
    rows, columns = images.shape[2:]
    size = min(250, max(_FEWEST, _PART // (rows * columns)))
    for start in range(0, len(images), size):
        yield slice(start, start + size)


def central_box(width: int, height: int) -> Box:
    """The left, upper, right and lower edge of the part of a picture that evaluation uses."""
    side = max(1, round(min(width, height) * _SHARE))
    left, upper = (width - side) // 2, (height - side) // 2
    return left, upper, left + side, upper + side


def random_box(width: int, height: int, numbers: Sequence[float]) -> Box:
    """The edges of the part that training uses; `numbers` [23] are uniform in [0, 1)."""
    *shapes, across, down, _ = numbers
    for area, ratio in zip(shapes[::2], shapes[1::2], strict=True):
        wanted = width * height * (_AREA[0] + area * (_AREA[1] - _AREA[0]))
        low, high = (math.log(end) for end in _RATIO)
        stretch = math.exp(low + ratio * (high - low))
        columns, rows = round(math.sqrt(wanted * stretch)), round(math.sqrt(wanted / stretch))
        if 0 < columns <= width and 0 < rows <= height:
            left, upper = int(across * (width - columns + 1)), int(down * (height - rows + 1))
            return left, upper, left + columns, upper + rows
    # The picture is so narrow that no try fits: take the largest part of an allowed shape.
    columns, rows = min(width, round(height * _RATIO[1])), min(height, round(width / _RATIO[0]))
    left, upper = (width - columns) // 2, (height - rows) // 2
    return left, upper, left + columns, upper + rows


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Pictures uint8 [N, 3, size, size] in files, indexed as a tensor of them is, by a slice or int64 [n].

    The result does not depend on threads. Raises InputError naming a file that is not a whole picture.
    """

    files: tuple[str, ...]
    size: int
    threads: int | None = None
    _pool: ThreadPoolExecutor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the threads, which start when they are first needed."""
        object.__setattr__(self, "_pool", ThreadPoolExecutor(self.threads, "pictures"))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape, as of a tensor."""
        return len(self.files), 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: slice | torch.Tensor) -> torch.Tensor:
        names = self.files[index] if isinstance(index, slice) else [self.files[i] for i in index.tolist()]
        return _gather([self._pool.submit(self._central, name) for name in names], self.size)

    def first(self, count: int | None) -> "PictureFiles":
        """The first `count` files, or all."""
        return PictureFiles(self.files[:count], self.size, self.threads)

    def augmented(self, parts: Iterable[torch.Tensor], generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Random crops of the pictures of each index int64 [n], uint8 [n, 3, size, size].

        The next part is decoded while the caller computes with this one; its random numbers are drawn before.
        """
        waiting: deque[list[Future[Codes]]] = deque()
        for index in parts:
            numbers = torch.rand((len(index), _NUMBERS), generator=generator, dtype=torch.float64).tolist()
            names = [self.files[i] for i in index.tolist()]
            waiting.append([self._pool.submit(self._random, *each) for each in zip(names, numbers, strict=True)])
            if len(waiting) > _AHEAD:
                yield _gather(waiting.popleft(), self.size)
        while waiting:
            yield _gather(waiting.popleft(), self.size)

    def _central(self, name: str) -> Codes:
        image = open_picture(Path(name))
        return self._scaled(image, central_box(*image.size))

    def _random(self, name: str, numbers: Sequence[float]) -> Codes:
        image = open_picture(Path(name))
        codes = self._scaled(image, random_box(*image.size, numbers))
        return codes[:, :, ::-1] if numbers[-1] < 0.5 else codes

    def _scaled(self, image: "Image.Image", box: Box) -> Codes:
        from PIL import Image

        return as_codes(image.resize((self.size, self.size), Image.Resampling.BILINEAR, box))


def _gather(pictures: Sequence[Future[Codes]], size: int) -> torch.Tensor:
    gathered = np.empty((len(pictures), 3, size, size), np.uint8)
    for i, picture in enumerate(pictures):
        gathered[i] = picture.result()
    return torch.from_numpy(gathered)

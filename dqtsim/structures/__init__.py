"""Known network structures with random weights: for counting, benchmarks and tests, with NumPy only.

`build(name, ...)` gives a valid nested network whose shapes are the published ones and whose activations keep a usable
spread; its accuracy is chance.
"""

from collections.abc import Callable

from ..errors import InputError
from ..graph.model import Graph
from .layers import Sketch
from .mobilenet import mobilenetv2
from .resnet import resnet8, resnet18, resnet18_imagenet, resnet20, resnet50

Structure = Callable[[Sketch], None]
_STRUCTURES: dict[str, tuple[Structure, int, int]] = {
    # name: (structure, input size, classes)
    "resnet8": (resnet8, 32, 10),
    "resnet20": (resnet20, 32, 10),
    "resnet18": (resnet18, 32, 10),
    "resnet18-imagenet": (resnet18_imagenet, 224, 1000),
    "resnet50": (resnet50, 224, 1000),
    "mobilenetv2": (mobilenetv2, 224, 1000),
}
STRUCTURES = tuple(_STRUCTURES)


def build(
    name: str, *, input_size: int | None = None, classes: int | None = None, seed: int = 0, dynamic: bool = False
) -> Graph:
    """Return the network called `name` with random weights from `seed`.

    Widths are static at the master width, or chosen by a random controller if `dynamic` (then the stem is pinned).
    Raises InputError for an unknown name or a picture too small for the structure.
    """
    if name not in _STRUCTURES:
        raise InputError(f"a structure is one of {', '.join(STRUCTURES)}; found '{name}'.")
    structure, default_size, default_classes = _STRUCTURES[name]
    size = input_size or default_size
    if size < 32 or size % 32:
        raise InputError(f"the input size of a structure is a multiple of 32; found {size}.")
    sketch = Sketch(name, size, classes or default_classes, seed, dynamic)
    structure(sketch)
    return sketch.build()

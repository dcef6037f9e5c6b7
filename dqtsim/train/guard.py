"""The guard of `prepare`: the steps as read are evaluated and compared with the network itself, on a few pictures.

A reader may take an argument, a name or an order for another. So every step is computed in float from its own numbers
(`floats.py`), without the graph it was read from, and compared with the value that the graph has there, before and
after its activation; and the last ones with what the network itself gives when it is called.

All is computed in float64. There the two differ only by rounding, 5e-16 of the largest value in ResNet-20. So the bound
leaves nine decades for deep networks and is still tight: an eps read as 1e-5 instead of 1e-4 exceeds it. In float32,
rounding alone might exceed it.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from dqtsim.errors import ModelError
from dqtsim.train import floats, steps
from dqtsim.train.pixels import Pixels
from dqtsim.train.reading.export import reason, silent
from dqtsim.train.reading.reader import Reading
from dqtsim.train.rules import TOP_CODE
from dqtsim.train.steps import INPUT, converted

Network = Callable[[torch.Tensor], object]

# The largest allowed difference between a step and the network, relative to the network's largest value there.
BOUND = 1e-6
# Fewer pictures are used if they have more pixels than this, to save time.
_LARGE = 128 * 128
_GIVEN = "prepare must export the network that it is given, but"


def copied(model: nn.Module) -> nn.Module:
    """A copy of `model` on the CPU, in float64 and in eval mode; changes to it do not affect the original."""
    if next(model.parameters(), None) is None:
        raise ModelError("a network must have parameters, but this one has none.")
    # Weights that hooks compute (weight_norm, pruning) are not leaves of autograd, so deepcopy refuses them.
    memo = {
        id(tensor): tensor.detach().clone()
        for module in model.modules()
        for tensor in (*vars(module).values(), *module.buffers(recurse=False))
        if isinstance(tensor, torch.Tensor) and not tensor.is_leaf
    }
    try:
        return copy.deepcopy(model, memo).eval().cpu().double()
    except Exception as error:
        raise ModelError(f"a network must be copyable by copy.deepcopy, but: {reason(error)}.") from error


def of_program(program: ExportedProgram, batch: int) -> Network:
    """A program that torch.export made, in float64, for any number of pictures; it takes `batch` at a time."""
    with silent():
        module = copy.deepcopy(program.module()).double()

    def call(pictures: torch.Tensor) -> object:
        results = [tree_leaves(module(some)) for some in _parts(pictures, batch)]
        return [torch.cat(parts)[: len(pictures)] for parts in zip(*results, strict=True)]

    return call


def check(network: Network, reading: Reading, pixels: Pixels) -> None:
    """Raise ModelError with the first step of `reading` that differs from the network's value, and the difference.

    `network` takes and gives float64, as the copy of a module in eval mode; `pixels` says what codes stand for.
    """
    pictures = pixels.values(_codes(pixels.shape, pixels.zero_point), torch.float64)
    with torch.no_grad():
        outputs = _check_steps(reading, pictures)
        given = _called(network, pictures)
        _check_alone(network, pictures, given)
        for name, found, expected in zip(reading.traced.outputs, outputs, given, strict=True):
            place = _Place(f"output '{name}'")
            place.see(found, expected)
            if place.fault() is not None:
                raise ModelError(
                    f"{place.fault()} when it is called, though torch.export's graph of it agrees; what it does only "
                    f"while it is exported would do that."
                )


def _check_alone(network: Network, pictures: torch.Tensor, given: list[torch.Tensor]) -> None:
    """Refuse a network that gives something else for two of the pictures when it is called again."""
    for one, again in zip(given, _called(network, pictures[-2:]), strict=True):
        if one.isfinite().all() and not agree(again, one[-2:]):
            raise ModelError(
                f"a network in eval mode must always give the same for the same pictures, but this one differs from "
                f"itself by up to {_distance(again, one[-2:]):.3g}; a dropout that is always on, a state that changes, "
                f"or one picture that changes another's result would do that."
            )


def _called(network: Network, pictures: torch.Tensor) -> list[torch.Tensor]:
    """The network's outputs, [N, ...] each, when it is called."""
    try:
        # A copy, because the network may change its input.
        given = tree_leaves(network(pictures.clone()))
    except Exception as error:
        raise ModelError(
            f"a network must be evaluated in float64 on {len(pictures)} pictures of shape {tuple(pictures.shape[1:])} "
            f"to be compared with what prepare reads of it, but: {reason(error)}."
        ) from error
    return [value for value in given if isinstance(value, torch.Tensor)]


class _Place:
    """The values of one tensor as read and as the network has them, over all pictures."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.largest, self.apart, self.worst = 0.0, 0.0, (0.0, 0.0)
        # What is wrong with it, whatever the values are.
        self.broken: str | None = None

    def see(self, found: torch.Tensor, expected: torch.Tensor) -> None:
        """Note the values of some pictures, [N, ...]."""
        if not expected.isfinite().all():
            self.broken = f"a network must give finite values, but its {self.what} does not"
        elif found.numel() != expected.numel():
            own, other = (tuple(tensor.shape[1:]) for tensor in (found, expected))
            self.broken = f"{_GIVEN} {self.what} gives {own} where the network gives {other}"
        else:
            found, expected = found.flatten(), expected.flatten()
            distances = (found - expected).abs()
            # A value that is not finite is further apart than any other.
            worst = int(distances.nan_to_num(torch.inf).argmax())
            self.largest = max(self.largest, float(expected.abs().max()))
            if not float(distances[worst]) <= self.apart:
                self.apart, self.worst = float(distances[worst]), (float(found[worst]), float(expected[worst]))

    def fault(self) -> str | None:
        """The difference, if there is one that is not rounding."""
        if self.broken is not None or self.apart <= BOUND * self.largest:
            return self.broken
        one, other = self.worst
        return f"{_GIVEN} {self.what} gives {one:.4g} where the network gives {other:.4g} ({self.apart:.3g} apart)"


def _check_steps(reading: Reading, pictures: torch.Tensor) -> list[torch.Tensor]:
    """Compare every step with the graph, and return the network's outputs as they were read, [N, ...] each."""
    traced, batch = converted(reading.traced, torch.float64), reading.exported.batch
    # Each step has two places: before its activation, which may hide a difference, and after it.
    places = {step.name: (_Place(_named(step)), _Place(_named(step))) for step in traced.steps}
    outputs: list[list[torch.Tensor]] = [[] for _ in traced.outputs]
    for some in _parts(pictures, batch):
        graph = reading.exported.values(some.clone(), {*reading.nodes.values(), *reading.sums.values()})
        own = {INPUT: some}
        for step in traced.steps:
            before, after = places[step.name]
            try:
                sums, own[step.name] = floats.evaluate_step(step, [own[source] for source in step.sources])
            except RuntimeError as error:
                after.broken = f"{_GIVEN} {_named(step)} cannot be computed from what was read: {reason(error)}"
                break
            if step.name in reading.sums:
                before.see(sums, graph[reading.sums[step.name]])
            if step.name in reading.nodes:
                after.see(own[step.name], graph[reading.nodes[step.name]])
            if tuple(own[step.name].shape[1:]) != step.shape:
                after.broken = after.broken or f"{_GIVEN} {_named(step)} is not of its shape, {step.shape}"
        else:
            for found, name, function in zip(outputs, traced.outputs, reading.left_out, strict=True):
                found.append(own[name] if function is None else floats.apply(function, own[name]))
    for place in (place for pair in places.values() for place in pair):
        if (fault := place.fault()) is not None:
            raise ModelError(f"{fault}.")
    return [torch.cat(found)[: len(pictures)] for found in outputs]


def _parts(pictures: torch.Tensor, batch: int) -> Iterator[torch.Tensor]:
    """`batch` pictures at a time; the last is repeated until they are enough."""
    for start in range(0, len(pictures), batch):
        chosen = torch.arange(start, start + batch).clamp_max(len(pictures) - 1)
        yield pictures[chosen]


def _codes(shape: tuple[int, ...], zero_point: int) -> torch.Tensor:
    """Pictures of codes uint8 [N, C, H, W]: one of zeros; the others of squares from one pixel to most of a side.

    In one half of them the codes of a square are random, in the other 0 or 255, the extremes for most filters.
    """
    generator = torch.Generator().manual_seed(0)
    # A line of pixels is one row, a flat input one channel of one row.
    channels, rows, columns = {1: (1, 1, *shape), 2: (shape[0], 1, shape[-1]), 3: shape}[len(shape)]
    large = rows * columns > _LARGE
    found = [torch.full((channels, rows, columns), zero_point)]
    for number, part in enumerate((0.0, 0.25, 0.75) if large else (0.0, 0.25, 0.5, 0.75)):
        side = int(max(rows, columns) ** part)
        for extreme in (bool(number % 2),) if large else (False, True):
            size = channels, -(-rows // side), -(-columns // side)
            squares = torch.randint(0, TOP_CODE + 1, size, generator=generator)
            squares = (squares > TOP_CODE // 2) * TOP_CODE if extreme else squares
            found.append(squares.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :rows, :columns])
    return torch.stack(found).to(torch.uint8).reshape(-1, *shape)


def agree(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two tensors are of one shape and within the bound; values that are not finite never agree."""
    return found.shape == expected.shape and _distance(found, expected) <= BOUND * float(expected.abs().max())


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max())


def _named(step: steps.Step) -> str:
    return f"step '{step.name}' ({type(step).__name__})"

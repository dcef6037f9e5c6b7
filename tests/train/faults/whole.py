"""A float network taken the whole way, and how far the integers that come out are from it.

The files beside this one are named after faults that others met: networks that were exported as another one, without a
word. Each says what the network computes and that its integers now do.
"""

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from torch import nn

from dqtsim.graph import Graph
from dqtsim.graph.results import meaning
from dqtsim.train import NestedConfig, NestingRules, calibrate, prepare
from dqtsim.train.exact import run_graph
from dqtsim.train.folding import fold

SHAPE = (3, 8, 8)
RULES = NestingRules(candidates=((8, 8),))
# The clearest of the faults were off by half a standard deviation of the logits, sound networks by a tenth of that.
NEAR = 0.1


def pictures(count: int = 24, seed: int = 1) -> torch.Tensor:
    """Coarse colours with some noise, uint8 [N, 3, 8, 8]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(20, 236, (count, 3, 2, 2), generator=generator)
    noise = torch.randint(-20, 20, (count, *SHAPE), generator=generator)
    return (coarse.repeat_interleave(4, 2).repeat_interleave(4, 3) + noise).to(torch.uint8)


def floats(codes: torch.Tensor) -> torch.Tensor:
    """What the network reads, float32 [N, 3, 8, 8]."""
    return (codes.float() - 128) / 64


def exported(model: nn.Module) -> Graph:
    """The model file's graph of a float network, calibrated on `pictures`, at eight bits."""
    network = prepare(model.eval(), NestedConfig(RULES, SHAPE))
    return fold(calibrate(network, [pictures()]))


def real(graph: Graph, name: str) -> torch.Tensor:
    """What the integers of the tensor `name` stand for, float64 [N, ...], for other pictures than calibration's."""
    means = meaning(graph, name)
    assert means is not None
    rows = [torch.from_numpy(run_graph(graph, one[None].numpy())[name][0]) for one in pictures(12, seed=2)]
    return (torch.stack(rows).double() - means.zero_point) * means.scale[0]


def deviations(model: nn.Module) -> float:
    """The root mean square of what the exported outputs are off, in standard deviations of the float network's."""
    graph = exported(model)
    with torch.no_grad():
        expected = model(floats(pictures(12, seed=2))).double()
    off = real(graph, graph.outputs[0].name) - expected
    return float(off.square().mean().sqrt() / expected.std())

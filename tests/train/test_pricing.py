"""The training cost is what `count-ops` counts: BitOPs, energy and cycles, with a budget in their own units."""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from click.testing import CliRunner
from torch.nn import functional

import dqtsim
from dqtsim.cli import main
from dqtsim.energy import load_energy
from dqtsim.errors import InputError
from dqtsim.graph.model import Graph
from dqtsim.search import Costs, costs
from dqtsim.train import NestedConfig, NestingRules, networks, prepare, train
from dqtsim.train.config import Cost, TrainConfig
from dqtsim.train.folding import fold
from dqtsim.train.loss import CostModel
from dqtsim.train.network import NestedNetwork
from dqtsim.train.pricing import UNITS, cost_model, counted_cost
from dqtsim.train.rules import Widths

from .conftest import tiny_config

PAIRS = ((2, 2), (4, 8), (8, 8))
# 2-bit digits, so that both widths count.
SERIAL = "acc24-saturate"
COUNTED: tuple[Cost, ...] = ("bitops", "energy", "cycles")


def untrained() -> NestedNetwork:
    torch.manual_seed(0)
    return prepare(networks.build("resnet8", 10, 0.5), NestedConfig(NestingRules(candidates=PAIRS)))


@pytest.fixture(scope="module")
def graph() -> Graph:
    network = untrained()
    return fold(network, network.new_controller())


def priced(graph: Graph, cost: Cost) -> Costs:
    return costs(graph, dqtsim.load_target(SERIAL), load_energy(), UNITS[cost], controller=True)


def model(graph: Graph, cost: Cost, budget: float | None, candidates: tuple[Widths, ...] = PAIRS) -> CostModel:
    return counted_cost(graph, cost, candidates, budget, target=SERIAL, energy="horowitz-45nm")


def counted(path: Path, *options: str) -> dict[Cost, Fraction]:
    """Return the totals of `count-ops`; node by node for energy, because a printed total is a rounded sum."""
    result = CliRunner().invoke(main, ["count-ops", str(path), "--target", SERIAL, "--json", *options])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)["dqtsim"]
    energy = sum((Fraction(node["energy_pj"]["total"]) for node in found["nodes"]), Fraction(0))
    return {
        "bitops": Fraction(found["total"]["bitops"], 10**6),
        "energy": energy / 10**6,
        "cycles": Fraction(found["total"]["cycles"]),
    }


def test_a_table_entry_is_a_difference_of_counted_plans(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    dqtsim.save(graph, path)
    free = [layer for layer in graph.layers if layer not in graph.pinned]
    assert free == untrained().layer_names

    def plan(choice: dict[str, int]) -> dict[Cost, Fraction]:
        pairs = [graph.pinned.get(layer) or PAIRS[choice.get(layer, 2)] for layer in graph.layers]
        return counted(path, "--bits", ",".join(f"w{w}a{a}" for w, a in pairs))

    base = plan({})
    for changes in ({"block1.conv1": 0}, {"block2.down": 1}, {"block3.conv2": 1}, {"fc": 0}):
        changed = plan(changes)
        for cost in COUNTED:
            table = priced(graph, cost).table
            entries = [table[free.index(layer)] for layer in changes]
            difference = sum((row[k] - row[2] for row, k in zip(entries, changes.values(), strict=True)), Fraction(0))
            assert difference == changed[cost] - base[cost]
            assert difference < 0
    # A dynamic model counts its controller, whatever that chooses: here, the widest.
    dynamic = counted(path)
    for cost in COUNTED:
        assert priced(graph, cost).total([2] * len(free)) == dynamic[cost]
        assert priced(graph, cost).fixed > costs(graph, dqtsim.load_target(SERIAL), load_energy(), UNITS[cost]).fixed


@pytest.mark.parametrize("cost", COUNTED)
def test_a_cost_is_in_bits_and_a_budget_in_its_own_unit(graph: Graph, cost: Cost) -> None:
    logits = functional.one_hot(torch.tensor([[2] * 9]), 3).float() * 100
    whole = priced(graph, cost).total([2] * 9)
    found = model(graph, cost, float(whole))
    assert float(found.loss(logits)) == pytest.approx(0, abs=1e-5)
    # From 8 bits to 1 in every layer there are seven bits, whatever is counted.
    ends = model(graph, cost, None, ((1, 1), (8, 8))).table.double()
    assert float((ends[:, 1] - ends[:, 0]).sum()) == pytest.approx(7, abs=1e-5)
    less = model(graph, cost, float(whole) * 0.9)
    lost = float(whole) * 0.1 / float(priced(graph, cost).table[0][2]) * float(found.table[0, 2])
    assert float(less.loss(logits)) == pytest.approx(lost, rel=1e-4)


@pytest.mark.parametrize("cost", COUNTED)
def test_a_budget_below_the_cheapest_widths_is_refused(graph: Graph, cost: Cost) -> None:
    least = float(priced(graph, cost).total([0] * 9))
    with pytest.raises(InputError) as raised:
        model(graph, cost, 0.5)
    assert str(raised.value) == (
        f"A budget must allow the cheapest widths, {least:.6g} {UNITS[cost]} per picture, but is 0.5."
    )
    with pytest.raises(InputError):
        model(graph, cost, least * (1 - 1e-9))
    model(graph, cost, least * (1 + 1e-9))


def test_a_budget_below_the_narrowest_candidates_is_refused() -> None:
    network = untrained()
    config = TrainConfig(Path(), Path(), candidates=((4, 8), (4, 5), (8, 2), (8, 8)), budget=4.49)
    with pytest.raises(InputError) as raised:
        cost_model(network, config)
    assert str(raised.value) == "A budget must allow the narrowest candidates, 4.5 bits, but is 4.49."
    assert cost_model(network, dataclasses.replace(config, budget=4.5)).budget == 4.5
    assert cost_model(network, dataclasses.replace(config, budget=None)).budget is None
    # a static model has no use for a budget
    cost_model(network, dataclasses.replace(config, dynamic_epochs=0))


def test_a_cost_that_widths_do_not_change_is_refused(graph: Graph) -> None:
    with pytest.raises(InputError) as raised:
        counted_cost(graph, "cycles", PAIRS, None, target="default", energy="horowitz-45nm")
    assert str(raised.value) == (
        "A cost must depend on the candidates' widths, but that in cycles on target 'default' does not."
    )
    # Serial over activation bits: weight widths alone change nothing.
    with pytest.raises(InputError):
        counted_cost(graph, "cycles", ((2, 8), (8, 8)), None, target="acc16-wrap", energy="horowitz-45nm")
    counted_cost(graph, "cycles", ((8, 2), (8, 8)), None, target="acc16-wrap", energy="horowitz-45nm")


def test_the_cost_of_a_picture_is_what_the_engine_counts() -> None:
    shipped = dqtsim.load(Path(__file__).parents[2] / "models" / "resnet8-cifar10.onnx")
    result = next(
        dqtsim.run(
            dqtsim.plan(shipped, dqtsim.load_target("default")), torch.zeros((1, 3, 32, 32), dtype=torch.uint8).numpy()
        )
    )
    free = [pair for layer, pair in zip(shipped.layers, result.bits, strict=True) if layer not in shipped.pinned]
    config = TrainConfig(Path(), Path(), candidates=shipped.candidates, cost="bitops", budget=result.bitops / 1e6)
    chosen = torch.tensor([[shipped.candidates.index(pair) for pair in free]])
    network = prepare(networks.build("resnet8", 10), NestedConfig(config.rules, (3, 32, 32)))
    found = cost_model(network, config)
    chances = functional.one_hot(chosen, len(shipped.candidates)).float() * 100
    assert float(found.loss(chances)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("cost", ["bits", *COUNTED])
def test_a_step_lowers_the_expected_cost(cost: Cost) -> None:
    network = untrained()
    pictures = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    network.set_steps(pictures)
    controller = network.eval().new_controller()
    with torch.no_grad():
        stem = network.features(pictures)
        controller.calibrate(stem)
    config = TrainConfig(Path(), Path(), candidates=PAIRS, cost=cost, budget=None, target=SERIAL)
    found = cost_model(network, config)
    optimizer = torch.optim.Adam(controller.parameters(), 1e-3)
    before = found.loss(controller(stem))
    torch.autograd.backward(before)
    optimizer.step()
    with torch.no_grad():
        assert float(found.expected(controller(stem))) < before.item()


def test_a_run_counts_cycles_and_refuses_before_it_writes(cifar: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(
        tiny_config(cifar, tmp_path / "run"), width=0.5, float_epochs=1, dynamic_epochs=1, pictures=32,
        cost="cycles", target=SERIAL, budget=1000.0,
    )  # fmt: skip
    with pytest.raises(InputError):
        train(config)
    assert not (tmp_path / "run").exists()
    assert train(dataclasses.replace(config, budget=60000.0)).epochs()[-1]["loss_cost"]

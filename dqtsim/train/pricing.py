"""J_cost from the project's own counting: BitOPs, energy or cycles, as `dqtsim count-ops` and `dqtsim plan` count them.

This is the only file of the trainer that uses the rest of dqtsim beyond the model file; it uses counts, no arithmetic.
"""

from fractions import Fraction

import torch

from dqtsim.errors import InputError
from dqtsim.graph.model import Graph
from dqtsim.train.config import Cost, TrainConfig
from dqtsim.train.folding import fold
from dqtsim.train.loss import CostModel, bits_cost
from dqtsim.train.network import NestedNetwork
from dqtsim.train.rules import MASTER_WIDTH, Widths

UNITS: dict[Cost, str] = {"bitops": "MBitOPs", "energy": "uJ", "cycles": "cycles"}
_MASTER, _ONE = (MASTER_WIDTH, MASTER_WIDTH), (1, 1)


def cost_model(network: NestedNetwork, config: TrainConfig) -> CostModel:
    """J_cost for `config`; the counts include the pinned layer, the controller and all other nodes.

    Counts depend only on shapes and rules, so `network` need not be trained. Raises InputError for a budget below the
    cheapest widths, TargetError for an invalid target or energy table, or a target on which the network cannot run.
    """
    if config.cost == "bits":
        narrowest = min(sum(pair) / 2 for pair in config.candidates)
        # without dynamic epochs costs are not used, and a single width may be above the default budget
        if config.dynamic_epochs and config.budget is not None and config.budget < narrowest:
            raise InputError(
                f"A budget must allow the narrowest candidates, {narrowest:g} bits, but is {config.budget:g}."
            )
        return bits_cost(len(network.layer_names), config.candidates, config.budget)
    graph = fold(network, network.new_controller())
    return counted_cost(
        graph, config.cost, config.candidates, config.budget, target=config.target, energy=config.energy
    )


def counted_cost(
    graph: Graph, cost: Cost, candidates: tuple[Widths, ...], budget: float | None, *, target: str, energy: str
) -> CostModel:
    """J_cost of the dynamic model `graph`; `budget` is in MBitOPs, uJ or cycles per picture.

    One unit is the cost of the controlled layers per bit of both widths, on average from 1 bit to 8.
    """
    # Counting loads the engine, which a cost in bits does not need.
    from dqtsim.energy import load_energy
    from dqtsim.search import costs
    from dqtsim.target import load_target

    machine, unit = load_target(target), UNITS[cost]
    priced = costs(graph, machine, load_energy(energy), unit, (*candidates, _MASTER, _ONE), controller=True)
    rows = [row[:-2] for row in priced.table]
    bit = sum((row[-2] - row[-1] for row in priced.table), Fraction(0)) / (MASTER_WIDTH - 1)
    if bit <= 0 or (len(candidates) > 1 and all(min(row) == max(row) for row in rows)):
        raise InputError(
            f"A cost must depend on the candidates' widths, but that in {unit} on target '{machine.name}' does not."
        )
    table = torch.tensor([[float(entry / bit) for entry in row] for row in rows])
    if budget is None:
        return CostModel(table, None)
    cheapest = priced.fixed + sum(min(row) for row in rows)
    if budget < cheapest:
        raise InputError(
            f"A budget must allow the cheapest widths, {float(cheapest):.6g} {unit} per picture, but is {budget:g}."
        )
    return CostModel(table, float((Fraction(budget) - priced.fixed) / bit))

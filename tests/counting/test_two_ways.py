"""Counts from shapes and counts of what the law executed agree exactly, node by node, on random networks."""

import sys
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from dqtsim import spec
from dqtsim.counting.by_execution import UncountedError, count_by_execution
from dqtsim.counting.counts import NodeCount, count, kept_nesting
from dqtsim.energy import load_energy
from dqtsim.errors import AccumulatorError
from dqtsim.graph.model import Graph, Widths
from dqtsim.ops import operators
from dqtsim.ops.primitives import WEIGHT_CLIP, WEIGHT_INCREMENT, WEIGHT_OR, WEIGHT_SHIFT, Cost, Primitive
from dqtsim.planner import plan
from dqtsim.spec import Nesting, Overflow, Rounding, TapOrder
from dqtsim.target import ArrayMode, Target, load_target
from tests.builders import compiled, dense, network, picture
from tests.networks import Sample, samples
from tests.ops.test_tables import TABLES

WIDE = replace(load_target("default"), multiplier_width=31)
ENERGY = load_energy()


@st.composite
def targets(draw: st.DrawFn) -> Target:
    return replace(
        WIDE,
        accumulator_width=draw(st.sampled_from([12, 20, 32])),
        overflow=draw(st.sampled_from(Overflow)),
        tap_order=draw(st.sampled_from(TapOrder)),
        rounding=draw(st.sampled_from([None, *Rounding])),
        mode=draw(st.sampled_from(ArrayMode)),
    )


def plain(cost: Cost) -> tuple[dict[Widths, int], dict[Primitive, int]]:
    """Return the counts without entries of 0."""
    return {k: v for k, v in cost.macs.items() if v}, {k: v for k, v in cost.primitives.items() if v}


@given(samples(), targets())
def test_shapes_promise_what_the_law_executes(sample: Sample, target: Target) -> None:
    event("dynamic" if sample.graph.dynamic else "static")
    event(f"weights {sample.graph.arithmetic.weight_rule}")
    ready = plan(sample.graph, target)
    try:
        result, executed = count_by_execution(ready, sample.codes)
    except AccumulatorError:
        event("refused to overflow")
        return
    promised = count(ready, dict(zip(sample.graph.layers, result.bits, strict=True)), ENERGY)
    assert [item.name for item in promised] == [node.name for node in sample.graph.nodes] == list(executed)
    for item in promised:
        event(item.operator)
        assert plain(item.cost) == plain(executed[item.name]), item.name
    assert sum(sum(item.cost.macs.values()) for item in promised) == result.macs
    assert sum(item.cost.bitops for item in promised) == result.bitops
    assert_integers(promised)


@pytest.mark.parametrize("key", operators(), ids=lambda key: key[1])
def test_every_operator_in_every_case_of_its_table(key: tuple[str, str]) -> None:
    for case in TABLES[key]:
        graph = case.graph()
        ready = compiled(graph, **case.target)
        result, executed = count_by_execution(ready, np.asarray(case.x, np.uint8)[None])
        promised = count(ready, dict(zip(graph.layers, result.bits, strict=True)), ENERGY)
        assert [plain(item.cost) for item in promised] == [plain(cost) for cost in executed.values()], case.name


@pytest.mark.parametrize("rule", Nesting)
@pytest.mark.parametrize("n", [2, 5, 8])
def test_every_pair_of_widths(rule: Nesting, n: int) -> None:
    codes = np.zeros((1, 3), np.uint8)
    widths = range(1, n + 1)
    for other, b_w, b_a in product((Nesting.TIES_UP, Nesting.FLOOR), widths, widths):
        bits = (b_w, b_a)
        rules = {"master_width": n, "weight_rule": rule, "activation_rule": other}
        ready = compiled(dense([[1, -1, 0]], bits=bits, z_x=0, z_y=0, rules=rules))
        _, executed = count_by_execution(ready, codes)
        (promised,) = [item.cost for item in count(ready, {"y": bits}, ENERGY) if item.name == "y"]
        assert plain(promised) == plain(executed["y"]), (other, bits)


def assert_integers(counts: list[NodeCount]) -> None:
    for item in counts:
        bits = (item.traffic.weights, item.traffic.weights_kept, item.traffic.activations_in)
        every = [*item.cost.macs.values(), *item.cost.primitives.values(), item.traffic.total, item.cycles]
        every += [value for part in (*bits, item.traffic.activations_out) for value in part.values()]
        assert {type(value) for value in every} == {int}


def nest_counting(q: int, b: int, n: int, rule: Nesting, seen: Counter[Primitive]) -> int:
    """Return the operand of one weight, written out once more, and count what it takes."""
    k = n - b
    zero = 1 << (n - 1)
    if k == 0:
        return q - zero
    seen[WEIGHT_SHIFT] += 1
    code = q >> k
    if rule in (Nesting.MIDPOINT, Nesting.CENTROID):
        seen[WEIGHT_OR] += 1
        return ((q >> (k - 1)) | 1) - (zero >> (k - 1))
    if rule == Nesting.TIES_UP:
        seen[WEIGHT_INCREMENT] += 1
        code += (q >> (k - 1)) & 1
        seen[WEIGHT_CLIP] += 1
        code = min(code, (1 << b) - 1)
    return code - min(zero + (1 << (k - 1)) * (rule == Nesting.TIES_UP) >> k, (1 << b) - 1)


class Memory:
    """A machine that keeps the nested weights of every layer and nests again only what changed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.held: dict[str, tuple[int, list[int]]] = {}

    def load(self, bits: list[Widths]) -> Counter[Primitive]:
        rules, seen = self.graph.arithmetic, Counter[Primitive]()
        for layer, (width, _) in zip(self.graph.layers, bits, strict=True):
            master = [int(q) for q in self.graph.initializers[self.graph.node(layer).inputs[1]].reshape(-1)]
            if self.held.get(layer, (0, []))[0] != width:
                n, rule = rules.master_width, rules.weight_rule
                self.held[layer] = (width, [nest_counting(q, width, n, rule, seen) for q in master])
            zero = 1 << (rules.master_width - 1)
            law = [spec.operand(q, zero, width, rules.master_width, rules.weight_rule) for q in master]
            assert self.held[layer][1] == law
        return seen


@given(samples(most=3), st.data())
def test_kept_weights_pay_only_for_changes(sample: Sample, data: st.DataObject) -> None:
    n = sample.graph.arithmetic.master_width
    row = st.lists(
        st.tuples(st.integers(1, n), st.integers(1, n)),
        min_size=len(sample.graph.layers),
        max_size=len(sample.graph.layers),
    )
    inputs = data.draw(st.lists(row, min_size=1, max_size=4))
    ready, memory = plan(sample.graph, WIDE), Memory(sample.graph)
    for before, now in zip([None, *inputs], inputs, strict=False):
        assert kept_nesting(ready, before, now) == memory.load(now)
    assert not kept_nesting(ready, inputs[-1], inputs[-1])


def test_on_the_fly_is_keeping_without_a_predecessor() -> None:
    ready = compiled(network(dynamic=False))
    bits = [(2, 4)] * len(ready.graph.layers)
    counts = count(ready, dict(zip(ready.graph.layers, bits, strict=True)), ENERGY)
    weights = {WEIGHT_SHIFT, WEIGHT_INCREMENT, WEIGHT_CLIP, WEIGHT_OR}
    on_the_fly = Counter[Primitive]()
    for item in counts:
        on_the_fly.update({name: times for name, times in item.cost.primitives.items() if name in weights})
    assert on_the_fly == kept_nesting(ready, None, bits)


def test_watching_changes_nothing() -> None:
    ready = compiled(network())
    before = sys.getprofile()
    result, _ = count_by_execution(ready, picture())
    again, _ = count_by_execution(ready, picture())
    assert sys.getprofile() is before
    assert result.bits == again.bits
    assert all((result.outputs[name] == again.outputs[name]).all() for name in result.outputs)


def test_a_function_of_the_law_without_a_count_stops_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, object] = {}
    source = "def twice(q, b, n, rule):\n    return nested(q, b, n, rule)"
    exec(compile(source, spec.nest.__code__.co_filename, "exec"), {"nested": spec.nest}, namespace)
    monkeypatch.setattr(sys.modules["dqtsim.spec.nest"], "nest", namespace["twice"])
    with pytest.raises(UncountedError) as caught:
        count_by_execution(compiled(network()), picture())
    assert str(caught.value) == "the law executed 'twice', which has no count."

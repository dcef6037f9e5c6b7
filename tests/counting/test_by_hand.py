"""One small network whose every count was worked out on paper."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dqtsim.counting.by_execution import count_by_execution
from dqtsim.counting.counts import CONTROLLER, OTHER, NodeCount, count, figures, storage, totals
from dqtsim.graph import Graph, GraphBuilder
from dqtsim.ops.nested_table import LOOK_UP
from dqtsim.ops.primitives import (
    ACTIVATION_SHIFT,
    BIAS_ADD,
    COMMON,
    COMPARE,
    POOL_ADD,
    REQUANTIZE_ADD,
    REQUANTIZE_MULTIPLY,
    WEIGHT_SHIFT,
    Primitive,
)
from dqtsim.planner import plan
from dqtsim.spec import Rounding
from dqtsim.structures import build
from dqtsim.target import ArrayMode, Target, load_target
from tests.builders import add as adding
from tests.builders import conv, node, plain, pooled
from tests.builders import tables as with_tables
from tests.ops.table_nested_table import one as per_channel

from .conftest import PLAIN

BITS = {"conv": (4, 2), "depthwise": (8, 8), "logits": (7, 8)}
TARGET = replace(load_target("default"), rows=4, columns=2, mode=ArrayMode.DIGIT_SERIAL)


def tables(rows: int, channels: int) -> dict[str, Any]:
    return {
        "bias": np.zeros((rows, channels), np.int64),
        "multiplier": np.full((rows, channels), 1 << 15),
        "shift": np.full((rows, channels), 20),
    }


def drawing() -> Graph:
    """Input 2 x 4 x 4; conv to 3 x 4 x 4; depthwise and max pool to 3 x 2 x 2 each; their sum; mean; 2 logits."""
    b = GraphBuilder("drawing", weight_rule="MIDPOINT", candidates=((2, 2),))
    out: dict[str, Any] = {"zero_point": 0, "scale": 1.0, "clip": (0, 255)}
    x = b.input("input", (1, 2, 4, 4), zero_point=0, scale=1.0)
    weight = np.full((3, 2, 3, 3), 200, np.uint8)
    x = b.conv("conv", x, weight=weight, row_widths=(2, 4, 8), pads=(1, 1, 1, 1), **tables(3, 3), **out)
    weight = np.full((3, 1, 2, 2), 200, np.uint8)
    left = b.conv("depthwise", x, weight=weight, row_widths=(8,), strides=(2, 2), group=3, **tables(1, 3), **out)
    right = b.max_pool("largest", x, kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    x = b.add("sum", left, right, multiplier_a=1, multiplier_b=1, shift=1, **out)
    x = b.average_pool("mean", x, kernel=(2, 2), strides=(2, 2), multiplier=1 << 15, shift=17, **out)
    x = b.flatten("flat", x)
    weight = np.full((2, 3), 200, np.uint8)
    b.output(b.logits("logits", x, weight=weight, bias=np.zeros((1, 2), np.int64), row_widths=(8,)))
    return b.build([BITS["conv"], BITS["depthwise"], BITS["logits"]])


def counted(target: Target = TARGET) -> dict[str, NodeCount]:
    return {item.name: item for item in count(plan(drawing(), target), BITS, PLAIN)}


EXPECTED: dict[str, tuple[Mapping[tuple[int, int], int], Mapping[str, int]]] = {
    # 48 outputs of 2 * 3 * 3 taps, the padded ones too; 54 weights and 32 inputs are nested
    "conv": (
        {(4, 2): 864},
        {
            "weight_nest_shifts": 54,
            "weight_nest_ors": 54,
            "activation_nest_shifts": 32,
            "activation_nest_increments": 32,
            "activation_nest_clips": 32,
            "align_shifts": 48,
            "bias_adds": 48,
            "requantize_multiplies": 48,
            "requantize_adds": 96,
            "requantize_shifts": 48,
            "requantize_clips": 48,
        },
    ),
    # 12 outputs of 4 taps at the master width: nothing is nested, nothing aligned
    "depthwise": (
        {(8, 8): 48},
        {
            "bias_adds": 12,
            "requantize_multiplies": 12,
            "requantize_adds": 24,
            "requantize_shifts": 12,
            "requantize_clips": 12,
        },
    ),
    # along an axis of 4 the two windows see 2 and 3 positions: 3 * 5 * 5 taps, 12 outputs
    "largest": ({}, {"compares": 63}),
    "sum": (
        {},
        {
            "residual_multiplies": 24,
            "residual_adds": 12,
            "requantize_adds": 24,
            "requantize_shifts": 12,
            "requantize_clips": 12,
        },
    ),
    "mean": (
        {},
        {
            "pool_adds": 12,
            "requantize_multiplies": 3,
            "requantize_adds": 6,
            "requantize_shifts": 3,
            "requantize_clips": 3,
        },
    ),
    "flat": ({}, {}),
    # one bit below the master a MIDPOINT weight keeps exponent 0, so there is nothing to align
    "logits": ({(7, 8): 6}, {"weight_nest_shifts": 6, "weight_nest_ors": 6, "bias_adds": 2}),
}


def test_primitives() -> None:
    found = {
        name: (dict(item.cost.macs), {key.value: times for key, times in item.cost.primitives.items() if times})
        for name, item in counted().items()
        if item.operator != "Gather"
    }
    assert found == EXPECTED
    assert sum(item.cost.bitops for item in counted().values()) == 864 * 8 + 48 * 64 + 6 * 56


def test_the_law_executes_the_same() -> None:
    codes = np.arange(32, dtype=np.uint8).reshape(1, 2, 4, 4) * 7
    _, executed = count_by_execution(plan(drawing(), TARGET), codes)
    for name, (macs, primitives) in EXPECTED.items():
        assert executed[name].macs == macs
        assert {key.value: times for key, times in executed[name].primitives.items() if times} == primitives


def test_floor_adds_no_half() -> None:
    items = counted(replace(TARGET, rounding=Rounding.FLOOR))
    adds = [items[name].cost.primitives[REQUANTIZE_ADD] for name in ("conv", "sum", "mean")]
    assert adds == [48, 12, 3]


def test_a_dilated_window_at_the_edges() -> None:
    # 5 columns, taps 0, 2 and 4 columns on, 2 padded columns at each end: 2 + 2 + 3 + 2 + 2 taps for 5 outputs
    window = {"kernel_shape": (1, 3), "strides": (1, 1), "pads": (0, 2, 0, 2), "dilations": (1, 2)}
    rest = {"ceil_mode": 0, "storage_order": 0, "auto_pad": "NOTSET"}
    graph = plain((1, 1, 5), [node("MaxPool", ["x"], "y", **window, **rest)], (1, 1, 1, 5), arrays={})
    ready = plan(graph, TARGET)
    (item,) = count(ready, {}, PLAIN)
    _, executed = count_by_execution(ready, np.zeros((1, 1, 1, 5), np.uint8))
    assert item.cost.primitives == executed["y"].primitives == {COMPARE: 6}


def test_cycles() -> None:
    # 4 rows of positions, 2 columns of channels; a tap takes ceil(b_a / 2) * ceil(b_w / 2) cycles
    by_digits = {name: item.cycles for name, item in counted().items() if item.cycles}
    assert by_digits == {"conv": 4 * 2 * (18 * 2 + 5), "depthwise": 3 * (4 * 16 + 5), "logits": 3 * 16 + 5}
    serial = counted(replace(TARGET, mode=ArrayMode.ACTIVATION_SERIAL))
    assert {name: item.cycles for name, item in serial.items() if item.cycles} == {
        "conv": 4 * 2 * (18 * 2 + 5),
        "depthwise": 3 * (4 * 8 + 5),
        "logits": 3 * 8 + 5,
    }
    parallel = counted(replace(TARGET, mode=ArrayMode.PARALLEL))
    assert [parallel[name].cycles for name in BITS] == [4 * 2 * (18 + 5), 3 * (4 + 5), 3 + 5]


def test_traffic() -> None:
    items = counted()
    moved = {
        name: [
            sum(part.values())
            for part in (
                item.traffic.weights,
                item.traffic.weights_kept,
                item.traffic.activations_in,
                item.traffic.activations_out,
            )
        ]
        + [item.traffic.tables, item.traffic.total]
        for name, item in items.items()
        if item.traffic.total
    }
    # a row of conv is 3 * (32 + 16 + 6) bits, one of the logits 2 * 32
    assert moved == {
        "conv": [432, 216, 256, 384, 162, 1234],
        "depthwise": [96, 96, 384, 96, 162, 738],
        "largest": [0, 0, 384, 96, 0, 480],
        "sum": [0, 0, 192, 96, 0, 288],
        "mean": [0, 0, 96, 24, 0, 120],
        "logits": [48, 42, 24, 64, 64, 200],
    }
    assert items["conv"].traffic.weights_kept == {4: 216}
    assert items["logits"].traffic.activations_out == {32: 64}


def test_storage() -> None:
    assert storage(plan(drawing(), TARGET)) == {"weights": 72 * 8, "tables": 3 * 162 + 162 + 64}


def test_row_pairs_padding_codes_and_the_column_of_ones() -> None:
    """Two groups of one channel, 2 x 3 pixels, 2 x 2 taps, pads 1 above and left, at 4 bits by 4 with a window."""
    weight = [[[[1, 2], [3, 4]]]] * 4
    options: dict[str, Any] = {"group": 2, "pads": (1, 1, 0, 0), "padding": [3, 9], "row_pairs": ((8, 8), (4, 4))}
    graph = conv((2, 2, 3), weight, bits=(4, 4), windows=[0, *[1] * 7, 0], rules={"weight_rule": "CENTROID"}, **options)
    ready = plan(graph, TARGET)
    (item,) = (item for item in count(ready, {"y": (4, 4)}, PLAIN) if item.name == "y")
    assert storage(ready) == {"weights": 16 * 8, "tables": 2 * 4 * (32 + 16 + 6) + 2 * 8}
    assert item.traffic.tables == 4 * (32 + 16 + 6) + 2 * 8
    found = {primitive.value: times for primitive, times in item.cost.primitives.items() if times}
    assert found == {
        **{"weight_nest_shifts": 16, "weight_nest_ors": 16},
        # twelve codes and two of padding
        **{"activation_nest_shifts": 14, "activation_nest_increments": 14, "activation_nest_clips": 14},
        # two groups of six positions of four taps; four channels of six positions
        **{"column_adds": 48, "half_shifts": 24, "half_subtractions": 24, "align_shifts": 24, "bias_adds": 24},
        **{"requantize_multiplies": 24, "requantize_adds": 48, "requantize_shifts": 24, "requantize_clips": 24},
    }


def test_energy() -> None:
    items = counted()
    assert items["conv"].energy == {
        "macs": 864 * (4 * 2 + 32),
        "nesting": (54 + 54 + 3 * 32) * 8,
        "requantize": 48 * (32 + 32 + 32 * 16 + 2 * 48 + 48 + 8),
        "memory": 432 * 1 + (256 + 384) * 2 + 162 * 3,
    }
    assert items["sum"].energy == {
        "macs": 0,
        "nesting": 0,
        "requantize": 12 * (2 * 8 * 16 + 48 + 2 * 48 + 48 + 8),
        "memory": (192 + 96) * 2,
    }
    assert items["mean"].energy["requantize"] == 12 * 32 + 3 * (32 * 16 + 2 * 48 + 48 + 8)
    assert items["largest"].energy["requantize"] == 63 * 8
    assert items["flat"].energy == {"macs": 0, "nesting": 0, "requantize": 0, "memory": 0}


def test_every_energy_figure_says_where_it_is_from() -> None:
    ready = plan(drawing(), TARGET)
    found = {(f.operation, f.bits): (f.picojoule, f.read) for f in figures(ready, counted().values(), PLAIN)}
    assert found == {
        ("add", (8,)): (8, True),
        ("add", (32,)): (32, True),
        ("add", (48,)): (48, False),
        ("multiply", (4, 2)): (8, False),
        ("multiply", (7, 8)): (56, False),
        ("multiply", (8, 8)): (64, True),
        ("multiply", (8, 16)): (128, False),
        ("multiply", (32, 16)): (512, False),
    }


@pytest.mark.parametrize("primitive", COMMON)
def test_every_primitive_costs_energy(primitive: Primitive) -> None:
    ready = plan(drawing(), TARGET)
    item = counted()["flat"]
    assert figures(ready, [item], PLAIN) == []
    item.cost.primitives[primitive] = 1
    (figure,) = figures(ready, [item], PLAIN)
    assert figure.picojoule > 0


def test_an_operand_that_no_sample_changes_is_read_all_the_same() -> None:
    """An add of a constant moves both, and stores no table."""
    graph = adding(4)
    node = replace(graph.node("y"), inputs=("constant", *graph.node("y").inputs[1:]))
    arrays = {**graph.initializers, "constant": np.zeros((1, 4), np.uint8)}
    ready = plan(replace(graph, nodes=(*graph.nodes[:-1], node), initializers=arrays), TARGET)
    item = count(ready, {}, PLAIN)[-1]
    assert (item.traffic.activations_in, item.traffic.tables) == ({8: 2 * 4 * 8}, 0)
    assert storage(ready) == {"weights": 0, "tables": 0}


def test_tables() -> None:
    """3 x 6 x 5 codes of 5 bits; each look-up reads 5 bits where tables lie, and nothing else takes energy."""
    ready = plan(with_tables(n=5), TARGET)
    items = {item.name: item for item in count(ready, {"conv": (2, 5), "result": (5, 2)}, PLAIN)}
    _, executed = count_by_execution(ready, np.zeros((1, 3, 6, 5), np.uint8))
    item = items["before"]
    assert (item.operator, item.kind, item.widths, item.cycles) == ("NestedTable", OTHER, None, 0)
    assert item.cost.primitives == executed["before"].primitives == {LOOK_UP: 90}
    # the pool makes 6 x 3 x 2 codes of two tables beside each other
    assert [items[name].cost.primitives[LOOK_UP] for name in ("left", "after", "hidden")] == [90, 36, 36]
    traffic = item.traffic
    moved = [450, 450, 450, 1350]
    assert [*traffic.activations_in.values(), *traffic.activations_out.values(), traffic.tables, traffic.total] == moved
    assert item.energy == {"macs": 0, "nesting": 0, "requantize": 0, "memory": 900 * 2 + 450 * 3}
    assert figures(ready, [item], PLAIN) == []
    # five tables of 32 codes; a row of 3 channels, and one of 3 biases
    assert storage(ready)["tables"] == 5 * 32 * 5 + 3 * (32 + 16 + 6) + 3 * 32


def test_a_multiplier_per_position_is_stored_and_read_once() -> None:
    """2 channels of 2 x 3 codes, windows of 2 x 2 with a border at the top and at the left: 2 x 3 positions."""
    how: dict[str, Any] = {"kernel": (2, 2), "strides": (1, 1), "pads": (1, 1, 0, 0), "shift": 2}
    one, many = (
        plan(pooled((2, 2, 3), "average_pool", **how, multiplier=multiplier), TARGET)
        for multiplier in (1, np.ones((2, 3), np.int64))
    )
    (plain_item,), (item,) = (count(ready, {}, PLAIN) for ready in (one, many))
    # rows see 1 and 2 taps, columns 1, 2 and 2
    assert item.cost.primitives == plain_item.cost.primitives
    assert item.cost.primitives[POOL_ADD] == 2 * 3 * 5
    width = TARGET.multiplier_width
    assert (plain_item.traffic.tables, item.traffic.tables) == (0, 6 * width)
    assert (storage(one)["tables"], storage(many)["tables"]) == (0, 6 * width)


def test_a_table_per_channel_is_stored_whole_and_read_by_its_entries() -> None:
    ready = plan(per_channel((3, 1, 2), np.zeros((3, 256), np.uint8)), TARGET)
    (item,) = count(ready, {}, PLAIN)
    assert (item.cost.primitives, item.traffic.tables) == ({LOOK_UP: 6}, 6 * 8)
    assert storage(ready)["tables"] == 3 * 256 * 8


def test_the_controller_has_its_own_row() -> None:
    graph = build("resnet8", dynamic=True)
    counts = count(plan(graph, load_target("default")), dict.fromkeys(graph.layers, (2, 2)), PLAIN)
    cost, traffic, cycles, energy = totals(counts, CONTROLLER)
    # 16 planes of 32 x 32 are pooled to 4 x 4; 256 -> 64 -> 9 layers * 3 candidates, at the master width
    assert cost.macs == {(8, 8): 256 * 64 + 64 * 27}
    assert cost.primitives[POOL_ADD] == 16 * 32 * 32
    assert cost.primitives[COMPARE] == 9 * 2
    assert cost.primitives[BIAS_ADD] == 64 + 27
    assert cost.primitives[REQUANTIZE_MULTIPLY] == 256 + 64
    assert cost.primitives[WEIGHT_SHIFT] == cost.primitives[ACTIVATION_SHIFT] == 0
    assert traffic.weights == {8: (256 * 64 + 64 * 27) * 8}
    assert cycles > 0
    assert energy["macs"] > 0
    everything, static = totals(counts)[0], count(plan(build("resnet8"), load_target("default")), {}, PLAIN)
    assert not [item for item in static if item.kind == CONTROLLER]
    assert sum(everything.macs.values()) == sum(totals(static)[0].macs.values()) + 256 * 64 + 64 * 27

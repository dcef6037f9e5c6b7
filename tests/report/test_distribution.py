"""Distributions over pictures against brute force: every picture counted by itself, sums and ranks by definition."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dqtsim.counting.counts import LAYER, NodeCount, average_width, count, kept_nesting, totals
from dqtsim.counting.distribution import PERCENTILES, Distribution, Number, Spread, spread
from dqtsim.engines.registry import run
from dqtsim.ops.primitives import WEIGHT_NESTING, WEIGHT_SHIFT, Primitive
from dqtsim.report.page.study import Study
from dqtsim.report.text.distribution import distribution_block, print_distribution

from .conftest import PICTURES, network, over_pictures


def brute_counts(study: Study) -> list[list[NodeCount]]:
    """Return the counts of every picture, each run and counted by itself."""
    plan = study.own.plan
    assert study.split is not None
    bits = [result.bits for result in run(plan, study.split.images)]
    return [count(plan, dict(zip(plan.graph.layers, pairs, strict=True)), study.energy) for pairs in bits]


def check(found: Spread, values: Sequence[Number]) -> None:
    """Compare a distribution with the values of all pictures, exactly."""
    n = len(values)
    ordered = sorted(values)
    mean = Fraction(sum(values)) / n
    variance = sum((value - mean) ** 2 for value in values) / n
    assert found.sum == sum(values)
    assert found.mean == float(mean)
    assert found.deviation == math.sqrt(variance * n * n) / n
    assert (found.lowest, found.highest) == (ordered[0], ordered[-1])
    assert found.percentiles == {p: ordered[math.ceil(p * n / 100) - 1] for p in PERCENTILES}


def test_the_controller_really_decides(study: Study) -> None:
    assert len(study.own.found.order) == PICTURES
    assert len(study.own.found.settings) >= 3


def test_the_total_is_that_of_every_picture_counted_by_itself(study: Study) -> None:
    found = study.own.found.total()
    counted = [totals(counts) for counts in brute_counts(study)]
    check(found.bitops, [cost.bitops for cost, _, _, _ in counted])
    check(found.cycles, [cycles for _, _, cycles, _ in counted])
    check(found.energy, [Fraction(sum(energy.values())) for _, _, _, energy in counted])
    assert found.width is not None
    check(found.width, [average_width(bits) for bits in study.own.found.order])
    assert isinstance(found.bitops.sum, int)


def test_rows_are_layers_and_then_what_is_none(study: Study) -> None:
    rows = {row.name: row for row in study.own.found.rows()}
    assert list(rows) == ["stem", "body", "result", "controller", "adds, pools, moves"]
    counted = brute_counts(study)
    for position, layer in enumerate(study.graph.layers):
        items = [next(item for item in counts if item.name == layer) for counts in counted]
        check(rows[layer].bitops, [item.cost.bitops for item in items])
        check(rows[layer].cycles, [item.cycles for item in items])
        check(rows[layer].energy, [Fraction(sum(item.energy.values())) for item in items])
        width = rows[layer].width
        assert width is not None
        check(width, [Fraction(sum(bits[position]), 2) for bits in study.own.found.order])
    for kind in ("controller", "other"):
        row = rows["controller" if kind == "controller" else "adds, pools, moves"]
        check(row.bitops, [totals(counts, kind)[0].bitops for counts in counted])
        check(row.cycles, [totals(counts, kind)[2] for counts in counted])
        assert row.width is None
    assert sum(row.bitops.sum for row in rows.values()) == study.own.found.total().bitops.sum


def test_histograms_count_every_picture_once(study: Study) -> None:
    order = study.own.found.order
    for position, (layer, chosen) in enumerate(study.own.found.histograms().items()):
        assert layer == study.graph.layers[position]
        assert chosen == Counter(bits[position] for bits in order)
    assert study.own.found.histograms()["stem"] == {(8, 8): PICTURES}


def test_weight_nesting_on_the_fly_and_kept(study: Study) -> None:
    fly, kept = Counter[Primitive](), Counter[Primitive]()
    for counts in brute_counts(study):
        for item in counts:
            if item.kind == LAYER:
                fly.update({name: n for name, n in item.cost.primitives.items() if name in WEIGHT_NESTING})
    before = None
    for bits in study.own.found.order:
        kept.update(kept_nesting(study.own.plan, before, bits))
        before = bits
    assert study.own.found.nesting_on_the_fly() == fly
    assert study.own.found.nesting_kept() == kept
    assert 0 < kept.total() < fly.total()


def test_a_spread_by_hand() -> None:
    found = spread({1: 1, 2: 1, 10: 2})
    assert (found.sum, found.mean, found.lowest, found.highest) == (23, 5.75, 1, 10)
    assert found.deviation == math.sqrt((1 + 4 + 200) / 4 - 5.75**2)
    assert found.percentiles == {5: 1, 25: 1, 50: 2, 75: 10, 95: 10}
    assert spread({7: 3}) == Spread(21, 7.0, 0.0, 7, dict.fromkeys(PERCENTILES, 7), 7)
    big = 10**18
    assert spread({big: 1, big + 2: 1}).deviation == 1.0


def test_unequal_widths(files: Path) -> None:
    study = over_pictures(network(((2, 4), (8, 8), (3, 8))), files / "data")
    widths = study.own.found.total().width
    assert widths is not None
    check(widths, [Fraction(sum(w + a for w, a in bits), 6) for bits in study.own.found.order])
    check(study.own.found.total().bitops, [totals(counts)[0].bitops for counts in brute_counts(study)])


def test_json_has_whole_numbers_where_counts_are_whole(study: Study) -> None:
    block = json.loads(json.dumps(distribution_block(study.own.found)))
    assert (block["pictures"], block["settings"]) == (PICTURES, len(study.own.found.settings))
    total = block["total"]["bitops"]
    values = [totals(counts)[0].bitops for counts in brute_counts(study)]
    assert (total["sum"], total["min"], total["max"]) == (sum(values), min(values), max(values))
    assert all(type(total[key]) is int for key in ("sum", "min", "max"))
    assert list(total["percentiles"]) == ["5", "25", "50", "75", "95"]
    rows = {row["name"]: row for row in block["rows"]}
    assert rows["stem"]["widths"] == {"w8a8": PICTURES}
    assert rows["controller"]["widths"] is None
    assert "average_width" not in rows["controller"]
    nesting = block["weight_nesting"]
    assert nesting["kept_between_pictures"]["weight_nest_shifts"] == (study.own.found.nesting_kept()[WEIGHT_SHIFT])


def test_tables(study: Study) -> None:
    text = StringIO()
    print_distribution(Console(file=text, width=200, highlight=False), study.own.found, "tiny, bits dynamic")
    lines = text.getvalue().splitlines()
    settings = len(study.own.found.settings)
    assert lines[0] == f"tiny, bits dynamic: {PICTURES} pictures, {settings} different settings"
    stem = next(line for line in lines if line.startswith("stem"))
    assert stem.split()[1:3] == ["8.000", "0.000"]
    assert "100.0 %" in stem
    assert lines[-1].startswith("weight nesting ")


@pytest.mark.parametrize("record", range(1, 8))
def test_static_settings_do_not_vary(study: Study, record: int) -> None:
    found: Distribution = study.records[record].found
    total = found.total()
    assert (len(found.settings), total.bitops.deviation, total.energy.deviation) == (1, 0.0, 0.0)
    assert total.bitops.lowest * PICTURES == total.bitops.sum

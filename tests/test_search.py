"""The best static plan: costs from counting, exact choice against brute force, and the file that `--bits` reads."""

import pickle
import tomllib
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("scipy", reason="searching a plan needs SciPy, the optional extra 'plan'")

from dqtsim import load_target, plan, run, save, search
from dqtsim.cli import main
from dqtsim.counting.counts import average_width, count
from dqtsim.energy import load_energy
from dqtsim.errors import InputError
from dqtsim.graph.builder import GraphBuilder
from dqtsim.graph.model import Graph
from dqtsim.switched import Switched
from dqtsim.widths import apply_bits

CANDIDATES = ((2, 2), (4, 8), (8, 8))


def tiny() -> Graph:
    """Return a network of a pinned stem and three layers whose weights matter unlike much."""
    rng = np.random.default_rng(5)
    names = [f"class{i}" for i in range(10)]
    builder = GraphBuilder("tiny", weight_rule="MIDPOINT", candidates=CANDIDATES, class_names=names)
    x = builder.input("input", (1, 3, 32, 32), zero_point=128, scale=1 / 64)
    shapes = {"stem": (4, 3, 5, 5), "a.one": (6, 4, 3, 3), "b": (6, 6, 1, 1)}
    for name, shape in shapes.items():
        weight = np.clip(rng.normal(128, 40, shape), 0, 255).astype(np.uint8)
        stride = 4 if name == "stem" else 2
        x = builder.conv(
            name, x, weight=weight, bias=rng.integers(-900, 900, (1, shape[0])), multiplier=[[40000] * shape[0]],
            shift=[[23] * shape[0]], row_widths=(8,), zero_point=0, scale=0.05, clip=(0, 255), strides=(stride, stride),
            weight_scale=(0.01,), pinned=(8, 8) if name == "stem" else None,
        )  # fmt: skip
    x = builder.flatten("flat", x)
    weight = rng.integers(0, 256, (10, x.shape[1]), dtype=np.uint8)
    y = builder.logits("fc", x, weight=weight, bias=np.zeros((1, 10), int), row_widths=(8,), weight_scale=(0.002,))
    builder.output(y, classes=True)
    return builder.build()


@pytest.fixture(scope="module")
def labelled() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    compiled = plan(tiny(), load_target("default"))
    return images, np.array([result.class_index for result in run(compiled, images)], np.int64)


@pytest.mark.parametrize("unit", search.UNITS)
def test_costs_add_up_to_what_is_counted(unit: str) -> None:
    graph, target, energy = tiny(), load_target("default"), load_energy()
    priced = search.costs(graph, target, energy, unit)
    for choice in product(range(3), repeat=3):
        static, _ = apply_bits(graph, ",".join(f"w{w}a{a}" for w, a in search.rows(graph, choice)))
        compiled = plan(static, target)
        bits = dict(zip(static.layers, search.rows(graph, choice), strict=True))
        counts = count(compiled, bits, energy)
        result = next(run(compiled, np.zeros((1, 3, 32, 32), np.uint8)))
        found = {
            "bits": average_width(result.bits),
            "MBitOPs": Fraction(result.bitops, 10**6),
            "uJ": sum((Fraction(sum(item.energy.values())) for item in counts), Fraction(0)) / 10**6,
            "cycles": Fraction(sum(item.cycles for item in counts)),
        }
        assert priced.total(choice) == found[unit]


@pytest.mark.parametrize("unit", search.UNITS)
def test_the_choice_is_that_of_brute_force(unit: str) -> None:
    priced = search.costs(tiny(), load_target("default"), load_energy(), unit)
    rng = np.random.default_rng(2)
    choices = list(product(range(3), repeat=3))
    totals = sorted(priced.total(choice) for choice in choices)
    for trial in range(12):
        table = np.round(rng.normal(0, 1, (3, 3)), 3)
        # also budgets that a plan meets exactly
        amount = totals[2 * trial] if trial % 2 else (totals[2 * trial] + totals[-1]) / 2
        within = [choice for choice in choices if priced.total(choice) <= amount]
        best = min(sum(table[layer, k] for layer, k in enumerate(choice)) for choice in within)
        found = search.best_choice(table, priced, search.Budget(amount, unit))
        assert priced.total(found) <= amount
        assert round(sum(table[layer, k] for layer, k in enumerate(found)), 6) == round(best, 6)


def test_a_plan_a_hair_over_the_budget_is_not_taken() -> None:
    priced = search.Costs(Fraction(1), ((Fraction(1), Fraction(2), Fraction(3)),) * 3)
    table = np.array([[2.0, 1.0, 0.0]] * 3)
    hair = Fraction(1, 10**9)
    assert priced.total(search.best_choice(table, priced, search.Budget(Fraction(8), "cycles"))) == 8
    assert priced.total(search.best_choice(table, priced, search.Budget(Fraction(8) - hair, "cycles"))) == 7


def test_refining_finds_what_sums_do_not_see() -> None:
    priced = search.Costs(Fraction(0), tuple((Fraction(2), Fraction(4), Fraction(8)) for _ in range(4)))
    budget = search.Budget(Fraction(18), "bits")
    # by the sums, the last layer is the one to keep wide; in truth layers want to be alike
    table = np.array([[1.0, 0.5, 0.0]] * 3 + [[9.0, 5.0, 0.0]])
    start = search.best_choice(table, priced, budget)
    measured: list[tuple[int, ...]] = []

    def measure(choice: Sequence[int]) -> float:
        measured.append(tuple(choice))
        assert priced.total(choice) <= budget.amount
        return 4.0 - min(choice) - 0.1 * sum(choice)

    # what is alike everywhere is always compared: here it is better than what the sums say
    assert search.refined(start, table, priced, budget, measure, 0) == [1, 1, 1, 1]
    assert measured == [tuple(start), (0, 0, 0, 0), (1, 1, 1, 1)]
    measured.clear()
    everywhere = search.refined(start, table, priced, budget, measure, 100)
    reachable = [c for c in product(range(3), repeat=4) if priced.total(c) <= budget.amount]
    assert measure(everywhere) == min(measure(c) for c in reachable)
    assert len(set(measured)) > 4
    for tries in range(1, 12):
        measured.clear()
        assert measure(search.refined(start, table, priced, budget, measure, tries)) <= measure(start)
        # no plan is measured twice, and no more than were allowed, but for the two that are alike everywhere
        assert len(measured) - 2 <= max(tries, 2) + 1
        assert len(set(measured[:-2])) == len(measured) - 2


def test_a_sensitivity_is_what_one_layer_alone_costs(labelled: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = labelled
    graph, target = tiny(), load_target("default")
    table = search.sensitivities(Switched(graph, target, CANDIDATES), images, labels)
    assert table.shape == (3, 3)
    assert table[:, 2].tolist() == [0.0, 0.0, 0.0]
    losses = []
    for spec in ("w8a8,w8a8,w2a2,w8a8", "w8a8,w8a8,w8a8,w4a8", "8"):
        logits = [result.logits for result in run(plan(apply_bits(graph, spec)[0], target), images)]
        real = np.array([row.astype(np.float64) * 0.05 * 0.002 for row in logits if row is not None])
        losses.append(np.mean(np.log(np.exp(real).sum(1)) - real[np.arange(len(real)), labels]))
    assert round(float(table[1, 0]), 9) == round(float(losses[0] - losses[2]), 9)
    assert round(float(table[2, 1]), 9) == round(float(losses[1] - losses[2]), 9)
    assert abs(table).max() > 0


def test_the_command_writes_a_plan_that_bits_reads(labelled: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    images, labels = labelled
    data = tmp_path / "cifar-10-batches-py"
    data.mkdir()
    names = [f"class{i}".encode() for i in range(10)]
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        content = {b"data": images[:4].reshape(4, -1), b"labels": labels[:4].tolist()}
        (data / name).write_bytes(pickle.dumps(content, protocol=2))
    (data / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    model, output = tmp_path / "tiny.onnx", tmp_path / "plan.toml"
    save(tiny(), model)
    options = ["plan", str(model), "--data", str(data), "-o", str(output), "--pictures", "8"]
    refined = CliRunner().invoke(main, [*options, "--budget", "6.0bits", "--refine", "5"])
    assert refined.exit_code == 0, refined.output
    assert (
        average_width(next(run(plan(apply_bits(tiny(), str(output))[0], load_target("default")), images[:1])).bits) <= 6
    )
    result = CliRunner().invoke(main, [*options, "--budget", "6.0bits"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{output}: best static plan for tiny.onnx within 6 bits per picture: ")
    assert set(tomllib.loads(output.read_text())["bits"]) == {"a.one", "b", "fc"}
    static, _ = apply_bits(tiny(), str(output))
    compiled = plan(static, load_target("default"))
    assert average_width(next(run(compiled, images[:1])).bits) <= 6
    refused = CliRunner().invoke(main, [*options, "--budget", "1.0bits"])
    assert (refused.exit_code, refused.output) == (
        2,
        "error: a budget must allow the cheapest plan, 3.5 bits per picture; found 1 bits.\n",
    )


def test_budgets_are_read_exactly() -> None:
    assert search.Budget.read("4.1bits") == search.Budget(Fraction(41, 10), "bits")
    assert search.Budget.read("120 MBitOPs").unit == "MBitOPs"
    for text in ("4", "bits", "-1bits", "4 bit", "1e3cycles"):
        with pytest.raises(InputError) as raised:
            search.Budget.read(text)
        assert str(raised.value) == (
            f"a budget is a number and one of bits, MBitOPs, uJ, cycles, such as 4.0bits; found '{text}'."
        )

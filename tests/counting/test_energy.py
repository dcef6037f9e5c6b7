"""Energy tables: what is read, what is interpolated, and what a wrong table is told."""

from importlib import resources
from pathlib import Path

import pytest

from dqtsim.energy import load_energy
from dqtsim.errors import TargetError

from .conftest import PLAIN

TEXT = (resources.files("dqtsim") / "energy" / "horowitz-45nm.toml").read_text(encoding="utf-8")
RULES = (
    "has name and source, [add] and [multiply] with two widths each, [memory] with access_bits and one entry a memory, "
    "and [placement] of weights, activations and tables in memories; energies are pJ from 0 up"
)


def test_the_figures_of_horowitz() -> None:
    table = load_energy()
    assert [table.addition(bits) for bits in (8, 32)] == [0.03, 0.1]
    # the parabola is evaluated, so the last bits of a float may differ
    assert [round(table.multiplication(bits, bits), 12) for bits in (8, 32)] == [0.2, 3.1]
    per_access = {where: round(64 * pj, 9) for where, pj in table.memory_bit.items()}
    assert per_access == {"sram_8KB": 10, "sram_32KB": 20, "sram_1MB": 100, "dram": 1300}
    assert table.placement == {"weights": "sram_1MB", "activations": "sram_32KB", "tables": "sram_8KB"}
    assert round(table.traffic(64, "weights"), 9) == 100
    assert "ISSCC 2014" in table.source


def test_interpolation() -> None:
    table = load_energy()
    assert round(table.addition(20), 12) == 0.065  # half-way between 8 and 32
    # a * 16 + c * 4 with a * 64 + c * 8 = 0.2 and a * 1024 + c * 32 = 3.1
    a = (3.1 / 32 - 0.2 / 8) / 24
    c = 0.2 / 8 - 8 * a
    assert round(table.multiplication(4, 4), 12) == round(16 * a + 4 * c, 12)
    assert table.multiplication(2, 8) == table.multiplication(4, 4) == table.multiplication(8, 2)
    widths = range(1, 33)
    products = [table.multiplication(bits, bits) for bits in widths]
    assert products == sorted(products)
    assert products[0] > 0
    assert [PLAIN.multiplication(a, b) for a in (1, 3, 8) for b in (2, 32)] == [2, 32, 6, 96, 16, 256]


def test_what_is_read() -> None:
    table = load_energy()
    assert [bits for bits in range(1, 65) if table.reads_addition(bits)] == [8, 32]
    pairs = [(a, b) for a in range(1, 33) for b in range(1, 33) if table.reads_multiplication(a, b)]
    assert pairs == [(8, 8), (32, 32)]


def load(tmp_path: Path, text: str) -> str:
    path = tmp_path / "table.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TargetError) as caught:
        load_energy(path)
    return str(caught.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ('name = "horowitz-45nm"\n', "", "'name' is missing"),
        ('name = "horowitz-45nm"', "name = 3", "'name' is 3"),
        ("[add]", "[plus]", "'add' is missing"),
        ("8 = 0.03\n", "", "'add' has 32"),
        ("8 = 0.03", "8 = 0.03\n16 = 0.05", "'add' has 8, 16, 32"),
        ("8 = 0.03", "wide = 0.03", "'add' has wide, 32"),
        ("8 = 0.03", "0 = 0.03", "'add' has 0, 32"),
        ("8 = 0.2", "8 = -0.2", "'multiply.8' is -0.2"),
        ("8 = 0.2", "8 = nan", "'multiply.8' is nan"),
        ("8 = 0.2", "8 = inf", "'multiply.8' is inf"),
        ("8 = 0.2", "8 = true", "'multiply.8' is True"),
        ("8 = 0.2", "8 = '0.2'", "'multiply.8' is '0.2'"),
        ("access_bits = 64\n", "", "'access_bits' is missing"),
        ("access_bits = 64", "access_bits = 0", "'memory.access_bits' is 0"),
        ("dram = 1300.0", "dram = []", "'memory.dram' is []"),
        ('weights = "sram_1MB"', 'weights = "tape"', "'placement.weights' is 'tape'"),
        ('tables = "sram_8KB"', "", "'tables' is missing"),
    ],
)
def test_a_wrong_table(tmp_path: Path, old: str, new: str, found: str) -> None:
    assert TEXT.count(old) == 1 or old == "8 = 0.03\n"
    assert load(tmp_path, TEXT.replace(old, new)) == f"the energy table 'FILE' {RULES}; {found}."


def test_other_wrong_files(tmp_path: Path) -> None:
    assert load(tmp_path, "add = 1\nname = 'x'\nsource = 'x'\nmemory = 3") == (
        f"the energy table 'FILE' {RULES}; 'memory' is 3."
    )
    assert load(tmp_path, "= 1") == f"the energy table 'FILE' {RULES}; Invalid statement (at line 1, column 1)."
    for name, sentence in (
        ("nowhere.toml", "the energy table 'nowhere.toml' cannot be read: no such file or directory."),
        ("horowitz", "an energy table is horowitz-45nm or a .toml file; found 'horowitz'."),
    ):
        with pytest.raises(TargetError) as caught:
            load_energy(name)
        assert str(caught.value) == sentence


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TEXT.replace("8 = 0.03", "4 = 0.03").replace("horowitz-45nm", "own"), encoding="utf-8")
    table = load_energy(path)
    assert table.name == "own"
    assert table.reads_addition(4)
    assert not table.reads_addition(8)

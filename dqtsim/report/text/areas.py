"""Areas of circuits as tables and as JSON."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from ...rtl.area import CIRCUITS, MAPPINGS, MODES, SIDE, Areas, base_of


def print_areas(console: Console, areas: Areas) -> None:
    """Print the circuits by mapping, then the tiles with nesting in two places, then what options add to them."""
    console.print(_circuits(areas))
    console.print()
    console.print(_tiles(areas))
    console.print()
    console.print(_options(areas))
    console.print()
    for name in areas.cells:
        console.print(f"{name}: {MAPPINGS[name].counted}")
    console.print(
        f"estimates: Yosys {areas.yosys}, before placement, no clock asked for; ratios as least-most across mappings"
    )


def area_block(areas: Areas) -> dict[str, Any]:
    """Return all counts, for JSON."""
    circuits = {
        name: {
            "module": module,
            "parameters": settings,
            "compared_with": base_of(name) or None,
            "ratio": list(areas.ratios(name)) if base_of(name) else None,
            "area": {mapping: areas.area(mapping, name) for mapping in areas.cells},
            "cells": {mapping: areas.cells[mapping][name] for mapping in areas.cells},
        }
        for name, (module, settings) in CIRCUITS.items()
    }
    tiles = {
        name: {mapping: asdict(areas.tile(mapping, mode)) for mapping in areas.cells} for mode, name in MODES.items()
    }
    added = {name: {mapping: areas.added(mapping, mode) for mapping in areas.cells} for mode, name in MODES.items()}
    counted = {name: MAPPINGS[name].counted for name in areas.cells}
    return {
        **{"estimate": True, "yosys": areas.yosys, "counted": counted, "circuits": circuits},
        **{"tiles": tiles, "added": added},
    }


def _circuits(areas: Areas) -> Table:
    table = _table("circuit, bits of its accumulator", *areas.cells, "times the MAC")
    for name in CIRCUITS:
        ratio = "" if base_of(name) in ("", name) else _range(*areas.ratios(name), digits=2)
        table.add_row(name, *(f"{areas.area(mapping, name):,.0f}" for mapping in areas.cells), ratio)
    return table


def _tiles(areas: Areas) -> Table:
    table = _table(f"tile of {SIDE} x {SIDE}", "elements", "edges", "column ends", "were nesting inside")
    for mode, name in MODES.items():
        tiles = [areas.tile(mapping, mode) for mapping in areas.cells]
        rows = [
            [100 * part / tile.nesting_at_edges for part in (tile.elements, tile.edges, tile.column_ends)]
            + [100 * (tile.nesting_inside / tile.nesting_at_edges - 1)]
            for tile in tiles
        ]
        cells = [_range(min(column), max(column), digits=1) for column in zip(*rows, strict=True)]
        table.add_row(name, *(f"{cell} %" for cell in cells[:3]), f"+{cells[3]} %")
    return table


def _options(areas: Areas) -> Table:
    """Return by how much each option makes the tile larger."""
    found = {name: [areas.added(mapping, mode) for mapping in areas.cells] for mode, name in MODES.items()}
    options = next(iter(found.values()))[0]
    table = _table(f"added to a tile of {SIDE} x {SIDE}", *options)
    for name, rows in found.items():
        columns = [[round(100 * row[option], 1) + 0.0 for row in rows] for option in options]  # no minus before 0
        table.add_row(name, *(f"{min(column):+.1f} to {max(column):+.1f} %" for column in columns))
    return table


def _range(least: float, most: float, digits: int) -> str:
    """Return 'least-most', or one number if both print the same."""
    first, last = f"{least:.{digits}f}", f"{most:.{digits}f}"
    return first if first == last else f"{first}-{last}"


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left")
    return table

"""Where the pinned things are inside dqtsim: the only file here that imports its modules, to be edited when they move.

Nothing that comes out of these functions may depend on the computer.
"""

from itertools import product
from pathlib import Path
from typing import Any

import click

from dqtsim.engines.native.emit import libraries as emission
from dqtsim.engines.native.isa import ISAS
from dqtsim.graph import Arithmetic, load, to_onnx
from dqtsim.graph.file.bodies import full_name
from dqtsim.graph.file.bodies import functions as bodies_of
from dqtsim.graph.schema import DOMAIN, FORMATS, SCHEMAS, Form, Schema
from dqtsim.spec.rules import Nesting, Rounding

ROUNDINGS = tuple(rounding.value for rounding in Rounding)
MAIN = emission.MAIN


def command_line() -> click.Group:
    """Return the command `dqtsim`."""
    from dqtsim.cli import main

    return main


def target_names() -> list[str]:
    """Return the names of the built-in targets."""
    from dqtsim.target import target_names as names

    return names()


def tensor_hash(array: Any) -> str:
    """Return what a manifest of golden vectors says of a tensor."""
    from dqtsim.golden import hash_tensor

    return hash_tensor(array)


def instruction_sets() -> list[str]:
    """Return the names of the instruction sets, the best first."""
    return [isa.name for isa in ISAS]


def libraries(isa: str, *, counts: bool) -> tuple[str, ...]:
    """Return the libraries of an instruction set on a CPU that counts bits in vectors, or does not."""
    return emission.libraries(_products(isa, counts=counts))


def emit_text(isa: str, rounding: str, library: str, *, counts: bool = False, platform: str = "linux") -> str:
    """Return the LLVM IR of a library for a CPU that counts bits in vectors, or does not, on an operating system."""
    from llvmlite import ir

    module, products = ir.Module("dqtsim"), _products(isa, counts=counts)
    emission.emit_library(module, _isa(isa), Rounding(rounding), library, products, yields=platform != "win32")
    return str(module)


def _isa(name: str) -> Any:
    return next(isa for isa in ISAS if isa.name == name)


def _products(isa: str, *, counts: bool) -> list[str]:
    """Return the dot products with names on a CPU that has nothing, or nothing but the counting of bits, beside."""
    return [name for name, product in _isa(isa).dots.items() if counts or not product.needs]


def program_text(model: Path, bits: str, isa: str) -> str:
    """Return the native program of a model as it prints; no layer here is of one bit, which would ask the CPU."""
    from dqtsim.engines.native.lower.lower import lower
    from dqtsim.planner import plan
    from dqtsim.target import load_target
    from dqtsim.widths import apply_bits

    graph, _ = apply_bits(load(model), bits)
    return str(lower(plan(graph, load_target("default")), _isa(isa)))


def written(model: Path) -> bytes:
    """Return the bytes that dqtsim writes for a model that it read."""
    data: bytes = to_onnx(load(model)).SerializeToString(deterministic=True)
    return data


def forms(schema: Schema) -> set[Form]:
    """Return the plain form of an operator, the forms with one part, and the form with all."""
    names = [part.name for part in schema.parts]
    return {(), *((name,) for name in names), tuple(names)}


def bodies() -> dict[str, dict[str, bytes]]:
    """Return the function bodies that a file carries, by name, for every rule and a master width other than 8.

    Of format 1; of later formats those of every operator in several forms, under one rule.
    """
    nestings = (Nesting.TIES_UP, Nesting.FLOOR)
    rules = [Arithmetic(weight_rule=w, activation_rule=a) for w, a in product(Nesting, nestings)]
    rules += [Arithmetic(rounding=rounding) for rounding in Rounding]
    rules += [Arithmetic(master_width=5, weight_rule=Nesting.MIDPOINT)]
    found = {
        f"n{r.master_width} weights {r.weight_rule} activations {r.activation_rule} {r.rounding}": bodies_of(r)
        for r in rules
        if r.since == 1
    }
    for version in FORMATS[1:]:
        used = [
            (schema.operator, form)
            for schema in SCHEMAS.values()
            for form in forms(schema)
            if schema.domain == DOMAIN and schema.since_of(form) <= version
        ]
        found[f"format {version}"] = bodies_of(Arithmetic(), version, used)
        for rule in (rule for rule in Nesting if Arithmetic(weight_rule=rule).since == version):
            found[f"format {version} weights {rule}"] = bodies_of(Arithmetic(weight_rule=rule), version, used)
    return {
        key: {full_name(body): body.SerializeToString(deterministic=True) for body in carried}
        for key, carried in found.items()
    }

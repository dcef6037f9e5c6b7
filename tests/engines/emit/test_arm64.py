"""Other architectures: LLVM compiles the portable kernels for them, and a set of theirs brings what is its own."""

import re
from dataclasses import replace
from typing import Any

import pytest
from llvmlite import binding, ir

from dqtsim.engines.native.emit.libraries import emit_library, libraries
from dqtsim.engines.native.ir import I8, I32, Emitter, constant, vector
from dqtsim.engines.native.isa import ISAS, Isa, Product
from dqtsim.engines.native.isa.portable import PORTABLE
from dqtsim.spec import Rounding

TRIPLE = "aarch64-unknown-linux-gnu"
# what LLVM calls the instructions of an architecture
OWN = re.compile(r"llvm\.(x86|aarch64|arm)\.")
PREFIX = {(): set[str](), ("x86_64",): {"x86"}, ("aarch64", "arm64"): {"aarch64"}}


def _usdot(e: Emitter, accumulators: Any, pixels: Any, weights: Any) -> Any:
    codes, operands = (e.builder.bitcast(lanes, vector(I8, 16)) for lanes in (pixels, weights))
    return e.call("llvm.aarch64.neon.usdot.v4i32.v16i8", accumulators.type, accumulators, codes, operands)


def _hint(e: Emitter) -> None:
    e.call("llvm.aarch64.hint", ir.VoidType(), constant(I32, 1))


# an instruction set that dqtsim does not have
ARM64 = replace(
    PORTABLE,
    name="arm64",
    architecture=("aarch64", "arm64"),
    needs=(("neon", "i8mm"),),
    dot=Product(_usdot),
    shapes={2: (6, 1), 1: (6, 1)},
    pause=_hint,
)


def emitted(isa: Isa, rounding: Rounding) -> ir.Module:
    module = ir.Module()
    for library in libraries(isa.dots):
        emit_library(module, isa, rounding, library, isa.dots, yields=True)
    return module


def compiled(module: Any, features: str) -> tuple[bytes, str]:
    """Return the object and the assembly for ARM."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(TRIPLE).create_target_machine("generic", features, opt=3)
    module.triple, module.data_layout = TRIPLE, str(machine.target_data)
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(parsed, builder)
    return machine.emit_object(parsed), machine.emit_assembly(parsed)


@pytest.mark.parametrize("rounding", Rounding)
def test_portable_is_compiled_for_another_architecture(rounding: Rounding) -> None:
    module = emitted(PORTABLE, rounding)
    # what LLVM cannot compile there would end this process
    assert not OWN.findall(str(module))
    code, _ = compiled(module, "")
    # an ELF file for machine 183, AArch64
    assert code[:4] == b"\x7fELF"
    assert int.from_bytes(code[18:20], "little") == 183


@pytest.mark.parametrize("isa", [*ISAS, ARM64], ids=lambda isa: isa.name)
def test_only_instructions_of_its_own_architecture_are_emitted(isa: Isa) -> None:
    assert set(OWN.findall(str(emitted(isa, Rounding.TIES_UP)))) == PREFIX[isa.architecture]


def test_a_set_of_arm_is_compiled_to_its_own_instructions() -> None:
    code, assembly = compiled(emitted(ARM64, Rounding.TIES_UP), "+neon,+i8mm")
    assert int.from_bytes(code[18:20], "little") == 183
    found = [line.split() for line in assembly.splitlines()]
    # a step of the widest tile has one for each of its sums
    assert sum(words[:1] == ["usdot"] for words in found) >= 12
    assert ["yield"] in found or ["hint", "#1"] in found

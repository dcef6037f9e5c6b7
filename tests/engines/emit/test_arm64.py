"""The portable kernel is made of instructions that every CPU has: LLVM compiles all of it for ARM too."""

import pytest
from dqtsim.engines.native.emit.functions import emit_library, libraries
from llvmlite import binding, ir

from dqtsim.engines.native.isa import ISAS, Isa
from dqtsim.spec import Rounding

TRIPLE = "aarch64-unknown-linux-gnu"
PORTABLE = next(isa for isa in ISAS if not isa.needs)


def emitted(isa: Isa, rounding: Rounding) -> ir.Module:
    module = ir.Module()
    for library in libraries(isa):
        emit_library(module, isa, rounding, library)
    return module


@pytest.mark.parametrize("rounding", Rounding)
def test_portable_is_compiled_for_another_architecture(rounding: Rounding) -> None:
    module = emitted(PORTABLE, rounding)
    assert "llvm.x86" not in str(module)
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(TRIPLE).create_target_machine("generic", "", opt=3)
    module.triple, module.data_layout = TRIPLE, str(machine.target_data)
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(parsed, builder)
    code = machine.emit_object(parsed)
    # an ELF file for machine 183, AArch64
    assert code[:4] == b"\x7fELF"
    assert int.from_bytes(code[18:20], "little") == 183


def test_the_others_are_not() -> None:
    """What looks for names of x86 finds them."""
    for isa in ISAS:
        assert ("llvm.x86" in str(emitted(isa, Rounding.TIES_UP))) == bool(isa.needs)

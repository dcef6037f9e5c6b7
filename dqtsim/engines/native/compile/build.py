"""From emitted IR to functions in memory: which instruction set, the compiler, the loader.

llvmlite is imported where it is used, so that asking for this module costs nothing.
"""

import ctypes
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ....errors import InputError

if TYPE_CHECKING:
    from ..isa.base import Isa

VARIABLE = "DQTSIM_KERNEL"
# what the variable may say beside the names of instruction sets: the first of these that the CPU has
_FAMILIES = {"vnni": ("vnni512", "vnni256")}
# AVX-512 VNNI with VL has the same vpdpbusd of 256 bits that AVX-VNNI has
_OTHER_NEEDS = {"vnni256": ("avx2", "avx512vl", "avx512vnni")}
# what a CPU that is no more than an AVX2 one does not have, by the first letters of LLVM's names
_ABOVE_AVX2 = ("amx", "avx10", "avx512", "avxvnni")

# Linux on x86-64: the number of the system call, what it is asked, and for which state
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18

# an engine that is closed frees its code, which other threads may be running until the process ends; LLVM may read the
# bytes of an object for as long
_KEPT: list[tuple[Any, bytes]] = []


@dataclass(frozen=True)
class Choice:
    """The instruction set that is used, and why: the end of a sentence that begins with 'chosen because'."""

    isa: "Isa"
    why: str


def choose(environment: Mapping[str, str] | None = None, features: Mapping[str, bool] | None = None) -> Choice:
    """Return the instruction set that DQTSIM_KERNEL asks for, or without it the best that the CPU has.

    Without arguments: this process's environment and this CPU's features, by LLVM's names.
    """
    from ..isa.base import ISAS

    asked = (os.environ if environment is None else environment).get(VARIABLE) or "auto"
    features = host()[1] if features is None else features
    if asked == "auto":
        # the last one needs nothing
        return Choice(next(isa for isa in ISAS if not missing(isa, features)), "it is the best that this CPU has")
    names = _FAMILIES.get(asked, (asked,))
    wanted = [isa for isa in ISAS if isa.name in names]
    if not wanted:
        known = ", ".join(["auto", *_FAMILIES, *(isa.name for isa in ISAS)])
        raise InputError(f"{VARIABLE} is one of {known}; found '{asked}' in the environment.")
    for isa in wanted:
        if not missing(isa, features):
            return Choice(isa, f"{VARIABLE} is '{asked}'")
    lacks = " and ".join(f"{', '.join(missing(isa, features))} for {isa.name}" for isa in wanted)
    raise InputError(f"{VARIABLE} names a kernel that the CPU can run; found '{asked}', but this CPU lacks {lacks}.")


def missing(isa: "Isa", features: Mapping[str, bool]) -> list[str]:
    """Return the features that a CPU with these `features` lacks for an instruction set."""
    other = _OTHER_NEEDS.get(isa.name)
    if other and all(features.get(name) for name in other):
        return []
    return [name for name in isa.needs if not features.get(name)]


@cache
def host() -> tuple[str, Mapping[str, bool]]:
    """Return this CPU's name and features as LLVM calls them."""
    from llvmlite import binding

    try:
        name, features = binding.get_host_cpu_name(), dict(binding.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot ask this kind of CPU
        return "generic", {}
    if features.get("amx-tile") and not matrices_permitted():
        features["amx-tile"] = False
    return name, features


def matrices_permitted() -> bool:
    """Return whether the system lets this process use the matrix registers of AMX, which have to be asked for."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0  # type: ignore[no-any-return]
    except (OSError, AttributeError):
        return False


def processor(isa: "Isa") -> tuple[str, str]:
    """Return for which CPU and features LLVM compiles an instruction set on this computer.

    `portable` is the same on all computers of an architecture; `avx2` uses nothing that came after it, because LLVM
    would make other instructions of the ones that the kernel is written in.
    """
    if not isa.needs:
        return "generic", ""
    name, features = host()
    newer = _ABOVE_AVX2 if isa.name == "avx2" else ()
    signs = {feature: has and not feature.startswith(newer) for feature, has in features.items()}
    return name, ",".join(f"{'+' if has else '-'}{feature}" for feature, has in sorted(signs.items()))


def compile_module(module: Any, isa: "Isa") -> bytes:
    """Return the object code of a module of llvmlite.ir; sets the module's triple, layout and functions' attributes."""
    parsed, machine = optimized(module, isa)
    with machine, parsed:
        code: bytes = machine.emit_object(parsed)
    return code


def optimized(module: Any, isa: "Isa") -> tuple[Any, Any]:
    """Return the module after LLVM's passes, and the machine that they were for."""
    from llvmlite import binding

    machine = _target_machine(*processor(isa))
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    if isa.lanes == 16:
        for function in module.functions:
            if not function.is_declaration:
                # LLVM halves vectors of 512 bits where it takes a CPU to be faster so; llvmlite's set of attributes
                # prints any string, but its own `add` knows only those without a value
                set.add(function.attributes, '"prefer-vector-width"="512"')
                set.add(function.attributes, '"min-legal-vector-width"="512"')
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(parsed, builder)
    return parsed, machine


def load_object(code: bytes, names: Iterable[str]) -> dict[str, int]:
    """Return the addresses of functions of an object, which stays in memory until the process ends; all must be there.

    The object may use the functions of this process, such as those of the C library.
    """
    from llvmlite import binding

    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _target_machine("generic", ""))
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _KEPT.append((engine, code))
    addresses = {name: engine.get_function_address(name) for name in names}
    if not all(addresses.values()):
        raise LookupError(f"the object has no {', '.join(name for name, at in addresses.items() if not at)}")
    return addresses


def _target_machine(cpu: str, features: str) -> Any:
    """Return a code generator whose objects can be loaded anywhere in memory, far from what they call."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_triple(binding.get_process_triple())
    return target.create_target_machine(cpu, features, opt=3, codemodel="jitdefault", jit=True)

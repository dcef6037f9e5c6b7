"""From emitted IR to functions in memory: the choice of an instruction set, the compiler, the loader.

llvmlite is imported where it is used, so that importing this module is fast.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ....errors import InputError

if TYPE_CHECKING:
    from ..isa.base import Isa

VARIABLE = "DQTSIM_KERNEL"
# an engine that is closed frees its code, which other threads may be running until the process ends; LLVM may read the
# bytes of an object for as long
_KEPT: list[tuple[Any, bytes]] = []


@dataclass(frozen=True)
class Choice:
    """The instruction set that is used, and why: the end of a sentence that begins with 'chosen because'."""

    isa: "Isa"
    why: str


def choose(environment: Mapping[str, str] | None = None, features: Mapping[str, bool] | None = None) -> Choice:
    """Return the instruction set that DQTSIM_KERNEL names, or without it the best one that the CPU has.

    Without arguments: this process's environment and this CPU's features, by LLVM's names.
    """
    from ..isa import ISAS

    asked = (os.environ if environment is None else environment).get(VARIABLE) or "auto"
    if asked == "auto":
        # the last one needs nothing
        return Choice(next(isa for isa in ISAS if not missing(isa, features)), "it is the best that this CPU has")
    wanted = [isa for isa in ISAS if asked in (isa.name, *isa.families)]
    if not wanted:
        families = dict.fromkeys(family for isa in ISAS for family in isa.families)
        known = ", ".join(["auto", *families, *(isa.name for isa in ISAS)])
        raise InputError(f"{VARIABLE} is one of {known}; found '{asked}' in the environment.")
    for isa in wanted:
        if not missing(isa, features):
            return Choice(isa, f"{VARIABLE} is '{asked}'")
    lacks = " and ".join(f"{', '.join(missing(isa, features))} for {isa.name}" for isa in wanted)
    raise InputError(f"{VARIABLE} names a kernel that the CPU can run; found '{asked}', but this CPU lacks {lacks}.")


def missing(isa: "Isa", features: Mapping[str, bool] | None = None) -> list[str]:
    """Return what a CPU with these `features` lacks for an instruction set: features, or the whole architecture.

    features: of a CPU of the instruction set's architecture. Without them: this computer's, which may be another.
    """
    if features is None:
        features = host()[1]
        foreign = [] if not isa.architecture or architecture() in isa.architecture else [*isa.architecture[:1]]
    else:
        foreign = []
    lacks = [[name for name in names if not features.get(name)] for names in isa.needs]
    return (lacks[0] if lacks and all(lacks) else []) or foreign


def products(isa: "Isa") -> tuple[str, ...]:
    """Return the dot products with names of an instruction set that this CPU has."""
    features = host()[1]
    return tuple(name for name, product in isa.dots.items() if all(features.get(need) for need in product.needs))


def architecture() -> str:
    """Return LLVM's name for the architecture of this process."""
    from llvmlite import binding

    return str(binding.get_process_triple()).partition("-")[0]


@cache
def host() -> tuple[str, Mapping[str, bool]]:
    """Return this CPU's name and features by LLVM's names, without features that the system does not permit."""
    from llvmlite import binding

    from ..isa import ISAS

    try:
        name, features = binding.get_host_cpu_name(), dict(binding.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot ask this kind of CPU
        return "generic", {}
    for feature, permitted in {feature: ask for isa in ISAS for feature, ask in isa.asks.items()}.items():
        if features.get(feature):
            features[feature] = permitted()
    return name, features


def processor(isa: "Isa") -> tuple[str, str]:
    """Return the CPU and the features for which LLVM compiles an instruction set on this computer.

    An instruction set without needs is the same on all computers of an architecture.
    """
    if not isa.needs:
        return "generic", ""
    name, features = host()
    signs = {feature: has and not feature.startswith(isa.hides) for feature, has in features.items()}
    return name, ",".join(f"{'+' if has else '-'}{feature}" for feature, has in sorted(signs.items()))


def compile_module(module: Any, isa: "Isa") -> bytes:
    """Return the object code of a module of llvmlite.ir; sets the module's triple, layout and functions' attributes."""
    parsed, machine = optimized(module, isa)
    with machine, parsed:
        code: bytes = machine.emit_object(parsed)
    return code


def optimized(module: Any, isa: "Isa") -> tuple[Any, Any]:
    """Return the module after LLVM's passes, and the target machine of these passes."""
    from llvmlite import binding

    machine = _target_machine(*processor(isa))
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    for function in module.functions:
        if not function.is_declaration:
            for name, value in isa.attributes.items():
                # llvmlite's set of attributes prints any string, but its own `add` knows only those without a value
                set.add(function.attributes, f'"{name}"="{value}"')
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

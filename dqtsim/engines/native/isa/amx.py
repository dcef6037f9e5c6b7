"""AMX: tdpbusd multiplies matrices of bytes, 16 pixels by 16 channels by 64 taps; all but convolutions as VNNI512."""

import ctypes
import sys
from dataclasses import replace
from typing import Any

from llvmlite import ir

from ..ir import I8, I32, I64, Emitter, constant
from .base import Matrices
from .peak import Peak
from .vnni import AVX512, VNNI512

# rows of a matrix, bytes of a row
ROWS, DEPTH = 16, 64
SUMS, TAPS, WEIGHTS = (0, 1, 2, 3), (4, 5), (6, 7)
# every matrix register has 16 rows of 64 bytes: palette 1, then words of columns and bytes of rows
CONFIGURATION = bytes([1, *[0] * 15, *[DEPTH, 0] * 8, *[0] * 16, *[ROWS] * 8, *[0] * 8])
# Linux on x86-64: the number of the system call, what it is asked, and for which state
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


def permitted() -> bool:
    """Request the matrix registers of AMX from the system, and return whether this process may use them."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0  # type: ignore[no-any-return]
    except (OSError, AttributeError):
        return False


def _begin(e: Emitter) -> None:
    """Give this thread its matrix registers."""
    data = ir.Constant(ir.ArrayType(I8, len(CONFIGURATION)), bytearray(CONFIGURATION))
    constants = ir.GlobalVariable(e.module, data.type, "matrices")
    constants.global_constant, constants.linkage, constants.initializer = True, "internal", data
    e.call("llvm.x86.ldtilecfg", ir.VoidType(), e.builder.bitcast(constants, I8.as_pointer()))


def _end(e: Emitter) -> None:
    """Release the registers, so that the system need not save them."""
    e.call("llvm.x86.tilerelease", ir.VoidType())


def _load(e: Emitter, register: int, address: Any, stride: Any) -> None:
    e.call("llvm.x86.tileloadd64", ir.VoidType(), constant(I8, register), e.pointer(address, I8), stride)


def _store(e: Emitter, register: int, address: Any, stride: Any) -> None:
    e.call("llvm.x86.tilestored64", ir.VoidType(), constant(I8, register), e.pointer(address, I8), stride)


def _multiply(e: Emitter, sums: int, taps: int, weights: int) -> None:
    e.call("llvm.x86.tdpbusd", ir.VoidType(), *(constant(I8, register) for register in (sums, taps, weights)))


def _burst(e: Emitter, steps: Any, operand: Any) -> Any:
    """Multiply matrices of the operand's bytes. The sums begin with 0; a register of taps or weights serves several."""
    b, line = e.builder, constant(I64, DEPTH)
    words = ROWS * DEPTH // 4
    place = b.ptrtoint(e.slot(ir.ArrayType(I32, words)), I64)
    _begin(e)
    with e.loop(words) as at:
        e.store(operand, b.add(place, b.mul(at, constant(I64, 4))), 4)
    for register in SUMS:
        e.call("llvm.x86.tilezero", ir.VoidType(), constant(I8, register))
    for register in (*TAPS, *WEIGHTS):
        _load(e, register, place, line)
    with e.loop(steps):
        for register in SUMS:
            _multiply(e, register, TAPS[register // 2], WEIGHTS[register % 2])
    total = e.slot(I32, constant(I32, 0))
    for register in SUMS:
        _store(e, register, place, line)
        with e.loop(words) as at:
            b.store(b.add(b.load(total), e.load(b.add(place, b.mul(at, constant(I64, 4))), I32, 4)), total)
    _end(e)
    return b.load(total)


AMX = replace(
    VNNI512,
    name="amx",
    says="AMX, tdpbusd of 16 x 16 x 64, and AVX-512 VNNI",
    families=(),
    needs=((*AVX512, "amx-tile", "amx-int8"),),
    asks={"amx-tile": permitted},
    dots={},
    # one size and 1, since most layers use matrices
    shapes=dict.fromkeys(VNNI512.shapes, (6, 1)),
    matrices=Matrices(ROWS, DEPTH, (32, 16), SUMS, TAPS, WEIGHTS, _begin, _end, _load, _store, _multiply),
    ahead=0,
    peak=Peak("tdpbusd of 16 x 16 x 64", ROWS * ROWS, ROWS * ROWS * DEPTH, _burst, len(SUMS)),
)

"""From IR to functions: which instruction set, and the same bits from each."""

import ctypes
import os
import random
from typing import Any

import pytest
from llvmlite import ir

from dqtsim.engines.native.compile import build
from dqtsim.engines.native.ir import I32, Emitter, vector
from dqtsim.engines.native.isa import ISAS, Isa
from dqtsim.errors import InputError

from .adding import ADD, emit_add

BY_NAME = {isa.name: isa for isa in ISAS}
HERE = [isa for isa in ISAS if not build.missing(isa, build.host()[1])]
AVX512 = ("avx2", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")


@pytest.fixture(autouse=True)
def nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(build.VARIABLE, raising=False)


# the choice


@pytest.mark.parametrize(
    ("asked", "features", "name"),
    [
        (None, (), "portable"),
        ("", (), "portable"),
        ("auto", (), "portable"),
        ("portable", AVX512, "portable"),
        (None, ("avx2",), "avx2"),
        ("avx2", AVX512, "avx2"),
        (None, ("avx2", "avxvnni"), "vnni256"),
        (None, ("avxvnni",), "portable"),
        ("vnni", ("avx2", "avxvnni"), "vnni256"),
        ("vnni", AVX512, "vnni512"),
        ("vnni", (*AVX512, "avxvnni"), "vnni512"),
        ("auto", AVX512, "vnni512"),
        (None, tuple(name for name in AVX512 if name != "avx512vnni"), "avx2"),
        ("vnni512", AVX512, "vnni512"),
        ("vnni256", AVX512, "vnni256"),
        ("vnni256", ("avx2", "avxvnni"), "vnni256"),
    ],
)
def test_the_choice(asked: str | None, features: tuple[str, ...], name: str) -> None:
    choice = build.choose({} if asked is None else {build.VARIABLE: asked}, dict.fromkeys(features, True))
    assert choice.isa.name == name
    automatic = asked in (None, "", "auto")
    assert choice.why == ("it is the best that this CPU has" if automatic else f"DQTSIM_KERNEL is '{asked}'")


@pytest.mark.parametrize(
    ("asked", "features", "sentence"),
    [
        (
            "sse",
            AVX512,
            "DQTSIM_KERNEL is one of auto, vnni, amx, vnni512, vnni256, avx2, portable; "
            "found 'sse' in the environment.",
        ),
        (
            "avx2",
            ("sse2", "avx"),
            "DQTSIM_KERNEL names a kernel that the CPU can run; found 'avx2', but this CPU lacks avx2 for avx2.",
        ),
        (
            "vnni",
            AVX512[:-1],
            "DQTSIM_KERNEL names a kernel that the CPU can run; found 'vnni', but this CPU lacks avx512vnni for "
            "vnni512 and avxvnni for vnni256.",
        ),
        (
            "vnni512",
            ("avx2", "avxvnni"),
            "DQTSIM_KERNEL names a kernel that the CPU can run; found 'vnni512', but this CPU lacks avx512f, avx512bw, "
            "avx512vl, avx512dq, avx512vnni for vnni512.",
        ),
    ],
)
def test_a_choice_that_is_refused(asked: str, features: tuple[str, ...], sentence: str) -> None:
    has = {name: name in features for name in (*AVX512, "avxvnni", *features)}
    with pytest.raises(InputError) as caught:
        build.choose({build.VARIABLE: asked}, has)
    assert str(caught.value) == sentence


def test_the_choice_for_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.choose().isa is HERE[0]
    monkeypatch.setenv(build.VARIABLE, "portable")
    assert build.choose().isa.name == "portable"


# the compiler and the loader


def emit_dot(module: Any, isa: Isa) -> None:
    """Write `dot`, out += a . b, which also calls a function of the C library."""
    e = Emitter(module, "dot")
    a, b, out = e.unpack(ADD, e.arguments[0], "a", "b", "out")
    lanes = vector(I32, isa.lanes)
    pixels, weights = isa.dot.pixels(e, e.load(a, lanes)), isa.dot.weights(e, e.load(b, lanes))
    if os.name == "posix":
        e.call("sched_yield", I32)
    e.store(isa.dot.add(e, e.load(out, lanes), pixels, weights), out)
    e.done()


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
def test_every_instruction_set_of_this_cpu_computes_the_same(isa: Isa) -> None:
    module = ir.Module()
    emit_dot(module, isa)
    address = build.load_object(build.compile_module(module, isa), ["dot"])["dot"]
    draw = random.Random(3)
    for corner in (None, (255, -128), (255, 127)):
        codes = [draw.randrange(256) if corner is None else corner[0] for _ in range(4 * isa.lanes)]
        operands = [draw.randrange(-128, 128) if corner is None else corner[1] for _ in range(4 * isa.lanes)]
        pixels, weights = (ctypes.c_uint8 * len(codes))(*codes), (ctypes.c_int8 * len(codes))(*operands)
        sums = (ctypes.c_int32 * isa.lanes)(*range(isa.lanes))
        places = {"a": ctypes.addressof(pixels), "b": ctypes.addressof(weights), "out": ctypes.addressof(sums)}
        words = ADD.words(function=address, chunks=1, **places)
        record = (ctypes.c_int64 * len(words))(*words)
        ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(address)(ctypes.addressof(record), 0)
        products = [code * operand for code, operand in zip(codes, operands, strict=True)]
        assert list(sums) == [lane + sum(products[4 * lane : 4 * lane + 4]) for lane in range(isa.lanes)]


def assembly(isa: Isa) -> str:
    module = ir.Module()
    emit_dot(module, isa)
    parsed, machine = build.optimized(module, isa)
    text: str = machine.emit_assembly(parsed)
    return text


INSTRUCTIONS = {
    "amx": ("vpdpbusd", "zmm"),
    "vnni512": ("vpdpbusd", "zmm"),
    "vnni256": ("vpdpbusd", "ymm"),
    "avx2": ("vpmaddwd", "ymm"),
}


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
def test_the_instructions_are_those_that_were_meant(isa: Isa) -> None:
    if isa.name not in INSTRUCTIONS:
        assert not {"ymm", "zmm"} & set(assembly(isa))
        return
    instruction, register = INSTRUCTIONS[isa.name]
    # the encoding of AVX-VNNI, which has no 512-bit relative, is marked
    lines = [
        line for line in assembly(isa).splitlines() if line.strip().removeprefix("{vex}\t").startswith(instruction)
    ]
    assert lines
    assert all(register in line for line in lines)


@pytest.mark.skipif("avx512f" not in build.host()[1], reason="needs a compiler for x86")
def test_vectors_of_512_bits_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    # LLVM takes this CPU to be faster with halves, so it would vectorize this loop with 256 bits
    monkeypatch.setattr(build, "processor", lambda _isa: ("skylake-avx512", "+avx512vnni"))

    def text(name: str) -> str:
        module = ir.Module()
        e = Emitter(module, "negate", ir.FunctionType(ir.VoidType(), [I32.as_pointer()]))
        with e.loop(1 << 20) as index:
            place = e.builder.gep(e.arguments[0], [index])
            e.builder.store(e.builder.neg(e.builder.load(place)), place)
        e.done()
        parsed, machine = build.optimized(module, BY_NAME[name])
        written: str = machine.emit_assembly(parsed)
        return written

    assert "zmm" in text("vnni512")
    assert "zmm" not in text("vnni256")


def test_portable_code_is_the_same_on_every_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def code() -> bytes:
        module = ir.Module()
        emit_dot(module, BY_NAME["portable"])
        return build.compile_module(module, BY_NAME["portable"])

    here = code()
    monkeypatch.setattr(build, "host", lambda: ("x86-64-v4", {"avx512f": True}))
    assert code() == here


def test_avx2_is_compiled_for_no_more_than_avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    has = ("avx2", "avx512f", "avx512vnni", "avxvnni", "avxvnniint8", "avx10.1", "amx-int8", "fma")
    monkeypatch.setattr(build, "host", lambda: ("new", {**dict.fromkeys(has, True), "sse4a": False}))
    features = "-amx-int8,-avx10.1,+avx2,-avx512f,-avx512vnni,-avxvnni,-avxvnniint8,+fma,-sse4a"
    assert build.processor(BY_NAME["avx2"]) == ("new", features)
    assert build.processor(BY_NAME["vnni512"])[1] == features.replace("-a", "+a")
    assert build.processor(BY_NAME["portable"]) == ("generic", "")


def test_a_cpu_that_llvm_cannot_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    from llvmlite import binding

    def unknown() -> None:
        raise RuntimeError("failed to get host cpu features.")

    monkeypatch.setattr(binding, "get_host_cpu_features", unknown)
    monkeypatch.setattr(build, "host", build.host.__wrapped__)
    assert build.choose().isa.name == "portable"


def test_a_function_that_is_not_there() -> None:
    module = ir.Module()
    emit_add(module)
    with pytest.raises(LookupError, match="the object has no subtract"):
        build.load_object(build.compile_module(module, BY_NAME["portable"]), ["add", "subtract"])

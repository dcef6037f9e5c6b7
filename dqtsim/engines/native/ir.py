"""Shared parts of all emitters: records, loops, loads and stores. Values are LLVM IR; addresses are i64."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
WORD = 8
OPERATION = ir.FunctionType(ir.VoidType(), [I64, I64])


class Record:
    """The names of an operation's fields; 'function' and 'chunks' come first in every record."""

    def __init__(self, *names: str) -> None:
        self.names = ("function", "chunks", *names)

    def words(self, **values: int) -> list[int]:
        """Return the values of the fields in order. Exactly these names must be given."""
        if set(values) != set(self.names):
            raise ValueError(f"words {sorted(set(values) ^ set(self.names))} are missing or unknown")
        return [values[name] for name in self.names]


def vector(element: Any, lanes: int) -> Any:
    """Return the type of `lanes` elements."""
    return ir.VectorType(element, lanes)


def constant(kind: Any, value: int) -> Any:
    """Return `value` as an integer, or in every lane of a vector type."""
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [value] * kind.count)
    return ir.Constant(kind, value)


class Emitter:
    """Writes one function."""

    def __init__(self, module: Any, name: str, kind: Any = OPERATION, *, private: bool = False) -> None:
        self.function = ir.Function(module, kind, name)
        if private:
            self.function.linkage = "internal"
        self.arguments = self.function.args
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self._slots = self.function.append_basic_block("body")
        self.builder.branch(self._slots)
        self.builder.position_at_end(self._slots)

    @property
    def module(self) -> Any:
        """Return the module of the function."""
        return self.function.module

    def word(self, record: Record, words: Any, name: str) -> Any:
        """Return the i64 called `name` of the record at the address `words`."""
        return self.load(self.builder.add(words, constant(I64, WORD * record.names.index(name))), I64, 8)

    def unpack(self, record: Record, words: Any, *names: str) -> list[Any]:
        """Return several fields of a record."""
        return [self.word(record, words, name) for name in names]

    def pointer(self, address: Any, kind: Any) -> Any:
        """Return the address as a pointer to `kind`."""
        return self.builder.inttoptr(address, kind.as_pointer())

    def load(self, address: Any, kind: Any, align: int = 1) -> Any:
        """Return the value of type `kind` at an address."""
        return self.builder.load(self.pointer(address, kind), align=align)

    def store(self, value: Any, address: Any, align: int = 1) -> None:
        """Write a value to an address."""
        self.builder.store(value, self.pointer(address, value.type), align=align)

    def slot(self, kind: Any, value: Any = None) -> Any:
        """Return a local variable (a pointer; the optimizer makes it a register), set to `value` if given."""
        with self.builder.goto_entry_block():
            place = self.builder.alloca(kind)
        if value is not None:
            self.builder.store(value, place)
        return place

    @contextmanager
    def loop(self, stop: Any, start: Any = 0, step: Any = 1) -> Iterator[Any]:
        """Emit the body of the with-statement for every i64 from `start` below `stop`; arguments are values or ints."""
        b = self.builder
        stop, start, step = (constant(I64, x) if isinstance(x, int) else x for x in (stop, start, step))
        before = b.block
        head, body, after = (self.function.append_basic_block(name) for name in ("loop", "loop.body", "loop.end"))
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(start, before)
        b.cbranch(b.icmp_signed("<", index, stop), body, after)
        b.position_at_end(body)
        yield index
        index.add_incoming(b.add(index, step), b.block)
        b.branch(head)
        b.position_at_end(after)

    def leave(self, condition: Any) -> None:
        """Return from the function if a condition is true."""
        with self.builder.if_then(condition):
            self.builder.ret_void()

    def splat(self, value: Any, lanes: int) -> Any:
        """Return a vector with `value` in every lane."""
        kind = vector(value.type, lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, value, constant(I32, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(vector(I32, lanes), [0] * lanes))

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call the LLVM intrinsic or C function `name`."""
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(self.module, ir.FunctionType(result, [a.type for a in arguments]), name)
        return self.builder.call(function, arguments)

    def prefetch(self, address: Any) -> None:
        """Prefetch the cache line at `address` for reading; the address need not be valid."""
        read, near, data = (constant(I32, value) for value in (0, 3, 1))
        self.call("llvm.prefetch.p0", ir.VoidType(), self.pointer(address, I8), read, near, data)

    def least(self, a: Any, b: Any, *, signed: bool = True) -> Any:
        """Return the lesser of two integers, or of every lane."""
        return self._extreme("min", a, b, signed)

    def greatest(self, a: Any, b: Any, *, signed: bool = True) -> Any:
        """Return the greater of two integers, or of every lane."""
        return self._extreme("max", a, b, signed)

    def _extreme(self, which: str, a: Any, b: Any, signed: bool) -> Any:
        kind = a.type
        suffix = f"v{kind.count}i{kind.element.width}" if isinstance(kind, ir.VectorType) else f"i{kind.width}"
        return self.call(f"llvm.{'s' if signed else 'u'}{which}.{suffix}", kind, a, b)

    def done(self) -> None:
        """End the function."""
        self.builder.ret_void()

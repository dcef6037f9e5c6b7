"""The variant of an operation for the widths of this execution, and the report if there is none (B8).

Operations that depend on widths begin with this code. A table has one byte for each pair of widths, 0 to 8 each: the
number of the variant, ELSEWHERE for a pair that another operation of the layer serves, NONE for all others. An
operation that finds NONE, or widths outside the table, writes layer and widths to the report and touches nothing else.
"""

from typing import Any

from ..ir import I8, I64, WORD, Emitter, Record, constant

# widths are 1 to 8, so a table of 9 rows has an entry for each pair
WIDTHS = 9
ELSEWHERE, NONE = 254, 255
CHOICE = (
    "widths",  # address of two int64: of weights, of activations
    "choice",  # address of uint8 [9 * 9]
    "refused",  # address of REFUSED: the first operation of the run that found no variant
    "layer",  # number of this layer, from 1 up
)
# int64 each; all 0 until an operation finds no variant
REFUSED = ("layer", "b_w", "b_a")


def number_of(e: Emitter, record: Record, words: Any) -> tuple[Any, Any]:
    """Return the number of this execution's variant and its width of activations, i64; leave if there is none."""
    b = e.builder
    widths, choice = e.unpack(record, words, "widths", "choice")
    pair = [e.load(b.add(widths, constant(I64, WORD * k)), I64, 8) for k in range(2)]
    b_w, b_a = pair
    exists = b.and_(*(b.icmp_unsigned("<", width, constant(I64, WIDTHS)) for width in pair))
    place = b.add(b.mul(b_w, constant(I64, WIDTHS)), b_a)
    # widths outside the table use the entry (0, 0), which is never planned
    place = b.select(exists, place, constant(I64, 0))
    number = b.zext(e.load(b.add(choice, place), I8), I64)
    with b.if_then(b.icmp_unsigned(">=", number, constant(I64, ELSEWHERE)), likely=False):
        with b.if_then(b.icmp_unsigned("==", number, constant(I64, NONE))):
            _refuse(e, record, words, pair)
        b.ret_void()
    return number, b_a


def _refuse(e: Emitter, record: Record, words: Any, pair: list[Any]) -> None:
    """Write this layer and its widths, unless there is an entry already. Chunks may run here at the same time."""
    b = e.builder
    refused, layer = e.unpack(record, words, "refused", "layer")
    first = b.cmpxchg(e.pointer(refused, I64), constant(I64, 0), layer, "monotonic", "monotonic")
    with b.if_then(b.extract_value(first, 1)):
        for k, width in enumerate(pair, 1):
            e.store(width, b.add(refused, constant(I64, WORD * k)), 8)


def variant_of(e: Emitter, record: Record, words: Any, size: int) -> Any:
    """Return the address of the variant's record, of `size` fields, for this execution's widths."""
    b = e.builder
    number, _ = number_of(e, record, words)
    return b.add(e.word(record, words, "variants"), b.mul(number, constant(I64, WORD * size)))

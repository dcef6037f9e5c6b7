"""One bit by one bit: the activations of a convolution as bits (A1, A2, B1).

At width 1 a code says only whether its master code reaches a threshold, and an operand of a weight has two values. So
a word holds 32 channels, and bits are counted instead of multiplied. A pixel is words in the order of the channels, the
lowest bit first; bits of channels that do not exist are 0. The border is the nested zero point, as it is for bytes.
"""

from collections.abc import Callable
from typing import Any

from ..ir import I8, I32, I64, Emitter, Record, constant, vector
from .choice import CHOICE, number_of
from .rows import fields, share

# channels in a word
CHANNELS = 32

BITS = Record(
    *CHOICE,
    "threshold",  # the least master code that is 1
    "zero",  # nested zero point, 0 or 1
    "source",  # pixel (0, 0)
    "source_row",  # bytes to the next row
    "source_step",  # bytes to the next pixel
    "target",  # first word of the buffer, border included; its rows follow each other without gaps
    "height",
    "width",
    "words",  # of a pixel
    "last",  # the bits of a pixel's last word whose channels exist
    "top",
    "left",
    "bottom",
    "right",
)


def emit(module: Any) -> str:
    """Add the operation "bits" of BITS records to `module`; return its name. Chunks split rows, border included."""
    e = Emitter(module, "bits")
    b = e.builder
    words, chunk = e.arguments
    number_of(e, BITS, words)
    r = fields(e, BITS, words)
    border = b.neg(b.trunc(r.zero, I32))
    threshold = e.splat(b.trunc(r.threshold, I8), CHANNELS)
    pixel_bytes = b.mul(r.words, constant(I64, 4))
    before, inner, after = (b.mul(count, pixel_bytes) for count in (r.left, r.width, r.right))
    full = b.add(before, b.add(inner, after))
    final = b.sub(r.words, constant(I64, 1))
    mask = b.trunc(r.last, I32)
    first, last = share(e, r.chunks, chunk, b.add(r.top, b.add(r.height, r.bottom)))

    def fill(target: Any, size: Any) -> None:
        """Write pixels of the border."""
        with e.loop(size, 0, pixel_bytes) as at:
            pixel(b.add(target, at), lambda _number: border)

    def pixel(target: Any, word: Callable[[Any], Any]) -> None:
        """Write a pixel; word: gives the bits of the word of a number."""
        with e.loop(final) as number:
            e.store(word(number), b.add(target, b.mul(number, constant(I64, 4))), 4)
        e.store(b.and_(word(final), mask), b.add(target, b.mul(final, constant(I64, 4))), 4)

    with e.loop(last, first) as row:
        start = b.add(r.target, b.mul(row, full))
        y = b.sub(row, r.top)
        with b.if_else(b.icmp_unsigned("<", y, r.height)) as (inside, outside):
            with inside:
                fill(start, before)
                line, to = b.add(r.source, b.mul(y, r.source_row)), b.add(start, before)
                with e.loop(r.width) as x:
                    codes = b.add(line, b.mul(x, r.source_step))

                    def reached(number: Any, codes: Any = codes) -> Any:
                        # the last word may also read channels of the next pixel; these are masked off
                        at = b.add(codes, b.mul(number, constant(I64, CHANNELS)))
                        loaded = e.load(at, vector(I8, CHANNELS))
                        return b.bitcast(b.icmp_unsigned(">=", loaded, threshold), I32)

                    pixel(b.add(to, b.mul(x, pixel_bytes)), reached)
                fill(b.add(start, b.add(before, inner)), after)
            with outside:
                fill(start, full)
    e.done()
    return "bits"

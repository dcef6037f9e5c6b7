"""The memory that operations of layers access, at every pair of widths: nest, bits, panels, conv, narrow, each."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

from ....graph.model import Array
from ..emit.centroid import HALVED, SUMMED
from ..emit.choice import ELSEWHERE, REFUSED, WIDTHS
from ..emit.matrix import ALL_PANELS, DIRECT, PANELS, VECTORS
from ..emit.one_bit import CHANNELS
from ..emit.overflow import CODE_BYTES, LOGIT_BYTES, NARROWED
from ..emit.saturate_each import DEPTH as EACH_DEPTH
from ..emit.saturate_each import EACHED
from ..emit.saturate_each import LOGITS as EACH_LOGITS
from ..emit.tile import BLOCK, LOGITS, PARAMETER_BYTES, QUADS, VARIANT
from ..emit.tile import DEPTH as DEPTHWISE
from ..memory import Address, Constant, Function, Word
from .kernels import Kernel, kernels_of
from .words import INT64, Access, Words, apart, hull

INT32 = 4
# number of pixels whose codes a kernel takes at a time
FOUR = 4
PIXEL = 4


def _chosen(words: Words) -> Iterator[Access]:
    """The fields CHOICE: two widths of any value, a number for each pair, and the place to write if there is none."""
    words.data("choice", words.place("choice"), WIDTHS * WIDTHS)
    words.number_of("layer", 1, max(1, len(words.program.report.layers)))
    yield Access("widths", words.place("widths"), 0, 2 * INT64)
    yield Access("refused", words.place("refused"), 0, len(REFUSED) * INT64, writes=True, align=INT64)


def _variants(words: Words, names: tuple[str, ...]) -> list[tuple[Word, ...]]:
    """Return the variant records of an operation; its table of pairs must not name others."""
    choice = words.data("choice", words.place("choice"), WIDTHS * WIDTHS)
    numbers = choice[choice < ELSEWHERE]
    return words.table("variants", words.word("variants"), names, 1 + int(numbers.max(initial=0)))


# ---- inputs ----


def nest(words: Words) -> Iterator[Access]:
    """The border in place, or everything in a copy, depending on the widths."""
    yield from _chosen(words)
    height, width, step = words.numbers("height", "width", "step", least=1)
    source_row, source_step = words.numbers("source_row", "source_step")
    top, left, bottom, right = words.numbers("top", "left", "bottom", "right")
    source, target = words.place("source"), words.optional("target")
    full = (left + width + right) * step
    served = words.data("choice", words.place("choice"), WIDTHS * WIDTHS).reshape(WIDTHS, WIDTHS) < ELSEWHERE
    in_place = np.arange(WIDTHS) == (words.number_of("n") if words.number_of("direct", 0, 1) else -1)
    if top + left + bottom + right and served[:, in_place].any():
        # rows from -top to the last below the picture, each from -left on
        apart(words, "source_row", top + height + bottom, source_row, full)
        first = -top * source_row - left * step
        last = (height + bottom - 1) * source_row + (width + right) * step
        yield Access("source", source, first, last, writes=True)
    if target is None:
        if served[:, ~in_place].any():
            words.refuse("nests codes into a copy that is not there")
        return
    if source_step == step:
        yield Access("source", source, *hull(width * step, (height, source_row)))
    else:
        yield Access("source", source, *hull(PIXEL, (height, source_row), (width, source_step)))
        if step < PIXEL:
            words.refuse(f"writes pixels of {PIXEL} bytes {step} apart")
    yield Access("target", target, 0, (top + height + bottom) * full, writes=True)


def window_nest(words: Words) -> Iterator[Access]:
    """The memory that `nest` accesses; the window and a pixel of the border of every width."""
    yield from nest(words)
    n = words.number_of("n", 1, WIDTHS - 1)
    windows = words.integers("windows", WIDTHS)
    # other shifts have no meaning
    if windows.min() < 0 or (windows + np.arange(WIDTHS))[: n + 1].max() > n:
        words.refuse(f"takes codes of {n} bits through windows of {windows.tolist()}")
    border = words.optional("border")
    if border is not None:
        yield Access("border", border, 0, WIDTHS * words.number_of("step", 1))
    elif any(words.numbers("top", "left", "bottom", "right")):
        words.refuse("has no pixel for its border")


def bits(words: Words) -> Iterator[Access]:
    """Words of 32 channels for every pixel and the border."""
    yield from _chosen(words)
    height, width, count = words.numbers("height", "width", "words", least=1)
    row, step = words.numbers("source_row", "source_step")
    top, left, bottom, right = words.numbers("top", "left", "bottom", "right")
    yield Access("source", words.place("source"), *hull(CHANNELS * count, (height, row), (width, step)))
    size = (top + height + bottom) * (left + width + right) * count * INT32
    yield Access("target", words.place("target"), 0, size, writes=True)


# ---- conv ----


@dataclass(frozen=True)
class _Block:
    """A block of channels: its kernel, and where its weights, parameters, input and channels begin."""

    kernel: Kernel
    weights: int
    parameters: int
    input: int
    channel: int


class _Conv:
    """The fields that "conv" and "panels" share."""

    def __init__(self, words: Words) -> None:
        self.words, self.isa = words, words.isa
        self.tiles, self.pixels, self.count = words.numbers("tiles", "pixels", "block_count", least=1)
        self.group = words.number_of("group", 1)
        words.number_of("by_blocks", 0, 1)
        self.offsets = self.per_pixel("offsets")
        self.first, self.last = int(self.offsets.min()), int(self.offsets.max())
        own = self.isa.matrices
        self.matrices = words.number_of("matrices", VECTORS, VECTORS if own is None else ALL_PANELS)
        # of a matrix: pixels, and bytes of each
        self.rows, self.depth = (0, 0) if own is None else (own.rows, own.depth)
        self.row, self.steps, self.segments = words.numbers("row_bytes", "steps", "segment_count")
        self.run = words.number_of("run")
        self.sources: dict[bool, Address | None] = {
            True: words.optional("direct"),
            False: words.optional("nested"),
        }
        self.panel = words.optional("panel")
        self.places = {name: words.optional(name) for name in ("segments", "step_offsets")}

    def per_pixel(self, name: str) -> Array:
        """Return a table with an int64 for each pixel of all tiles."""
        return self.words.integers(name, self.tiles * self.pixels)

    def source(self, direct: int) -> Address:
        """Return the input of a variant."""
        found = self.sources[direct != 0]
        if found is None:
            self.words.refuse(f"reads {'an input' if direct else 'a nested input'} that is not there")
        return found

    def table(self, name: str, count: int) -> Array:
        """Return a table of int64 that only some kernels have."""
        return self.words.integers(name, count, self._there(name))

    def _there(self, name: str) -> Constant:
        word = self.places[name]
        if not isinstance(word, Constant):
            self.words.refuse(f"takes '{name}', a table; found {word}")
        return word

    # ---- taps ----

    def gathered(self, source: Address, panels: int) -> Iterator[Access]:
        """Whole lines of every pixel, side by side in the rows of `panels` panels."""
        pairs = self.table("segments", 2 * self.segments).reshape(-1, 2)
        (taken_first, put_first), (taken_last, put_last) = pairs.min(0).tolist(), pairs.max(0).tolist()
        yield Access("taps", source, self.first + taken_first, self.last + taken_last + self.depth)
        yield self._rows(put_first, put_last + self.depth, panels, writes=True)

    def _rows(self, first: int, last: int, panels: int, *, writes: bool) -> Access:
        """Return bytes `first` to `last` of all rows of `panels` panels."""
        if self.panel is None:
            self.words.refuse("has no panel")
        return Access("panel", self.panel, first, (panels * self.pixels - 1) * self.row + last, writes=writes)

    def from_panels(self, panels: int) -> Access:
        """Return the bytes of panels that matrices read: one line of each row per step."""
        steps = self.table("step_offsets", self.steps)
        return self._rows(int(steps.min()), int(steps.max()) + self.depth, panels, writes=False)

    def taps(self, kernel: Kernel) -> tuple[int, int]:
        """Return (first, last) of the bytes that a kernel reads of its block's input."""
        if self.matrices == DIRECT:
            # the offsets of the first pixel of each matrix, whose pixels lie `row_bytes` apart
            starts, steps = self.offsets.reshape(-1, self.rows)[:, 0], self.table("step_offsets", self.steps)
            rows = (self.rows - 1) * self.row
            return int(starts.min() + steps.min()), int(starts.max() + steps.max()) + rows + self.depth
        segments = self.table("segments", self.segments * (FOUR if kernel.kind == QUADS else 1))
        begin, end = int(segments.min()), int(segments.max())
        if kernel.kind == QUADS:
            size = 4 * kernel.lanes
        elif kernel.kind == DEPTHWISE:
            size = kernel.channels
        else:
            size = FOUR * self.run_steps
        return self.first + begin, self.last + end + size

    @property
    def run_steps(self) -> int:
        """Return the steps of a run, at least one."""
        return max(1, -(-self.run // FOUR))

    def weights(self, kernel: Kernel) -> int:
        """Return the bytes of a block's weights."""
        if kernel.matrix:
            return self.steps * self.depth * kernel.channels
        steps = 1 if kernel.kind in (QUADS, DEPTHWISE) else self.run_steps
        return self.segments * steps * INT32 * kernel.channels

    def block(self, record: tuple[Word, ...]) -> _Block:
        """Return a BLOCK record; its kernel must exist and fit the layer."""
        words, (function, *numbers) = self.words, record
        kernel = kernels_of(self.isa.name).get(function.name) if isinstance(function, Function) else None
        if kernel is None:
            words.refuse(f"calls {function}, which is no kernel of {self.isa.name}")
        if kernel.pixels != self.pixels or kernel.matrix != (self.matrices != VECTORS):
            words.refuse(f"calls {function} for tiles of {self.pixels} pixels, matrices {self.matrices}")
        found = [words.entry(name, word) for name, word in zip(BLOCK[1:], numbers, strict=True)]
        return _Block(kernel, *found)


def panels(words: Words) -> Iterator[Access]:
    """The taps of all tiles, for the operation "conv" after it."""
    conv_ = _Conv(words)
    yield from _chosen(words)
    for name in ("target", "sums", "residual", "flags", "target_offsets", "sums_offsets", "residual_offsets"):
        words.optional(name)
    for direct, *_ in _variants(words, VARIANT):
        source = conv_.source(words.entry("direct", direct, 0, 1))
        yield from conv_.gathered(source, conv_.tiles)


def conv(words: Words) -> Iterator[Access]:
    """Taps, weights and parameters of every block at every pair of widths; then sums and outputs."""
    conv_ = _Conv(words)
    yield from _chosen(words)
    yield Access("flags", words.place("flags"), 0, 2 * INT32, writes=True, align=INT32)
    seen: dict[tuple[int, str], Kernel] = {}
    for variant in _variants(words, VARIANT):
        direct, weights, parameters, table = variant
        blocks = [conv_.block(record) for record in words.table("blocks", table, BLOCK, conv_.count)]
        yield from _inputs(conv_, words.entry("direct", direct, 0, 1), blocks)
        yield from _operands(conv_, weights, parameters, blocks)
        seen |= {(block.channel, block.kernel.name): block.kernel for block in blocks}
    yield from _outputs(conv_, {(channel, kernel) for (channel, _), kernel in seen.items()})


def _inputs(conv_: _Conv, direct: int, blocks: list[_Block]) -> Iterator[Access]:
    """Yield the bytes that a variant reads of its input, or of panels."""
    if conv_.matrices == PANELS:
        panels_ = conv_.words.operation.chunks * conv_.group
        yield from conv_.gathered(conv_.source(direct), panels_)
        yield conv_.from_panels(panels_)
    elif conv_.matrices == ALL_PANELS:
        yield conv_.from_panels(conv_.tiles)
    else:
        kinds = {block.kernel.name: block.kernel for block in blocks}
        spans = {name: conv_.taps(kernel) for name, kernel in kinds.items()}
        first = min(block.input + spans[block.kernel.name][0] for block in blocks)
        last = max(block.input + spans[block.kernel.name][1] for block in blocks)
        yield Access("taps", conv_.source(direct), first, last)


def _operands(conv_: _Conv, weights: Word, parameters: Word, blocks: list[_Block]) -> Iterator[Access]:
    """Yield the weights and parameters of a variant's blocks. Vectors of weights are loaded aligned."""
    words = conv_.words
    if not isinstance(weights, Constant) or not isinstance(parameters, Constant):
        words.refuse(f"has weights at {weights} and parameters at {parameters}")
    sizes = [conv_.weights(block.kernel) for block in blocks]
    for block, size in zip(blocks, sizes, strict=True):
        align = 1 if block.kernel.matrix else INT32 * block.kernel.lanes
        if size and (weights.offset + block.weights) % align:
            words.refuse(f"loads weights at byte {weights.offset + block.weights}, which is no multiple of {align}")
    first = min(block.weights for block in blocks)
    last = max(block.weights + size for block, size in zip(blocks, sizes, strict=True))
    yield Access("weights", weights, first, last)
    first = min(block.parameters for block in blocks)
    last = max(block.parameters + PARAMETER_BYTES * block.kernel.channels for block in blocks)
    yield Access("parameters", parameters, first, last)


def _outputs(conv_: _Conv, blocks: set[tuple[int, Kernel]]) -> Iterator[Access]:
    """Yield sums, codes or logits of all blocks, and the other operands of an addition."""
    words = conv_.words
    logits = {kernel.kind == LOGITS for _, kernel in blocks}
    if len(logits) != 1:
        words.refuse("gives codes and logits")
    (is_logits,) = logits
    first, last = min(channel for channel, _ in blocks), max(channel + kernel.channels for channel, kernel in blocks)
    wanted = [("target", INT32 if is_logits else 1, True)]
    wanted += [(name, size, name == "sums") for name, size in (("sums", INT32), ("residual", 1))]
    for name, size, writes in wanted:
        place = words.optional(name)
        if place is None and name != "target":
            words.optional(f"{name}_offsets")
            continue
        if place is None:
            words.refuse("has no target")
        offsets = conv_.per_pixel(f"{name}_offsets")
        yield Access(
            name,
            place,
            int(offsets.min()) + size * first,
            int(offsets.max()) + size * last,
            writes=writes,
            beyond=conv_.isa.lanes - PIXEL if name == "target" and size == 1 else 0,
        )


# ---- registers that can overflow ----


def narrow(words: Words) -> Iterator[Access]:
    """Sums and codes of the vectors that each pair of widths lists."""
    logits = words.operation.function == "narrow_logits"
    yield from _chosen(words)
    yield _count(words)
    for variant in _variants(words, NARROWED):
        yield from _finished(words, variant, logits=logits)


def each(words: Words) -> Iterator[Access]:
    """The memory that `narrow` accesses, all sums for their extremes, and taps one at a time."""
    function, lanes = words.operation.function, words.isa.lanes
    yield from _chosen(words)
    yield _count(words)
    yield Access("flags", words.place("flags"), 0, 2 * INT32, writes=True, align=INT32)
    pixels, stride, vectors = words.numbers("pixels", "stride", "vectors")
    yield Access("sums", words.place("sums"), *hull(INT32 * lanes * vectors, (pixels, stride)))
    count = words.number_of("tap_count", 1)
    offsets, taps = words.integers("offsets", pixels), words.integers("taps", count)
    first, last = int(offsets.min() + taps.min()), int(offsets.max() + taps.max()) + 1
    sources = {1: words.optional("direct"), 0: words.optional("nested")}
    for direct, zeta, weights, *variant in _variants(words, EACHED):
        words.entry("zeta", zeta)
        source = sources[words.entry("direct", direct, 0, 1)]
        if source is None or not isinstance(weights, Constant):
            words.refuse(f"reads an input at {source} and weights at {weights}")
        channels = yield from _finished(words, tuple(variant), logits=function == EACH_LOGITS)
        yield Access("weights", weights, 0, lanes * count * len(channels))
        if len(channels):
            by_channel = function == EACH_DEPTH
            begin, end = (int(channels.min()), int(channels.max()) + lanes - 1) if by_channel else (0, 0)
            yield Access("taps", source, first + begin, last + end)


# ---- half a master step taken off every product ----


def columns(words: Words) -> Iterator[Access]:
    """The channels of every pixel, and an int32 for each column."""
    yield from _chosen(words)
    pixels, step, groups, channels, copies, columns_ = words.numbers(
        "pixels", "step", "groups", "channels", "copies", "columns", least=1
    )
    sources = {1: words.optional("direct"), 0: words.optional("nested")}
    for (direct,) in _variants(words, SUMMED):
        source = sources[words.entry("direct", direct, 0, 1)]
        if source is None:
            words.refuse(f"reads an input at {source}")
        yield Access("codes", source, *hull(groups * channels, (pixels, step)))
    if columns_ < groups * copies:
        words.refuse(f"writes {groups * copies} columns of {columns_}")
    yield Access("target", words.place("target"), 0, INT32 * pixels * columns_, writes=True)


def centroid(words: Words) -> Iterator[Access]:
    """The sums of every pixel, the columns of its taps, and its codes or logits."""
    logits, lanes = words.operation.function == "centroid_logits", words.isa.lanes
    yield from _chosen(words)
    pixels, count, vectors = words.numbers("pixels", "tap_count", "vectors", least=1)
    offsets, taps = words.integers("offsets", pixels), words.integers("taps", count)
    size = INT32 * lanes * vectors
    last = int(offsets.max()) + int(taps.max()) + (size if words.number_of("each", 0, 1) else INT32)
    yield Access("columns", words.place("columns"), int(offsets.min()) + int(taps.min()), last)
    yield Access("sums", words.place("sums"), *hull(size, (pixels, words.number_of("stride"))), align=INT32)
    for exponent, of_codes, zeros, parameters in _variants(words, HALVED):
        # larger shifts of 32 bits have no meaning
        for name, word in zip(HALVED, (exponent, of_codes), strict=False):
            words.entry(name, word, 0, 8 * INT32 - 1)
        words.entry("zeros", zeros)
        if not isinstance(parameters, Constant):
            words.refuse(f"has parameters at {parameters}")
        yield Access("parameters", parameters, 0, vectors * lanes * (LOGIT_BYTES if logits else CODE_BYTES))
    places = words.integers("target_offsets", pixels)
    wide = size if logits else lanes * vectors
    beyond = 0 if logits else lanes - PIXEL
    first, last = int(places.min()), int(places.max()) + wide
    yield Access("target", words.place("target"), first, last, writes=True, beyond=beyond)


def _count(words: Words) -> Access:
    return Access("events", words.place("events"), 0, INT64, writes=True, align=INT64)


def _finished(words: Words, variant: tuple[Word, ...], *, logits: bool) -> Generator[Access, None, Array]:
    """Yield sums, codes and constants of some vectors; return the first channels of these vectors."""
    lanes = words.isa.lanes
    found, channels, parameters = variant
    count = words.entry("count", found)
    if not isinstance(channels, Constant) or not isinstance(parameters, Constant):
        words.refuse(f"has channels at {channels} and parameters at {parameters}")
    pixels, stride = words.number_of("pixels", 1), words.number_of("stride")
    size = INT32 if logits else 1
    places = words.integers("target_offsets", pixels)
    sums, target = words.place("sums"), words.place("target")
    if not count:
        return places[:0]
    listed = words.integers("channels", count, channels)
    first, last = int(listed.min()), int(listed.max()) + lanes
    yield Access("parameters", parameters, 0, count * lanes * (LOGIT_BYTES if logits else CODE_BYTES), align=INT32)
    start, end = hull(INT32 * (last - first), (pixels, stride))
    yield Access("sums", sums, start + INT32 * first, end + INT32 * first, writes=True, align=INT32)
    yield Access(
        "target",
        target,
        int(places.min()) + size * first,
        int(places.max()) + size * last,
        writes=True,
        beyond=0 if logits else lanes - PIXEL,
    )
    return listed

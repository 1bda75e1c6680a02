"""Symbols of a stripped kernel, from the tables that scripts/kallsyms.c compiled into its read-only data.

Nothing names these tables in a stripped image, so they are found by what must be true of them:

* ``token_table``: 256 strings; ``token_index``: their 256 offsets, right behind it. A character that symbols use keeps
  its own code, so the strings numbered "0" to "9" are those digits: that is what is searched for.
* ``markers``: the offset in ``names`` of every 256th name, so a rising run from 0, before ``token_table``.
* ``names``: length-prefixed, before ``markers``; ``num_syms`` just before it, and agreeing with both.
* the addresses: absolute before ``num_syms`` (to 4.5), or offsets with a base (since 2213e9a6, 4.6): before
  ``num_syms`` too, and since 404bad70fcf7 (6.4) behind ``token_index``. Kernels of today (7.2) have no base any more:
  behind ``token_index``, in a table that is aligned to its 4 bytes, each offset counts from where it lies itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pvops_core.images.model import KernelImage
    from pvops_core.mapped import ByteString

TOKENS: Final = 256
_ZERO, _NOTHING = TOKENS, TOKENS + 1
BLOCK: Final = 256
"""Names between two markers."""

CANDIDATE_LIMIT: Final = 16
"""Places tried for each table; a kernel has one or two that look right at first sight."""

MARKERS_SPAN: Final = 8 << 20
"""How far before ``token_table`` the markers may begin: behind them are at most 3 bytes a symbol."""

WALK_LIMIT: Final = 4 << 20
"""Most names walked in search of the right ones; a kernel has some 150,000."""

TEXT_LIMIT: Final = 1 << 28
"""Most characters of all names together; a distribution kernel has 2 million."""

LONGEST_BLOCK: Final = BLOCK * 514
"""Most bytes between two markers: a name has at most KSYM_NAME_LEN, 512, characters, and two bytes of length."""

_DIGITS: Final = re.compile(b"".join(b"%d\0" % digit for digit in range(10)))


@attrs.frozen
class Tokens:
    """The decompression dictionary.

    Attributes:
        start: offset in the image of ``token_table``.
        end: offset of the first byte behind ``token_index``.
        strings: the 256 tokens.
    """

    start: int
    end: int
    strings: tuple[bytes, ...] = attrs.field(repr=False)


@attrs.frozen
class SymbolNameTable:
    """The compressed names.

    Attributes:
        count_at: offset in the image of ``num_syms``.
        count: its value.
        start: offset of the first name.
        starts: offset of every name's first token byte.
        sizes: token bytes of every name.
    """

    count_at: int
    count: int
    start: int
    starts: list[int] = attrs.field(repr=False)
    sizes: list[int] = attrs.field(repr=False)


class SymbolColumns(NamedTuple):
    """Symbols by column: a kernel has 100,000, and an object for each is what would take longest.

    Attributes:
        names: of each its name.
        addresses: of each its virtual address.
        exported: of each whether it is global.
    """

    names: Sequence[str]
    addresses: Sequence[int]
    exported: Sequence[bool]


def read_kallsyms(image: KernelImage) -> SymbolColumns | None:
    """Every symbol in kallsyms; None if the image has no such tables.

    Raises:
        ImageError: the names are there but no table of addresses fits them, or they are far too long.
    """
    for tokens in _find_tokens(image.data):
        names = _find_names(image.data, tokens)
        if names is None:
            continue
        addresses = _find_addresses(image, tokens, names)
        if addresses is None:
            message = f"{names.count} names, but no address table that fits them"
            raise image.error(message, field="kallsyms_names", offset=names.start)
        return _expand(image, tokens, names, addresses)
    return None


def _align(offset: int, to: int) -> int:
    return -(-offset // to) * to


def _find_tokens(data: ByteString) -> Iterator[Tokens]:
    # Digits stand for themselves, in ten strings in a row.
    for tried, hit in enumerate(_DIGITS.finditer(data)):
        if tried == CANDIDATE_LIMIT:
            return
        found = _tokens_at(data, hit.start())
        if found is not None:
            yield found


def _tokens_at(data: ByteString, zero: int) -> Tokens | None:
    """The dictionary whose string number 0x30 is at ``zero``.

    Where the first string begins cannot be seen (the byte before may be anything), but the index says how long it is.
    """
    second = zero
    # Backwards to string 0, one NUL each: its place is not known, but its number is.
    for _ in range(ord("0") - 1):
        second = data.rfind(b"\0", max(0, second - 512), second - 1) + 1
        if second <= 0:
            return None
    end = second
    relative = [0]
    for _ in range(TOKENS - 1):
        end = data.find(b"\0", end, end + 512) + 1
        if end <= 0:
            return None
        relative.append(end - second)
    # The index is aligned, to what depends on the year.
    for step in (2, 4, 8):
        at = _align(end, step)
        index = np.frombuffer(data[at : at + 2 * TOKENS], "<u2").tolist()
        # Offsets agree with the strings' lengths: that is no chance.
        if len(index) == TOKENS and index[0] == 0 and [value - index[1] for value in index[1:]] == relative[:-1]:
            start = second - index[1]
            if start < 0:
                return None
            strings = [data[start + value : data.find(b"\0", start + value)] for value in index]
            return Tokens(start, at + 2 * TOKENS, tuple(strings))
    return None


def _find_names(data: ByteString, tokens: Tokens) -> SymbolNameTable | None:
    walked = 0
    # Markers were longs on 64 bits until 4.20, and have been words since.
    for size in (4, 8):
        for at, length in _marker_runs(data, tokens, size):
            markers = np.frombuffer(data, f"<u{size}", length, at).tolist()
            for count_at, count in _counts_before(data, at, markers):
                # Bounded over all tries: each may walk a million names.
                walked += count
                if walked > WALK_LIMIT:
                    return None
                # num_syms was a long until 4.20, and what follows is aligned.
                for start in {count_at + 4, _align(count_at + 4, 8), count_at + 8}:
                    found = _walk(data, start, count, markers, at)
                    if found is not None:
                        return SymbolNameTable(count_at, count, start, *found)
    return None


def _marker_runs(data: ByteString, tokens: Tokens, size: int) -> list[tuple[int, int]]:
    """Offset and length of the rising runs that begin with 0 before the tokens, the longest first."""
    base = _align(max(0, tokens.start - MARKERS_SPAN), 8)
    words = np.frombuffer(data, f"<u{size}", max(0, tokens.start - base) // size, base).astype(np.int64)
    steps = np.diff(words)
    # A block has 256 names of at least a byte.
    rising = (steps >= BLOCK) & (steps < LONGEST_BLOCK)
    # A run ends before the first step that does not rise.
    falls = np.append(np.flatnonzero(~rising), len(steps))
    starts = np.flatnonzero((words[:-1] == 0) & rising)
    lengths = falls[np.searchsorted(falls, starts)] - starts + 1
    # The longest first: the true one is.
    longest = np.argsort(-lengths, kind="stable")[:CANDIDATE_LIMIT]
    return [(base + int(starts[run]) * size, int(lengths[run])) for run in longest]


def _counts_before(data: ByteString, markers_at: int, markers: list[int]) -> list[tuple[int, int]]:
    """Offset and value of the words that may be ``num_syms``: just before the names, and agreeing with the markers."""
    most = len(markers) * BLOCK
    # A chance word behind the markers may look like one more of them, so a block less is possible. No kernel has so few
    # names that one block holds them, and proof by one marker would be none.
    least = max(BLOCK, most - 2 * BLOCK)
    # Between the last marked name and the markers are less than a block of names and some padding. The words nearest to
    # the names come first: among the offsets in front of them many look like the count.
    base = _align(max(0, markers_at - markers[-1] - LONGEST_BLOCK), 4)
    end = markers_at - markers[-2]
    words = np.frombuffer(data, "<u4", max(0, end - base) // 4, base)
    hits = np.flatnonzero((words > least) & (words <= most))[: -CANDIDATE_LIMIT - 1 : -1].tolist()
    return [(base + hit * 4, int(words[hit])) for hit in hits]


def _walk(data: ByteString, start: int, count: int, markers: list[int], end: int) -> tuple[list[int], list[int]] | None:
    starts: list[int] = []
    sizes: list[int] = []
    position = start
    for number in range(count):
        # Every marker proves 256 names.
        if number % BLOCK == 0 and position - start != markers[number // BLOCK]:
            return None
        size = data[position]
        position += 1
        if size & 0x80:
            # Since 6.1 a long name has seven more bits in a second byte.
            size = size & 0x7F | data[position] << 7
            position += 1
        starts.append(position)
        sizes.append(size)
        position += size
        if position > end:
            return None
    # Padding to a long, no more.
    return (starts, sizes) if 0 <= end - position < 16 else None


def _find_addresses(image: KernelImage, tokens: Tokens, names: SymbolNameTable) -> list[int] | None:
    return next((found for found in _address_tables(image, tokens, names) if _plausible(image, found)), None)


def _address_tables(image: KernelImage, tokens: Tokens, names: SymbolNameTable) -> Iterator[list[int]]:
    """What the addresses would be in each of the orders that the tables have had."""
    data, count, pointer = image.data, names.count, image.pointer_size
    before = names.count_at - pointer
    for offsets_at, base_at in (
        (before - _align(4 * count, pointer), before),
        (_align(tokens.end, pointer), _align(tokens.end, pointer) + _align(4 * count, pointer)),
    ):
        if offsets_at >= 0 and base_at + pointer <= len(data):
            base = int.from_bytes(data[base_at : base_at + pointer], "little")
            yield _relative(np.frombuffer(data, "<i4", count, offsets_at), base, pointer)
    own = _align(tokens.end, 4)
    place = _address_of(image, own, 4 * count)
    if place is not None:
        distances = np.frombuffer(data, "<i4", count, own).astype(np.int64)
        here = np.uint64(place) + np.arange(0, 4 * count, 4, dtype=np.uint64)
        yield (here + distances.astype(np.uint64) & np.uint64((1 << 8 * pointer) - 1)).tolist()
    # Absolute addresses, to 4.5, are tried last: any bytes look like some.
    at = names.count_at - count * pointer
    if at >= 0:
        yield np.frombuffer(data, f"<u{pointer}", count, at).tolist()


def _address_of(image: KernelImage, offset: int, size: int) -> int | None:
    """The virtual address of bytes of the file; None where no one segment has all of them."""
    for segment in image.segments:
        start = offset - segment.offset
        if start >= 0 and start + size <= segment.file_size:
            return segment.address + start
    return None


def _relative(offsets: NDArray[np.int32], base: int, pointer: int) -> list[int]:
    """Addresses from offsets.

    With KALLSYMS_ABSOLUTE_PERCPU (x86_64 with SMP, to 6.14) a negative offset is counted down from base - 1 and any
    other is a value by itself, such as a per-CPU symbol's; without it all are unsigned and count up from the base.
    """
    mask = (1 << 8 * pointer) - 1
    if np.count_nonzero(offsets < 0) * 2 > len(offsets):
        # Absolute per-CPU symbols are positive, all others base - 1 - offset (kallsyms_sym_address()).
        return [value if value >= 0 else base - 1 - value & mask for value in offsets.tolist()]
    return [base + value & mask for value in offsets.astype(np.uint32).tolist()]


def _plausible(image: KernelImage, addresses: list[int]) -> bool:
    """Whether these can be a kernel's symbols: most in its segments, and those in ascending order."""
    spans = [(segment.address, segment.address + segment.memory_size) for segment in image.segments]
    array = np.array(addresses, np.uint64)
    inside = np.zeros(len(array), bool)
    for low, high in spans:
        inside |= (array >= np.uint64(low)) & (array <= np.uint64(high - 1))
    # Per-CPU symbols are small numbers; the kernel's lie in the upper part.
    kernel = array[inside & (array >= np.uint64(max(low for low, _ in spans) >> 1))]
    ascending = np.count_nonzero(kernel[1:] >= kernel[:-1])
    # scripts/kallsyms.c sorts by address.
    return len(kernel) * 2 > len(array) and ascending + 1 == len(kernel)


def _expand(image: KernelImage, tokens: Tokens, names: SymbolNameTable, addresses: list[int]) -> SymbolColumns:
    """Decode all names; the first character of each is its type letter, upper case for a global symbol.

    All are put together at once, with a zero byte, which is in no token, in front of each.
    """
    starts, sizes = np.array(names.starts), np.array(names.sizes)
    # One pass over all codes: a loop over names takes a second.
    first = names.starts[0] - 1
    codes = np.frombuffer(image.data[first : int((starts + sizes)[-1])], np.uint8).astype(np.uint16)
    gaps = starts[1:] - (starts + sizes)[:-1]
    codes[(starts[1:] - 2 - first)[gaps > 1]] = _NOTHING  # long names have two bytes of length
    codes[starts - 1 - first] = _ZERO
    strings = (*tokens.strings, b"\0", b"")
    lengths = np.array([len(string) for string in strings], np.int32)
    # Asked before the text is made.
    if (total := int(lengths[codes].sum(dtype=np.int64))) > TEXT_LIMIT:
        message = f"{total} characters; the most read is {TEXT_LIMIT}"
        raise image.error(message, field="kallsyms_names", offset=names.start)
    text = _concatenated(codes, strings, lengths).decode("ascii", "replace")
    found = text.split("\0")[1:]
    letters = map(itemgetter(slice(1)), found)
    return SymbolColumns(list(map(itemgetter(slice(1, None)), found)), addresses, list(map(str.isupper, letters)))


def _concatenated(codes: NDArray[np.uint16], strings: Sequence[bytes], lengths: NDArray[np.int32]) -> bytes:
    """The strings with these numbers, one behind the other."""
    places = np.cumsum(lengths, dtype=np.int32) - lengths
    each = lengths[codes]
    ends = np.cumsum(each, dtype=np.int32)
    # Of each character: how far its string lies behind where it is to go, and where that is.
    sources = np.repeat(places[codes] - (ends - each), each)
    sources += np.arange(len(sources), dtype=np.int32)
    characters = np.frombuffer(b"".join(strings), np.uint8)
    return bytes(characters[sources])

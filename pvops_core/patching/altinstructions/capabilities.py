"""What a kernel says of its CPU: the features that decide about alternatives, by number and by name.

``struct cpuinfo_x86`` (arch/x86/include/asm/processor.h) has them in ``x86_capability``: NCAPINTS words of features,
then NBUGINTS words of bugs. ``x86_cap_flags`` and ``x86_bug_flags`` are the names of /proc/cpuinfo; many features have
none.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_core.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pvops_core.images import KernelImage

STRUCTURE: Final = "cpuinfo_x86"
MEMBER: Final = "x86_capability"
NAMES: Final = "x86_cap_flags"
BUG_NAMES: Final = "x86_bug_flags"

MOST_WORDS: Final = 64
"""More words than any kernel has: 24 in 7.2."""

LONGEST_NAME: Final = 32

USUAL_WORDS: Final = (22, 2)
"""NCAPINTS and NBUGINTS of 6.12 and 7.2."""

HIDDEN: Final = {
    3 * 32 + 18: "lfence_rdtsc",
    3 * 32 + 21: "always",
    8 * 32 + 16: "xenpv",
    8 * 32 + 20: "pvunlock",
    8 * 32 + 21: "vcpupreempt",
    11 * 32 + 12: "retpoline",
    11 * 32 + 13: "retpoline_lfence",
    11 * 32 + 14: "rethunk",
    11 * 32 + 15: "unret",
    11 * 32 + 19: "call_depth",
    11 * 32 + 24: "srso",
    11 * 32 + 25: "srso_alias",
}
"""Features without a name in /proc/cpuinfo (arch/x86/include/asm/cpufeatures.h; the same in 6.1, 6.12 and 7.2)."""

RETPOLINE: Final = 11 * 32 + 12
RETPOLINE_LFENCE: Final = 11 * 32 + 13
RETHUNK: Final = 11 * 32 + 14
UNRET: Final = 11 * 32 + 15
CALL_DEPTH: Final = 11 * 32 + 19
SRSO: Final = 11 * 32 + 24
SRSO_ALIAS: Final = 11 * 32 + 25


def capability_words(image: KernelImage) -> tuple[int, int] | None:
    """Where ``x86_capability`` is in ``struct cpuinfo_x86``, in bytes, and its words; None without type information."""
    types = image.types
    if types is None:
        return None
    for member in types.leaves(STRUCTURE) or ():
        # Words of 32 bits, at a whole one: a member of another shape is something else of that name.
        if member.path == MEMBER and not member.offset % 32:
            count = types.elements(member.type)
            # A count beyond any kernel's is a type that was read wrongly.
            return (member.offset // 8, count) if 0 < count <= MOST_WORDS else None
    return None


def read_capabilities(image: KernelImage, boot_cpu_data: bytes) -> frozenset[int]:
    """The features that a running kernel has found.

    Args:
        image: the kernel.
        boot_cpu_data: the beginning of its variable of that name, as it stood when the kernel patched itself.

    Raises:
        ImageError: the kernel's type information does not say where they are, or there are not enough bytes.
    """
    place = capability_words(image)
    if place is None:
        message = f"does not say where the features are in struct {STRUCTURE}"
        raise image.error(message, field=".BTF")
    offset, count = place
    if len(boot_cpu_data) < offset + 4 * count:
        message = f"has {len(boot_cpu_data)} bytes; the features end at {offset + 4 * count}"
        raise image.error(message, field="boot_cpu_data")
    words = struct.unpack_from(f"<{count}I", boot_cpu_data, offset)
    return frozenset(32 * index + bit for index, word in enumerate(words) for bit in range(32) if word >> bit & 1)


def capability_counts(image: KernelImage) -> tuple[int, int]:
    """NCAPINTS and NBUGINTS: words of features, and of bugs behind them; 22 and 2 where the kernel does not say."""
    place, symbols, size = capability_words(image), image.symbols, 32 * image.pointer_size
    if place is None or not {NAMES, BUG_NAMES} <= symbols.keys():
        return USUAL_WORDS
    # The tables of names lie one behind the other; the bugs' is the first, and its length says how many are theirs.
    bugs = (symbols[NAMES] - symbols[BUG_NAMES]) // size
    return (place[1] - bugs, bugs) if 0 < bugs < place[1] else USUAL_WORDS


def feature_names(image: KernelImage) -> Mapping[int, str]:
    """Names of features by number: those of /proc/cpuinfo, ``bug:`` before a bug's, and some that have none there."""
    symbols, found = image.symbols, dict(HIDDEN)
    if not {NAMES, BUG_NAMES} <= symbols.keys():
        return found
    capabilities, bugs = capability_counts(image)
    for first, table, prefix, count in ((0, NAMES, "", capabilities), (capabilities, BUG_NAMES, "bug:", bugs)):
        for number, name in _names(image, symbols[table], 32 * count):
            found[32 * first + number] = prefix + name
    return found


def _names(image: KernelImage, table: int, count: int) -> Iterable[tuple[int, str]]:
    # Tables are of pointers to text; a kernel without names for its features has none.
    try:
        pointers = image.pointers(table, count)
    except ImageError:
        return
    for number, pointer in enumerate(pointers):
        try:
            text = image.read(pointer, LONGEST_NAME).split(b"\0")[0] if pointer else b""
        except ImageError:
            continue
        # /proc/cpuinfo's names are plain words; anything else is not a name.
        if text.isascii() and text.decode().isprintable() and text:
            yield number, text.decode()

"""Lock prefixes, which a kernel for many CPUs takes out of its text when there is one.

``.smp_locks`` says where they are: pointers to 2.6.34, then words of 32 bits relative to themselves. On one CPU
``alternatives_smp_unlock`` of arch/x86/kernel/alternative.c puts a nop there (to 2.6.27) or a ds prefix; a CPU that
comes later gets the lock back. Only prefixes between ``_text`` and ``_etext`` are touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.errors import ImageError
from pvops_core.patching.code.disasm import listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pvops_core.images import KernelImage
    from pvops_core.patching.altinstructions.alternatives import AltGroup

SECTION: Final = ".smp_locks"
LOCK, DS, NOP = 0xF0, 0x3E, 0x90
KEEPS: Final = "noreplace-smp"
"""On its command line a kernel is told by this to leave them."""

_RELATIVE: Final = 4
_MOST_CODE: Final = 4096
_WRITERS: Final = (
    "alternatives_smp_unlock",
    "alternatives_smp_switch",
    "alternatives_smp_module_add",
    "alternative_instructions",
)
"""The function, and those that a compiler puts it into."""


@attrs.frozen
class LockPrefixes:
    """The lock prefixes of a kernel.

    Attributes:
        addresses: where they are, those in places with alternatives left out.
        alone: the byte that is there on one CPU.
    """

    addresses: tuple[int, ...]
    alone: int

    def byte(self, cpus: int) -> int:
        """What is there when all CPUs have been started."""
        return self.alone if cpus == 1 else LOCK


def read_locks(image: KernelImage, groups: Sequence[AltGroup]) -> LockPrefixes | None:
    """The lock prefixes of a kernel; None for one that does not say where they are.

    Args:
        image: the kernel.
        groups: all its places with alternatives, where the kernel writes later than it takes locks out.

    Raises:
        ImageError: the section is damaged: it leads to what is no prefix.
    """
    section = image.section(SECTION)
    # Without both ends of text the kernel's own bounds are not known.
    if section is None or not section.size or not {"_text", "_etext"} <= image.symbols.keys():
        return None
    data = image.read(section.address, section.size)
    # Pointers are tried first: a table of pointers read as relative words would lead to anything.
    found, relative = _pointers(image, data), False
    if found is None:
        found, relative = _offsets(image, data, section.address), True
    if found is None:
        raise image.error("leads to bytes that are no lock prefixes", field=SECTION)
    # ``alternatives_smp_unlock`` skips what lies outside of these (init text is gone by then).
    found = np.unique(found[(found >= image.symbols["_text"]) & (found < image.symbols["_etext"])])
    # Relative words came with ds prefixes (2.6.35); before, the writer's own code says which it is.
    return LockPrefixes(tuple(found[~_covered(groups, found)].tolist()), DS if relative or _writes_ds(image) else NOP)


def _pointers(image: KernelImage, data: bytes) -> NDArray[np.uint64] | None:
    """Those of a table of pointers, which all lead to a lock; None if it is no such table."""
    if len(data) % image.pointer_size:
        return None
    found = np.frombuffer(data, f"<u{image.pointer_size}").astype(np.uint64)
    # Zeros pad the table.
    found = found[found != 0]
    there = _prefixes(image, found)
    return None if there is None or not there.all() else found


def _offsets(image: KernelImage, data: bytes, start: int) -> NDArray[np.uint64] | None:
    """Those of a table of relative words, some of which lead to another prefix before a lock, and are left alone."""
    if len(data) % _RELATIVE:
        return None
    words = np.frombuffer(data, "<i4").astype(np.int64)
    # Sums wrap as the kernel's do.
    found = np.uint64(start) + np.arange(0, len(data), _RELATIVE, dtype=np.uint64) + words.astype(np.uint64)
    found = found[words != 0] & np.uint64((1 << 8 * image.pointer_size) - 1)
    there = _prefixes(image, found)
    return None if there is None or not there.any() else found[there]


def _prefixes(image: KernelImage, addresses: NDArray[np.uint64]) -> NDArray[np.bool_] | None:
    """Whether there is a lock, or what stands for one, at each address; None if one is not in the file."""
    try:
        # What stands for one: a plan is also made of text that was patched already.
        return np.isin(np.frombuffer(image.data, np.uint8)[image.offsets_of(addresses)], (LOCK, DS))
    except ImageError:
        return None


def _covered(groups: Sequence[AltGroup], addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each address is in one of some places, which share no byte."""
    places = sorted((group.address, group.length) for group in groups)
    starts, lengths = np.array(places, np.uint64).reshape(-1, 2).T
    # The place before it is the only one that can hold it.
    index = np.searchsorted(starts, addresses, side="right") - 1
    covered = index >= 0
    covered[covered] = addresses[covered] - starts[index[covered]] < lengths[index[covered]]
    return covered


def _writes_ds(image: KernelImage) -> bool:
    """Whether the code that takes locks out has a ds prefix to put there."""
    for name, start in image.symbols.items():
        if name.partition(".")[0] in _WRITERS:
            sizes = range(1, _MOST_CODE)
            size = next((size for size in sizes if (image.symbol_at(start + size) or ("", 0))[1] == 0), _MOST_CODE)
            try:
                code = listing(image.read(start, size), start, 8 * image.pointer_size)
            except ImageError:
                continue
            if any(text.endswith(f", {DS:#x}") for _address, _code, text in code):
                return True
    return False

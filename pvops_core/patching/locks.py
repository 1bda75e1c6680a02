"""Lock prefixes, which a kernel for many CPUs takes out of its text when there is one.

``.smp_locks`` says where they are: pointers to 2.6.34, then words of 32 bits relative to themselves. On one CPU
``alternatives_smp_unlock`` of arch/x86/kernel/alternative.c puts a nop there (to 2.6.27) or a ds prefix; a CPU that
comes later gets the lock back. Only prefixes between ``_text`` and ``_etext`` are touched.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import ImageError
from pvops_core.patching.altinstructions.alternatives import grouped, read_alternatives
from pvops_core.patching.code.disasm import listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pvops_core.images import KernelImage

SECTION: Final = ".smp_locks"
LOCK, DS, NOP = 0xF0, 0x3E, 0x90
KEEPS: Final = "noreplace-smp"
"""On its command line a kernel is told by this to leave them."""

_RELATIVE: Final = 4
_MOST_CODE: Final = 4096
_MOST_PLACE: Final = 256
"""A length of an alternative is a byte."""
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


def read_locks(image: KernelImage) -> LockPrefixes | None:
    """The lock prefixes of a kernel; None for one that does not say where they are.

    Raises:
        ImageError: the section is damaged: it leads to what is no prefix.
    """
    section = image.section(SECTION)
    if section is None or not section.size or not {"_text", "_etext"} <= image.symbols.keys():
        return None
    data = image.read(section.address, section.size)
    bounds = image.symbols["_text"], image.symbols["_etext"]
    found, relative = _pointers(image, data, bounds), False
    if found is None:
        found, relative = _offsets(image, data, section.address, bounds), True
    if found is None:
        raise image.error("leads to bytes that are no lock prefixes", field=SECTION)
    places = sorted((group.address, group.length) for group in grouped(read_alternatives(image)))
    addresses = tuple(address for address in sorted(set(found)) if not _covered(places, address))
    return LockPrefixes(addresses, DS if relative or _writes_ds(image) else NOP)


def _pointers(image: KernelImage, data: bytes, bounds: tuple[int, int]) -> list[int] | None:
    """Those of a table of pointers, which all lead to a lock; None if it is no such table."""
    form = "<I" if image.pointer_size == 4 else "<Q"
    if len(data) % image.pointer_size:
        return None
    found = _prefixes(image, (each for (each,) in struct.iter_unpack(form, data) if each))
    return None if found is None or not all(found.values()) else _inside(found, bounds)


def _offsets(image: KernelImage, data: bytes, start: int, bounds: tuple[int, int]) -> list[int] | None:
    """Those of a table of relative words, some of which lead to another prefix before a lock, and are left alone."""
    if len(data) % _RELATIVE:
        return None
    mask = (1 << 8 * image.pointer_size) - 1
    words = enumerate(each for (each,) in struct.iter_unpack("<i", data))
    found = _prefixes(image, (start + _RELATIVE * number + each & mask for number, each in words if each))
    return None if found is None or not any(found.values()) else _inside(found, bounds)


def _prefixes(image: KernelImage, addresses: Iterable[int]) -> dict[int, bool] | None:
    """Whether there is a lock, or what stands for one, at each address; None if one is not in the image."""
    try:
        return {address: image.read(address, 1)[0] in {LOCK, DS} for address in addresses}
    except ImageError:
        return None


def _inside(found: dict[int, bool], bounds: tuple[int, int]) -> list[int]:
    return [address for address, there in found.items() if there and bounds[0] <= address < bounds[1]]


def _covered(places: Sequence[tuple[int, int]], address: int) -> bool:
    """Whether an address is in one of some places, in order of address."""
    index = bisect_right(places, (address, _MOST_PLACE)) - 1
    return index >= 0 and address < places[index][0] + places[index][1]


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

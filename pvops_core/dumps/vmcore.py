"""The file of a dump: an ELF core of the guest's physical memory, as ``/proc/vmcore`` has it after a crash.

Pages that are zero are holes, so that a file takes no more room than memory that is in use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pvops_core.beside import write_at
from pvops_core.dumps.notes import BITS, HEADER
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

_EHDR, _PHDR = HEADER["Elf64_Ehdr"], HEADER["Elf64_Phdr"]
_IDENT: Final = b"\x7fELF\2\1\1"  # 64 bits, little-endian, version 1
_CORE, _X86_64, _CURRENT = 4, 62, 1
_LOAD, _NOTE = 1, 4
_ALL_RIGHTS: Final = 7
MOST: Final = 0xFFF0
"""Stretches that a file has headers for; their number has 16 bits."""


class Stretch(NamedTuple):
    """A piece of the guest's memory that is in the file.

    Attributes:
        address: guest-virtual, where the kernel sees it.
        physical: guest-physical.
        size: bytes.
    """

    address: int
    physical: int
    size: int


Piece = tuple[int, "npt.NDArray[np.uint8]"]
"""Guest-physical address, a page's, and bytes from there on, whole pages."""


def write(file: int, notes: bytes, stretches: Sequence[Stretch], pieces: Iterable[Piece]) -> None:
    """Write the file, which is empty; OSError where it cannot be.

    Args:
        file: its descriptor.
        notes: of the kernel, one after the other.
        stretches: what the file is to show.
        pieces: what of memory may be other than zero.
    """
    if len(stretches) > MOST:
        lowest, highest = min(stretches, key=_place), max(stretches, key=_place)
        size = highest.physical + highest.size - lowest.physical
        stretches = [Stretch(lowest.address, lowest.physical, size)]
    table = _EHDR.size(BITS) + _PHDR.size(BITS) * (1 + len(stretches))
    # A physical address has one place in the file, which stretches that overlap share.
    begin = -(-(table + len(notes)) // PAGE) * PAGE
    os.ftruncate(file, begin + max((each.physical + each.size for each in stretches), default=0))
    ident = _EHDR.packed(
        BITS,
        {
            "e_ident": _IDENT,
            "e_type": _CORE,
            "e_machine": _X86_64,
            "e_version": _CURRENT,
            "e_phoff": _EHDR.size(BITS),
            "e_ehsize": _EHDR.size(BITS),
            "e_phentsize": _PHDR.size(BITS),
            "e_phnum": 1 + len(stretches),
        },
    )
    headers = [{"p_type": _NOTE, "p_offset": table, "p_filesz": len(notes), "p_memsz": len(notes)}]
    headers += [
        {
            "p_type": _LOAD,
            "p_flags": _ALL_RIGHTS,
            "p_offset": begin + each.physical,
            "p_vaddr": each.address,
            "p_paddr": each.physical,
            "p_filesz": each.size,
            "p_memsz": each.size,
        }
        for each in stretches
    ]
    write_at(file, b"".join((ident, *(_PHDR.packed(BITS, header) for header in headers), notes)), 0)
    for physical, data in pieces:
        for first, last in used(data):
            write_at(file, data[first:last].data, begin + physical + first)


def _place(stretch: Stretch) -> int:
    return stretch.physical


def used(data: npt.NDArray[np.uint8]) -> Iterable[tuple[int, int]]:
    """Begin and end of each run of pages that are not zero, in bytes."""
    held = data.view(np.uint64).reshape(-1, PAGE // 8).any(axis=1)
    borders = np.flatnonzero(np.diff(held, prepend=False, append=False)) * PAGE
    yield from ((int(first), int(last)) for first, last in borders.reshape(-1, 2))

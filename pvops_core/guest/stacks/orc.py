"""ORC, the tables by which x86_64 kernels find a caller's frame: where their stack ends, at any place of their text.

Two sections that the linker leaves in the image: ``.orc_unwind_ip`` has the places, each a signed 32-bit distance from
its own address; ``.orc_unwind`` an entry of six bytes for each. Source: arch/x86/include/asm/orc_types.h. What the type
field means changed in 6.3 and in 6.4; images since then have a section ``.orc_header``. Registers were numbered anew
before 7.2, and nothing but a hash of that header's text says so: but in any kernel most stacks are reckoned from the
stack pointer.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from pvops_core.images import KernelImage

_ENTRY: Final = np.dtype([("sp_offset", "<i2"), ("bp_offset", "<i2"), ("bits", "<u2")])


class Base(enum.Enum):
    """What a stack or frame pointer is reckoned from (ORC_REG_*)."""

    UNDEFINED = "it is as it was"
    PREV_SP = "where the caller's stack ends"
    AX = "rax"
    DX = "rdx"
    DI = "rdi"
    BP = "rbp"
    SP = "rsp"
    R10 = "r10"
    R13 = "r13"
    BP_INDIRECT = "what is stored at rbp"
    SP_INDIRECT = "what is stored at rsp"


NUMBERED: Final = (
    (
        *(Base.UNDEFINED, Base.PREV_SP, Base.DX, Base.DI, Base.BP, Base.SP, Base.R10, Base.R13),
        *(Base.BP_INDIRECT, Base.SP_INDIRECT),
    ),
    (
        *(Base.UNDEFINED, Base.AX, Base.DX, Base.SP, Base.BP, Base.DI, Base.R10, Base.R13),
        *(Base.PREV_SP, Base.SP_INDIRECT, Base.BP_INDIRECT),
    ),
)
"""The bases by number, as they were and as they are."""


class OrcKind(enum.Enum):
    """What lies where the caller's stack ends."""

    CALL = "a return address"
    REGS = "all registers of what was interrupted"
    PARTIAL = "the five words that iret takes"
    END = "nothing: the first frame"
    UNKNOWN = "nobody knows"


_KINDS: Final = (OrcKind.CALL, OrcKind.REGS, OrcKind.PARTIAL, OrcKind.UNKNOWN)
_KINDS_WITH_HEADER: Final = (OrcKind.UNKNOWN, OrcKind.END, OrcKind.CALL, OrcKind.REGS, OrcKind.PARTIAL)
_SIGNAL_BIT: Final = 1 << 11
_END_BIT: Final = 1 << 10
_LATE_END_BIT: Final = 1 << 11
"""In 6.3, whose bit for signals came before it (ffb1b4a41016). No other kernel without ``.orc_header`` has this bit."""
_MASK: Final = (1 << 64) - 1


class OrcEntry(NamedTuple):
    """How to find the caller's frame from some places on.

    Where ``interrupted``, that frame did not call: it goes on at an instruction that has not been executed.
    """

    sp_base: Base
    sp_offset: int
    bp_base: Base
    bp_offset: int
    kind: OrcKind
    interrupted: bool


class Orc:
    """The tables of one image.

    Args:
        places: guest-virtual addresses from which on the entry of the same index holds, ascending.
        entries: the entries, as in the section.
        header: the image has ``.orc_header``.
    """

    def __init__(self, places: NDArray[np.uint64], entries: NDArray[Any], *, header: bool) -> None:
        self._places = places
        self._entries = entries
        self._header = header
        self._bases = _numbering(entries)
        self._late = not header and bool((entries["bits"] & _LATE_END_BIT).any())

    def find(self, address: int) -> OrcEntry | None:
        """The entry for a place; None where the tables know of none."""
        # The last entry at or before the place is in force (__orc_find()).
        row = int(np.searchsorted(self._places, np.uint64(address & _MASK), side="right")) - 1
        return self._entry(row) if row >= 0 else None

    def changes(self) -> Iterator[tuple[int, OrcEntry | None]]:
        """Each place from which on another entry holds than before, and that; ascending."""
        kinds, which = np.unique(self._entries, return_inverse=True)
        first = {int(number): row for row, number in reversed(list(enumerate(which.tolist())))}
        entries = [self._entry(first[number]) for number in range(len(kinds))]
        rows = np.flatnonzero(np.diff(which, prepend=-1))
        for place, number in zip(self._places[rows].tolist(), which[rows].tolist(), strict=True):
            yield place, entries[number]

    def _entry(self, row: int) -> OrcEntry | None:
        sp_offset, bp_offset, bits = self._entries[row].tolist()
        kind = self._kind(bits)
        sp_number, bp_number = bits & 0xF, bits >> 4 & 0xF
        if kind is OrcKind.UNKNOWN or max(sp_number, bp_number) >= len(self._bases):
            # Numbers that no list has: a numbering of tomorrow.
            return None
        sp_base, bp_base = self._bases[sp_number], self._bases[bp_number]
        # sp_reg UNDEFINED outside the end means that the place has no frame (unwind_next_frame()).
        if sp_base is Base.UNDEFINED and kind is not OrcKind.END:
            return None
        return OrcEntry(sp_base, sp_offset, bp_base, bp_offset, kind, self._interrupted(kind, bits))

    def _interrupted(self, kind: OrcKind, bits: int) -> bool:
        """Said for each place since 6.4; of 6.3 and before it is so wherever registers were saved."""
        return bool(bits & _SIGNAL_BIT) if self._header else kind in {OrcKind.REGS, OrcKind.PARTIAL}

    def _kind(self, bits: int) -> OrcKind:
        if self._header:
            number = bits >> 8 & 7
            return _KINDS_WITH_HEADER[number] if number < len(_KINDS_WITH_HEADER) else OrcKind.UNKNOWN
        end = _LATE_END_BIT if self._late else _END_BIT
        return OrcKind.END if bits & end else _KINDS[bits >> 8 & 3]


def _numbering(entries: NDArray[Any]) -> tuple[Base, ...]:
    """The bases by number; none where that cannot be told, so that nothing is found."""
    often = np.bincount(entries["bits"] & 0xF, minlength=16)
    # Number 0 is UNDEFINED in both, so it says nothing.
    most = int(np.argmax(often[1:])) + 1
    return next((each for each in NUMBERED if each[most : most + 1] == (Base.SP,)), ())


def read_orc(image: KernelImage) -> Orc | None:
    """The tables of an image; None for one that has none, or a pair that does not fit together."""
    places, entries = image.section(".orc_unwind_ip"), image.section(".orc_unwind")
    if places is None or entries is None or image.pointer_size != 8:
        return None
    # Both tables are made together, so different lengths mean damage.
    words, rows = image.section_bytes(".orc_unwind_ip") or b"", image.section_bytes(".orc_unwind") or b""
    if not rows or len(words) % 4 or len(rows) % _ENTRY.itemsize or len(words) // 4 != len(rows) // _ENTRY.itemsize:
        return None
    distances, found = np.frombuffer(words, dtype="<i4"), np.frombuffer(rows, dtype=_ENTRY)
    # Each distance counts from its own place.
    here = np.uint64(places.address) + np.arange(len(distances), dtype=np.uint64) * np.uint64(4)
    addresses = here + distances.astype(np.int64).astype(np.uint64)
    order = np.argsort(addresses, kind="stable")  # kernels before 5.6 sort them at boot
    return Orc(addresses[order], found[order], header=image.section(".orc_header") is not None)

"""A guest's own image as it is in the machine's memory now, by the guest's virtual addresses."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

    from pvops_core.guest.protocol import Guest
    from pvops_core.machine import Machine

_HASHED: Final = 1 << 18
"""Bytes of text that are hashed at once: some copies of all of a kernel's made the peak of a boot's memory."""


class GuestText:
    """Where a guest's image lies in memory: its segments, by the physical addresses that they are linked for.

    What a kernel has given back (init text) may have become something else since.

    Args:
        machine: the machine.
        guest: the guest.
        in_machine: gives the machine-physical address of a guest-physical one.
    """

    def __init__(self, machine: Machine, guest: Guest, in_machine: Callable[[int], int]) -> None:
        self._machine = machine
        self._in_machine = in_machine
        self._guest = guest
        self._areas: list[tuple[Container[int], Callable[[int], int]]] = []

    def add(self, area: Container[int], machine_address: Callable[[int], int]) -> None:
        """Count pages beside the image as text too: those that payloads of live patches get.

        Args:
            area: their guest-virtual addresses.
            machine_address: gives the machine-physical address of one of them.
        """
        self._areas.append((area, machine_address))

    def machine_address(self, va: int) -> int:
        """Machine-physical address of a byte of the image.

        Raises:
            PvopsError: it is none of the image's.
        """
        # Pages beside the image first: a payload's may be linked where the image has nothing.
        for area, machine_address in self._areas:
            if va in area:
                return machine_address(va)
        return self._in_machine(self._guest.physical(va))

    def read(self, va: int, length: int) -> bytes:
        """Bytes of the image, as they are now; PvopsError as for :meth:`machine_address`."""
        return b"".join(self._machine.memory.read(start, size) for start, size in self.spans(va, length))

    def spans(self, va: int, length: int) -> Iterator[tuple[int, int]]:
        """Machine-physical address and length of a range's pieces, page by page; errors as for :meth:`read`."""
        return ((self.machine_address(start), end - start) for start, end in _pages(va, length))

    def pointers(self, va: int, count: int, size: int) -> tuple[int, ...]:
        """Little-endian words of ``size`` bytes; errors as for :meth:`read`."""
        data = self.read(va, count * size)
        return tuple(int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size))

    def sha256(self, instead: Mapping[int, bytes] | None = None) -> str:
        """Hash of the guest's text as it is now; ImageError if the image does not say where that is.

        Args:
            instead: bytes by address that are hashed in place of what is there.
        """
        start, end = self._guest.text_range
        # Only whole pieces: what lies at the text's border is not its own.
        pieces = [(at, code) for at, code in (instead or {}).items() if start <= at and at + len(code) <= end]
        digest = hashlib.sha256()
        for first in range(start, end, _HASHED):
            last = min(first + _HASHED, end)
            text = bytearray(self.read(first, last - first))
            for at, code in pieces:
                begin, stop = max(at, first), min(at + len(code), last)
                if begin < stop:
                    text[begin - first : stop - first] = code[begin - at : stop - at]
            digest.update(text)
        return digest.hexdigest()


def _pages(va: int, length: int) -> Iterator[tuple[int, int]]:
    """Cut [va, va + length) at page borders."""
    end = va + length
    while va < end:
        stop = min(end, (va | PAGE - 1) + 1)
        yield va, stop
        va = stop

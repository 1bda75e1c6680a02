"""What the guest prints, by each generation's means; the launcher's side of NOTIFY and SEND_DMA.

Source: Documentation/lguest/lguest.c and include/linux/lguest_launcher.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from pvops_lguest.host.abi import IRQS
from pvops_lguest.host.kill import GuestKilledError
from pvops_lguest.host.memory import PAGE_SIZE

if TYPE_CHECKING:
    from pvops_lguest.host.memory import GuestMemory

CONSOLE_KEY = 0
"""LGUEST_CONSOLE_DMA_KEY."""

DMA_SECTIONS = 16
_DMA = struct.Struct(f"<I{DMA_SECTIONS}I{DMA_SECTIONS}H")

MAX_DMA = 10
"""DMA arrays that a guest may have bound at a time (LGUEST_MAX_DMA)."""


class Console:
    """Text of the guest, appended to ``output`` as it comes."""

    def __init__(self, guest: GuestMemory, output: bytearray) -> None:
        self._guest = guest
        self._output = output

    def early(self, pa: int) -> None:
        """NOTIFY of an address in memory: a NUL-terminated string there (2.6.24 and later, early boot).

        Raises:
            GuestKilledError: no device has this address and no string ends there.
        """
        if not 0 <= pa < self._guest.limit:
            raise GuestKilledError(f"bad notify address {pa:#x}")
        while True:
            chunk = self._guest.read(pa, min(PAGE_SIZE - pa % PAGE_SIZE, self._guest.limit - pa))
            text, end, _ = chunk.partition(b"\0")
            self._output += text
            if end:
                return
            pa += len(chunk)
            if pa >= self._guest.limit:
                raise GuestKilledError("notify string has no end")

    def send_dma(self, key: int, pa: int) -> None:
        """SEND_DMA: ``key`` says for whom, guest-physical ``pa`` is a struct lguest_dma (2.6.23 only).

        The console's key is 0; a key of no device is ignored, as the launcher does. The bytes taken are
        written to the structure's used_len.

        Raises:
            GuestKilledError: the structure or a section of it is not in the guest's memory, or a section
                crosses a page.
        """
        fields = _DMA.unpack(self._guest.read(pa, _DMA.size))
        if key != CONSOLE_KEY:
            return
        sections = list(zip(fields[1 : 1 + DMA_SECTIONS], fields[1 + DMA_SECTIONS :], strict=True))
        used = 0
        for address, length in sections:
            if not length:
                break
            if address % PAGE_SIZE + length > PAGE_SIZE or address + length > self._guest.limit:
                raise GuestKilledError(f"bad DMA entry: {length}@{address:#x}")
            self._output += self._guest.read(address, length)
            used += length
        self._guest.set_u32(pa, used)


@attrs.frozen
class DmaArray:
    """An array of ``count`` struct lguest_dma at guest-physical ``pa``, filled for ``key``, announced by ``irq``."""

    key: int
    pa: int
    count: int
    irq: int


class DmaBindings:
    """Buffers that the guest offers for input (BIND_DMA, 2.6.23 only)."""

    def __init__(self, guest: GuestMemory) -> None:
        self._guest = guest
        self._arrays: list[DmaArray] = []

    def bind(self, key: int, pa: int, count_and_irq: int) -> int:
        """BIND_DMA: register an array, or with interrupt 0 take it back.

        Args:
            key: the device's guest-physical address.
            pa: guest-physical address of the array.
            count_and_irq: number of its elements << 8 | interrupt.

        Returns:
            1 on success, 0 when refused: no such interrupt, none free, or nothing to take back.

        Raises:
            GuestKilledError: ``key`` is unaligned or not an address of the guest's.
        """
        count, irq = count_and_irq >> 8 & 0xFFFF, count_and_irq & 0xFF
        if irq >= IRQS:
            return 0
        if key % 4 or key >= self._guest.limit:
            raise GuestKilledError(f"bad dma key {key:#x}")
        if irq == 0:
            kept = [array for array in self._arrays if (array.key, array.pa) != (key, pa)]
            found = len(kept) != len(self._arrays)
            self._arrays = kept
            return int(found)
        if len(self._arrays) >= MAX_DMA:
            return 0
        self._arrays.append(DmaArray(key, pa, count, irq))
        return 1

    def save(self) -> tuple[tuple[int, int, int, int], ...]:
        """State for a snapshot."""
        return tuple((each.key, each.pa, each.count, each.irq) for each in self._arrays)

    def load(self, state: tuple[tuple[int, int, int, int], ...]) -> None:
        """Go back to what :meth:`save` gave."""
        self._arrays = [DmaArray(*each) for each in state]

"""What the guest prints early, or by DMA, and the buffers that it binds for what is sent to it.

Source: Documentation/lguest/lguest.c and include/linux/lguest_launcher.h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from pvops_lguest.host.abi import IRQS
from pvops_lguest.host.kill import GuestKilledError
from pvops_lguest.host.memory import PAGE_SIZE
from pvops_lguest.public import BITS, LAUNCHER

if TYPE_CHECKING:
    from pvops_lguest.host.memory import GuestMemory

CONSOLE_KEY = 0
"""LGUEST_CONSOLE_DMA_KEY."""

DMA_SECTIONS = 16
_DMA = LAUNCHER["lguest_dma"].whole("used_len", "addr", "len")

MAX_DMA = 10
"""DMA arrays that a guest may have bound at a time (LGUEST_MAX_DMA)."""


class Console:
    """Text of the guest, given to ``emit`` as it comes (handle_console_output()).

    Attributes:
        top: where the guest's memory proper ends; above it are devices.
    """

    def __init__(self, guest: GuestMemory, emit: Callable[[bytes], None], top: int) -> None:
        self._guest = guest
        self._emit = emit
        self.top = top

    def early(self, pa: int) -> None:
        """NOTIFY of an address in memory: a string there, to its NUL or the end of memory (from 2.6.24, early boot).

        Raises:
            GuestKilledError: no device has this address.
        """
        # Above the top lie the devices' pages, whose NOTIFY the launcher has looked for before it comes here.
        if not 0 <= pa < self.top:
            raise GuestKilledError(f"Bad NOTIFY {pa:#x}")
        end = False
        while not end and pa < self.top:
            # A page at a time: the length of the string is not told, and most are short.
            chunk = self._guest.read(pa, min(PAGE_SIZE - pa % PAGE_SIZE, self.top - pa))
            text, nul, _ = chunk.partition(b"\0")
            self._emit(text)
            end, pa = bool(nul), pa + len(chunk)

    def send_dma(self, key: int, pa: int) -> None:
        """SEND_DMA: ``key`` says for whom, guest-physical ``pa`` is a struct lguest_dma (2.6.23 only).

        The console's key is 0; a key of no device is ignored, as the launcher does. The bytes taken are
        written to the structure's used_len.

        Raises:
            GuestKilledError: the structure or a section of it is not in the guest's memory, or a section
                crosses a page.
        """
        form = _DMA.at(BITS).form
        fields = form.unpack(self._guest.read(pa, form.size))
        # Not the console's: the caller gives it to the bus's devices.
        if key != CONSOLE_KEY:
            return
        used = 0
        for address, length in _sections(self._guest, fields):
            self._emit(self._guest.read(address, length))
            used += length
        # used_len is "filled by hypervisor" (struct lguest_dma): what the receiver took.
        self._guest.set_u32(pa, used)


def _sections(guest: GuestMemory, fields: Sequence[int]) -> list[tuple[int, int]]:
    """Address and length of each section of a struct lguest_dma, to the first that is empty.

    Raises:
        GuestKilledError: one is not in the guest's memory, or crosses a page.
    """
    sections = []
    for address, length in zip(fields[1 : 1 + DMA_SECTIONS], fields[1 + DMA_SECTIONS :], strict=True):
        if not length:
            break
        # check_dma_list(): sections over a page's end were never supported.
        if address % PAGE_SIZE + length > PAGE_SIZE or address + length > guest.limit:
            raise GuestKilledError(f"bad DMA entry: {length}@{address:#x}")
        sections.append((address, length))
    return sections


@attrs.frozen
class DmaBuffer:
    """A free struct lguest_dma at guest-physical ``pa``: its sections, and the interrupt that says it is full."""

    guest: GuestMemory
    pa: int
    sections: tuple[tuple[int, int], ...]
    irq: int

    @property
    def room(self) -> int:
        """Bytes that it takes."""
        return sum(length for _, length in self.sections)

    def fill(self, data: bytes) -> int:
        """Put data in and mark it as used; the bytes written."""
        done = 0
        for address, length in self.sections:
            piece = data[done : done + length]
            self.guest.write(address, piece)
            done += len(piece)
        self.guest.set_u32(self.pa, done)
        return done


@attrs.frozen
class DmaArray:
    """An array of ``count`` struct lguest_dma at guest-physical ``pa``, filled for ``key``, announced by ``irq``."""

    key: int
    pa: int
    count: int
    irq: int


class DmaBindings:
    """Buffers that the guest offers for input: bind_dma() of drivers/lguest/io.c, 2.6.23 only."""

    def __init__(self, guest: GuestMemory) -> None:
        self._guest = guest
        self._arrays: list[DmaArray] = []

    def bind(self, key: int, pa: int, count_and_irq: int) -> int:
        """BIND_DMA: register an array, or with interrupt 0 take it back (unbind_dma()).

        Args:
            key: the device's guest-physical address.
            pa: guest-physical address of the array.
            count_and_irq: number of its elements << 8 | interrupt.

        Returns:
            1 on success, 0 when refused: no such interrupt, none free, or nothing to take back.

        Raises:
            GuestKilledError: ``key`` is unaligned or not an address of the guest's.
        """
        # Packed so that the call needs three registers: num << 8 | irq (bind_dma() of 2.6.23).
        count, irq = count_and_irq >> 8 & 0xFFFF, count_and_irq & 0xFF
        # bind_dma() only fails this, though "we could kill the guest here".
        if irq >= IRQS:
            return 0
        # The host took the key for a futex's (get_futex_key()), which must be the address of a word in memory.
        if key % 4 or key >= self._guest.limit:
            raise GuestKilledError(f"bad dma key {key:#x}")
        if irq == 0:
            kept = [array for array in self._arrays if (array.key, array.pa) != (key, pa)]
            found = len(kept) != len(self._arrays)
            self._arrays = kept
            return int(found)
        # LGUEST_MAX_DMA is the host's own limit, so the guest is told, not killed.
        if len(self._arrays) >= MAX_DMA:
            return 0
        self._arrays.append(DmaArray(key, pa, count, irq))
        return 1

    def buffer(self, key: int) -> DmaBuffer | None:
        """The first buffer bound for a key that is not in use (get_dma_buffer()); None if there is none.

        Raises:
            GuestKilledError: an array or a section is not in the guest's memory.
        """
        form = _DMA.at(BITS).form
        for array in self._arrays:
            for number in range(array.count if array.key == key else 0):
                pa = array.pa + number * form.size
                fields = form.unpack(self._guest.read(pa, form.size))
                # used_len stays what it was until the guest has emptied the buffer and sets it to 0.
                if not fields[0]:
                    return DmaBuffer(self._guest, pa, tuple(_sections(self._guest, fields)), array.irq)
        return None

    def save(self) -> tuple[tuple[int, int, int, int], ...]:
        """State for a snapshot."""
        return tuple((each.key, each.pa, each.count, each.irq) for each in self._arrays)

    def load(self, state: tuple[tuple[int, int, int, int], ...]) -> None:
        """Go back to what :meth:`save` gave."""
        self._arrays = [DmaArray(*each) for each in state]

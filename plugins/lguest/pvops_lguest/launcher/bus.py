"""The devices of 2.6.23: lguest's own bus, on which data go by DMA.

Source: include/linux/lguest_launcher.h and lguest_bus.h, drivers/block/lguest_blk.c and
Documentation/lguest/lguest.c of 2.6.23.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvops_lguest.host.console import CONSOLE_KEY
from pvops_lguest.host.memory import PAGE_SHIFT, PAGE_SIZE
from pvops_lguest.public import BITS, LAUNCHER

if TYPE_CHECKING:
    from pvops_lguest.host.console import DmaBindings
    from pvops_lguest.host.memory import GuestMemory
    from pvops_lguest.launcher.disk import Disk

_DESCRIPTOR: Final = LAUNCHER["lguest_device_desc_23"]
# LGUEST_DEVICE_T_CONSOLE and LGUEST_DEVICE_T_BLOCK; 2 is the network.
_CONSOLE, _BLOCK = 1, 3
# LGUEST_DEVICE_F_RANDOMNESS: the kernel may mix its interrupts into its randomness.
_RANDOM: Final = 0x8000
_BLOCK_PAGE: Final = LAUNCHER["lguest_block_page"]
_REQUEST: Final = _BLOCK_PAGE.whole("type", "sector", "bytes")
_RESULT: Final = _BLOCK_PAGE.part("result")
# struct lguest_block_page: type 0 reads, 1 writes; result 1 is done, 2 failed.
_READ: Final = 0
_DONE, _FAILED = 1, 2


class LguestBus:
    """The console and perhaps a disk that cannot be written to.

    Device number n of the array has interrupt n + 1.

    Args:
        guest: the guest's memory, the pages of devices included.
        top: guest-physical address of the array of descriptors, just above RAM.
        dma: the buffers that the guest has bound.
        interrupt: raises one of the guest's interrupts.
        disk: the disk, if there is one.
    """

    def __init__(
        self, guest: GuestMemory, top: int, dma: DmaBindings, interrupt: Callable[[int], None], disk: Disk | None
    ) -> None:
        self._guest = guest
        self._dma = dma
        self._interrupt = interrupt
        self._disk = disk
        self._typed = bytearray()
        # Descriptors fill the first page, so the disk's own is the second.
        self._page = top + PAGE_SIZE
        table = _DESCRIPTOR.packed(BITS, {"type": _CONSOLE})
        if disk is not None:
            where = {"num_pages": 1, "pfn": self._page >> PAGE_SHIFT}
            table += _DESCRIPTOR.packed(BITS, {"type": _BLOCK, "features": _RANDOM} | where)
            guest.write(self._page, _BLOCK_PAGE.packed(BITS, {"num_sectors": disk.sectors}))
        guest.write(top, table.ljust(PAGE_SIZE, b"\0"))

    def sent(self, key: int) -> None:
        """SEND_DMA with a key that is not the console's: a request to the disk, if it is its page's address.

        Raises:
            GuestKilledError: the buffer that it bound is not in its memory.
        """
        # A key is the address of what it is for.
        if self._disk is None or key != self._page:
            return
        request, answer = _REQUEST.at(BITS).form, _RESULT.at(BITS)
        kind, sector, length = request.unpack(self._guest.read(key, request.size))
        result = _FAILED
        # A write goes nowhere: a disk here is only read.
        buffer = self._dma.buffer(key) if kind == _READ else None
        if buffer is not None:
            data = self._disk.read(sector, min(length, buffer.room))
            written = buffer.fill(data or b"")
            result = _DONE if data is not None and written == length else _FAILED
        # The result before the interrupt, whose handler looks at it (lgb_irq()).
        self._guest.write(key + answer.offset, answer.form.pack(result))
        # A device's interrupt is its index in the page plus one (lgdev_irq()).
        self._interrupt(2)

    def notify(self, pa: int) -> bool:
        """There is no NOTIFY yet."""
        del pa
        return False

    def typed(self, data: bytes) -> None:
        """Something was typed at the console."""
        self._typed += data
        self.poll()

    def poll(self) -> None:
        """Put what was typed into the console's buffer, if the guest has emptied it, which it does without a word."""
        # A buffer is of one use until the guest empties it: what is left over waits for the next poll().
        while self._typed and (buffer := self._dma.buffer(CONSOLE_KEY)) is not None and buffer.room:
            written = buffer.fill(bytes(self._typed[: buffer.room]))
            del self._typed[:written]
            self._interrupt(buffer.irq)

    def save(self) -> tuple[bytes, tuple[int, ...]]:
        """What was typed, for a snapshot."""
        return bytes(self._typed), ()

    def load(self, state: tuple[bytes, tuple[int, ...]]) -> None:
        """Go back to what :meth:`save` gave."""
        self._typed[:] = state[0]

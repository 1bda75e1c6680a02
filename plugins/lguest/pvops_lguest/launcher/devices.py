"""Virtio devices of a guest: what a console and a disk do with the chains of their rings.

Source: handle_console_output(), handle_console_input() and service_io() of Documentation/lguest/lguest.c;
include/linux/virtio_console.h and virtio_blk.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from pvops_lguest.host.abi import Descriptors
from pvops_lguest.host.kill import GuestKilledError
from pvops_lguest.public import BITS, VIRTIO

if TYPE_CHECKING:
    from pvops_lguest.launcher.disk import Disk
    from pvops_lguest.launcher.ring import Chain, Ring

RING_ENTRIES: Final = 128
"""VIRTQUEUE_NUM."""

_HEADER: Final = VIRTIO["virtio_blk_outhdr"].whole("type", "ioprio", "sector")
_OK, _ERROR, _UNSUPPORTED = b"\0", b"\1", b"\2"
# VIRTIO_BLK_T_IN and so on (linux/virtio_blk.h).
_IN, _OUT = 0, 1
_SCSI: Final = 2
_BARRIER: Final = 0x80000000
# Two descriptors of a chain are the header's and the status byte's.
_MOST_SEGMENTS: Final = RING_ENTRIES - 2
# VIRTIO_BLK_F_SEG_MAX and VIRTIO_BLK_F_RO.
_F_SEG_MAX, _F_READ_ONLY = 1 << 2, 1 << 5
# VIRTIO_CONFIG_BLK_F and its neighbours for capacity and most segments, of 2.6.24; the first carries the features.
_FIELD_HAS, _FIELD_CAPACITY, _FIELD_SEG_MAX = 0x40, 0x41, 0x43

Raise = Callable[[int], None]


class Device:
    """One device.

    Attributes:
        type: its virtio number (VIRTIO_ID_*).
        queues: how many rings it has.
        rings: them, once the page of devices has been laid out.
    """

    type: ClassVar[int]
    queues: ClassVar[int]

    def __init__(self) -> None:
        self.rings: Sequence[Ring] = ()

    def features(self) -> bytes:
        """Its feature bits, lowest first."""
        return b""

    def configuration(self, form: Descriptors) -> bytes:
        """What its driver may know of it."""
        del form
        return b""

    def notified(self, ring: Ring) -> None:
        """The guest says that it put chains up in a ring."""
        raise NotImplementedError


class VirtioConsole(Device):
    """The console. What is typed waits until the guest has put up room for it.

    Args:
        emit: where the guest's text goes.
        interrupt: raises one of the guest's interrupts.
    """

    type = 3
    queues = 2

    def __init__(self, emit: Callable[[bytes], None], interrupt: Raise) -> None:
        super().__init__()
        self._emit = emit
        self._interrupt = interrupt
        self.typed = bytearray()

    def notified(self, ring: Ring) -> None:
        """Take the guest's text, at once, for its driver spins until then; or put in what waits."""
        # Ring 0 is the guest's input: it says that there is room again.
        if ring is self.rings[0]:
            self.feed()
            return
        done = False
        while (chain := ring.take()) is not None:
            if chain.writable:
                raise GuestKilledError("Input buffers in output queue?")
            self._emit(ring.read(chain))
            ring.give(chain, 0)
            # One interrupt for all chains: the driver empties the used ring in one go.
            done = True
        if done and ring.wants_interrupt:
            self._interrupt(ring.irq)

    def feed(self) -> None:
        """Put what was typed into the guest's buffers, as far as there are any."""
        ring = self.rings[0]
        # Nothing is taken from the ring without something to put in: a chain that is taken must be given back.
        while self.typed and (chain := ring.take()) is not None:
            if chain.readable:
                raise GuestKilledError("Output buffers in console in queue?")
            written = ring.fill(chain, bytes(self.typed[: chain.room]))
            del self.typed[:written]
            ring.give(chain, written)
            if ring.wants_interrupt:
                self._interrupt(ring.irq)


class VirtioDisk(Device):
    """A disk that cannot be written to."""

    type = 2
    queues = 1

    def __init__(self, disk: Disk, interrupt: Raise) -> None:
        super().__init__()
        self._disk = disk
        self._interrupt = interrupt

    def features(self) -> bytes:
        """Segments are counted, and it is read-only."""
        return bytes([_F_SEG_MAX | _F_READ_ONLY])

    def configuration(self, form: Descriptors) -> bytes:
        """Its size, and the most segments of a request."""
        size, segments = struct.pack("<Q", self._disk.sectors), struct.pack("<I", _MOST_SEGMENTS)
        if form is Descriptors.FIELDS:
            fields = ((_FIELD_HAS, b"\0"), (_FIELD_CAPACITY, size), (_FIELD_SEG_MAX, segments))
            return b"".join(bytes([number, len(data)]) + data for number, data in fields)
        return size + bytes(4) + segments  # size_max lies between

    def notified(self, ring: Ring) -> None:
        """Serve every request that was put up."""
        done = False
        while (chain := ring.take()) is not None:
            ring.give(chain, self._serve(ring, chain))
            done = True
        if done and ring.wants_interrupt:
            self._interrupt(ring.irq)

    def _serve(self, ring: Ring, chain: Chain) -> int:
        """One request; the bytes written, which the status is the last of."""
        asked = ring.read(chain)
        if not chain.readable or not chain.writable:
            raise GuestKilledError(f"Bad virtblk cmd {len(chain.readable)} out={len(chain.writable)}")
        header = _HEADER.at(BITS).form
        if len(asked) < header.size or chain.room < 1:
            raise GuestKilledError(f"Bad virtblk cmd of {len(asked)} bytes, {chain.room} for the answer")
        kind, _, sector = header.unpack_from(asked)
        # A barrier orders writes, and none are done.
        kind &= ~_BARRIER
        # The last byte is the status.
        wanted = chain.room - 1
        if kind != _IN:
            # A SCSI command is not understood; a write fails, for the file is only read.
            status = _ERROR if kind == _OUT else _UNSUPPORTED
            return ring.fill(chain, bytes(wanted) + status)
        data = self._disk.read(sector, wanted)
        if data is None:
            return ring.fill(chain, bytes(wanted) + _ERROR)
        return ring.fill(chain, data + _OK)

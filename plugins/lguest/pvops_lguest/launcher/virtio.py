"""The page of virtio devices above the guest's memory, in both of its forms, and what a NOTIFY there means.

Source: include/linux/lguest_launcher.h (2.6.24 and 2.6.27); add_virtqueue(), update_device_status() and
handle_output() of Documentation/lguest/lguest.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import MachineError
from pvops_lguest.host.abi import Descriptors
from pvops_lguest.host.memory import PAGE_SHIFT, PAGE_SIZE
from pvops_lguest.launcher.devices import RING_ENTRIES, Device, VirtioConsole
from pvops_lguest.launcher.ring import Ring, ring_pages
from pvops_lguest.public import BITS, LAUNCHER

if TYPE_CHECKING:
    from pvops_lguest.host.memory import GuestMemory

FIRST_IRQ: Final = 1
"""Interrupt 0 is the timer's."""

_QUEUE: Final = LAUNCHER["lguest_vqconfig"].whole("num", "irq", "pfn")
_TYPED: Final = LAUNCHER["lguest_device_desc_24"]
_COUNTED: Final = LAUNCHER["lguest_device_desc_25"]
_FIELD_QUEUE: Final = 2
"""VIRTIO_CONFIG_F_VIRTQUEUE of 2.6.24, whose drivers set bit 7 of a field that they have found."""


@attrs.frozen
class _Place:
    """Where a device's descriptor, its status byte and the guest's own feature bits are."""

    device: Device
    descriptor: int
    status: int
    accepted: tuple[int, int]


class VirtioBus:
    """The devices of a guest from 2.6.24 on.

    Args:
        guest: its memory, the pages of devices included.
        top: guest-physical address of the page of descriptors, just above RAM.
        form: how descriptors are laid out.
        devices: the console, then others.

    Raises:
        MachineError: their descriptors do not fit into a page.
    """

    def __init__(
        self, guest: GuestMemory, top: int, form: Descriptors, console: VirtioConsole, others: Sequence[Device]
    ) -> None:
        self._guest = guest
        self._console = console
        self._form = form
        # The devices' rings lie behind the page of descriptors (get_pages() in the launcher).
        self._next_page, self._next_irq = (top >> PAGE_SHIFT) + 1, FIRST_IRQ
        page, self._places = b"", []
        for device in (console, *others):
            device.rings = [self._ring() for _ in range(device.queues)]
            data, place = self._described(device, top + len(page))
            page += data
            self._places.append(place)
        if len(page) >= PAGE_SIZE:
            raise MachineError("too many lguest devices for one page of descriptors")
        guest.write(top, page.ljust(PAGE_SIZE, b"\0"))

    def _ring(self) -> Ring:
        ring = Ring(self._guest, self._next_page, RING_ENTRIES, self._next_irq)
        self._next_page += ring_pages(RING_ENTRIES)
        self._next_irq += 1
        return ring

    def _described(self, device: Device, at: int) -> tuple[bytes, _Place]:
        """A device's descriptor as it is at first."""
        queues = [_QUEUE.at(BITS).form.pack(ring.num, ring.irq, ring.pfn) for ring in device.rings]
        features, config = device.features(), device.configuration(self._form)
        # Typed fields need no counts: the driver looks for those that it knows (lg_find()).
        if self._form is Descriptors.FIELDS:
            fields = b"".join(bytes([_FIELD_QUEUE, len(queue)]) + queue for queue in queues) + config
            head = _TYPED.packed(BITS, {"type": device.type, "config_len": len(fields)})
            return head + fields, _Place(device, at, at + _TYPED.offset("status", BITS), (0, 0))
        counts = {"num_vq": len(queues), "feature_len": len(features), "config_len": len(config)}
        head = _COUNTED.packed(BITS, {"type": device.type} | counts)
        accepted = at + len(head) + len(b"".join(queues)) + len(features)
        # Twice as many feature bytes: the host's, then room for those that the guest takes.
        data = head + b"".join(queues) + features + bytes(len(features)) + config
        return data, _Place(device, at, at + _COUNTED.offset("status", BITS), (accepted, len(features)))

    def notify(self, pa: int) -> bool:
        """A NOTIFY of an address: whether that is a device's or a ring's, which has been served then.

        Raises:
            GuestKilledError: the ring makes no sense.
        """
        for place in self._places:
            # A NOTIFY of a descriptor means that its status changed (handle_output() of the launcher).
            if self._form is Descriptors.COUNTED and pa == place.descriptor:
                self._status_set(place)
                return True
            for ring in place.device.rings:
                if ring.pfn == pa >> PAGE_SHIFT:
                    # A driver that has not said it is there cannot have meant its ring; 2.6.24 has no such rule.
                    if self._form is Descriptors.FIELDS or self._guest.read(place.status, 1) != b"\0":
                        place.device.notified(ring)
                    return True
        return False

    def _status_set(self, place: _Place) -> None:
        """A status of 0 is a reset; other values ask for nothing."""
        # Only a reset asks for work; ACKNOWLEDGE, DRIVER and the others say how far the driver is.
        if self._guest.read(place.status, 1) != b"\0":
            return
        address, length = place.accepted
        self._guest.write(address, bytes(length))
        for ring in place.device.rings:
            ring.reset()

    def typed(self, data: bytes) -> None:
        """Something was typed at the console."""
        self._console.typed += data
        self._console.feed()

    def poll(self) -> None:
        """Nothing: the guest says when it has room again."""

    def save(self) -> tuple[bytes, tuple[int, ...]]:
        """What was typed, and how far the rings are, for a snapshot."""
        return bytes(self._console.typed), tuple(ring.taken for ring in self._rings)

    def load(self, state: tuple[bytes, tuple[int, ...]]) -> None:
        """Go back to what :meth:`save` gave."""
        self._console.typed[:], taken = state
        for ring, count in zip(self._rings, taken, strict=True):
            ring.taken = count

    @property
    def _rings(self) -> list[Ring]:
        return [ring for place in self._places for ring in place.device.rings]

"""Small kernels under the launcher, and a driver of their devices."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from pvops_lguest.host.abi import ABIS, Call, Descriptors

from .small import RAM, SmallGuest

if TYPE_CHECKING:
    from pvops_core.session import Session

EVERY = pytest.mark.parametrize("name", ABIS)
VIRTIO = pytest.mark.parametrize("name", [name for name, abi in ABIS.items() if abi.descriptors is not Descriptors.BUS])


class Driver:
    """What a driver does with a ring, in the memory of a stopped guest."""

    def __init__(self, session: Session, number: int) -> None:
        self.session = session
        self.memory = session.machine.memory
        self.at = RAM + 0x1000 + 0x2000 * number

    def offer(self, *buffers: tuple[int, int, int]) -> None:
        """Put up one chain of buffers: address, length and 2 for those that the device writes."""
        for number, (address, length, flags) in enumerate(buffers):
            last = number == len(buffers) - 1
            descriptor = struct.pack("<QIHH", address, length, flags | (not last), 0 if last else number + 1)
            self.memory.write(self.at + 16 * number, descriptor)
        index = int.from_bytes(self.memory.read(self.at + 16 * 128 + 2, 2), "little")
        self.memory.write(self.at + 16 * 128 + 2, (index + 1).to_bytes(2, "little"))

    def kick(self) -> None:
        platform = self.session.platform
        platform.hypercall(self.session.machine.vcpus[0], platform.number(Call.NOTIFY), self.at)

    @property
    def used(self) -> int:
        return int.from_bytes(self.memory.read(self.at + 0x1000 + 2, 2), "little")


def standing(name: str, **options: str) -> Session:
    """A session whose guest has made its first call and now hangs."""
    guest = SmallGuest(name)
    guest.code.hang()
    session = guest.session(options=options)
    session.run(max_ns=100_000)
    return session

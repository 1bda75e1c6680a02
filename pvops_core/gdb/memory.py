"""A guest's memory for a debugger: by a vCPU's page tables, whatever that vCPU itself may do there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.errors import ImageError, MemoryAccessError, PvopsError
from pvops_core.gdb.errors import FAULT, REFUSED, PacketError
from pvops_core.machine import GuestFault
from pvops_core.machine.cpu.memory.paging import Access
from pvops_core.patching.poke import Poke
from pvops_core.x86 import PAGE, PAGE_SHIFT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.machine import Vcpu
    from pvops_core.session import Session


def read(vcpu: Vcpu, address: int, length: int) -> bytes:
    """Memory from an address on: fewer bytes where a page on the way is not there.

    Raises:
        PacketError: the first byte is not there.
    """
    found = bytearray()
    try:
        for physical, size in _places(vcpu, address, length):
            found += vcpu.machine.memory.read(physical, size)
    except (GuestFault, MemoryAccessError) as fault:
        if not found:
            raise PacketError(str(fault), FAULT) from fault
    return bytes(found)


def write(session: Session, vcpu: Vcpu, address: int, data: bytes) -> None:
    """Write memory: all of it, or nothing. The guest's text is written by its one writer.

    Raises:
        PacketError: some of it is not there, or it is text that cannot be written now, or not at this address.
    """
    memory = vcpu.machine.memory
    try:
        places = list(_places(vcpu, address, len(data)))
        before = b"".join(memory.read(physical, size) for physical, size in places)
    except (GuestFault, MemoryAccessError) as fault:
        raise PacketError(str(fault), FAULT) from fault
    text = _text_frames(session)
    frames = [physical >> PAGE_SHIFT for physical, _ in places]
    if text.isdisjoint(frames):
        at = 0
        for physical, size in places:
            memory.write(physical, data[at : at + size])
            at += size
        if data:
            session.machine.invalidate([(address, address + len(data))])
        return
    try:
        session.poker.transaction([Poke(address, before, data)], by="gdb")
    except PvopsError as error:
        raise PacketError(f"guest text at {address:#x} is not written: {error}", REFUSED) from error


def _places(vcpu: Vcpu, address: int, length: int) -> Iterator[tuple[int, int]]:
    """Physical address and length of each page's piece, one after the other."""
    paging, _ = vcpu.virtual.paging()
    paging = paging._replace(ac=True)  # a debugger is not who SMAP is there for
    mask, memory, end = vcpu.machine.kind.mask, vcpu.machine.memory, address + length
    while address < end:
        at = address & mask
        size = min(end - address, PAGE - at % PAGE)
        yield paging.address(memory, at, Access()), size
        address += size


def _text_frames(session: Session) -> frozenset[int]:
    """Numbers of the machine's frames that the guest's text lies in."""
    try:
        first, end = session.guest.text_range
    except ImageError:  # the image does not say where that is, and nobody watches over it
        return frozenset()
    return frozenset(start >> PAGE_SHIFT for start, _ in session.text.spans(first, end - first))

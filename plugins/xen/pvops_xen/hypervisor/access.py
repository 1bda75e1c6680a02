"""Guest memory as hypercalls reach it: through the caller's page tables, never into Xen's own addresses."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import attrs

from pvops_core.errors import MachineError
from pvops_xen.hypervisor.abi import HYPERVISOR_VIRT_END64, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from pvops_core.headers import Fields
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.hypervisor.layout import Abi
    from pvops_xen.hypervisor.state import XenVcpuState

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")


@attrs.define(eq=False)
class BadHandleError(MachineError):
    """A guest pointer reaches into Xen's part of the address space: the hypercall fails with -EFAULT."""


def addr_ok(abi: Abi, address: int, length: int = 1) -> bool:
    """access_ok(): the range lies where a guest may have memory, and is canonical."""
    end = address + length
    if abi.bits == 32:
        # A 32-bit guest's memory ends where the M2P table begins (``__HYPERVISOR_COMPAT_VIRT_START``).
        return address >= 0 and end <= abi.m2p_start
    if end <= 1 << 47:  # __addr_ok (x86_64/uaccess.h): below the hole of what is not canonical, or above Xen's part
        return address >= 0
    return address >= HYPERVISOR_VIRT_END64 and end <= 1 << 64


def native_addr_ok(abi: Abi, address: int) -> bool:
    """The same of an address by the rule for 64 bits, which Xen applies to both in places."""
    return abi.bits == 32 or addr_ok(abi, address)


def canonical(abi: Abi, address: int) -> bool:
    """is_canonical_address(): the top 17 bits are alike; every 32-bit one is fine."""
    # Intel SDM volume 1, 3.3.7.1
    return abi.bits == 32 or address < 1 << 47 or (1 << 64) - (1 << 47) <= address < 1 << 64


def check(abi: Abi, address: int, length: int) -> None:
    """guest_handle_okay(): raise BadHandleError for a range that a guest must not name."""
    if length and not addr_ok(abi, address, length):
        raise _bad_handle(address, length)


def _bad_handle(address: int, length: int) -> BadHandleError:
    return BadHandleError(f"guest handle {address:#x}+{length:#x} is not in guest space")


@contextlib.contextmanager
def as_kernel(state: XenVcpuState) -> Iterator[None]:
    """Guest memory is the kernel's meanwhile, whichever mode the vCPU is in (``toggle_guest_pt``)."""
    mode, state.in_kernel = state.in_kernel, True
    try:
        # A call may come from user mode, whose tables have not got the kernel's memory.
        yield
    finally:
        state.in_kernel = mode


def _pieces(hv: Hypervisor, cpu: Vcpu, address: int, length: int, *, write: bool) -> list[tuple[int, int]]:
    """Machine address and length of each piece of a range, all translated before any is touched."""
    pieces = []
    while length > 0:
        size = min(length, PAGE_SIZE - (address & PAGE_MASK))
        pieces.append((hv.space.translate(cpu, address, write=write), size))
        address += size
        length -= size
    return pieces


def read(hv: Hypervisor, cpu: Vcpu, address: int, length: int) -> bytes:
    """``copy_from_guest``."""
    if length and not addr_ok(hv.domain.abi, address, length):
        raise _bad_handle(address, length)
    # Most accesses lie on one page, and are translated once.
    if (address & PAGE_MASK) + length <= PAGE_SIZE:
        return hv.memory.read(hv.space.translate(cpu, address), length) if length else b""
    return b"".join(hv.memory.read(pa, size) for pa, size in _pieces(hv, cpu, address, length, write=False))


def write(hv: Hypervisor, cpu: Vcpu, address: int, data: bytes) -> None:
    """``copy_to_guest``: all of it, or a fault and nothing."""
    check(hv.abi, address, len(data))
    # Translated whole before the first byte is written: ``copy_to_guest`` of half a structure would leave it torn.
    at = 0
    for pa, size in _pieces(hv, cpu, address, len(data), write=True):
        hv.memory.write(pa, data[at : at + size])
        # Xen's own store into text: the guest did not write it, so nobody keeps translations of it.
        if hv.validator.text:
            hv.validator.opened.pop(pa >> PAGE_SHIFT, None)
        at += size


def fetch(hv: Hypervisor, cpu: Vcpu, address: int, fields: Fields) -> tuple[Any, ...]:
    """copy_from_guest(): fields of a structure that lies at this address."""
    offset, form = fields.at(hv.domain.abi.bits)
    return form.unpack(read(hv, cpu, address + offset, form.size))


def store(hv: Hypervisor, cpu: Vcpu, address: int, fields: Fields, *values: int) -> None:
    """copy_to_guest(): write fields of a structure that lies at this address."""
    offset, form = fields.at(hv.domain.abi.bits)
    write(hv, cpu, address + offset, form.pack(*values))


def read_u32(hv: Hypervisor, cpu: Vcpu, address: int) -> int:
    """One u32."""
    # Little-endian, as all of the interface is.
    value: int = _U32.unpack(read(hv, cpu, address, 4))[0]
    return value


def read_u64(hv: Hypervisor, cpu: Vcpu, address: int) -> int:
    """One u64."""
    value: int = _U64.unpack(read(hv, cpu, address, 8))[0]
    return value


def read_word(hv: Hypervisor, cpu: Vcpu, address: int) -> int:
    """One unsigned long of the guest's width."""
    return int.from_bytes(read(hv, cpu, address, hv.abi.word), "little")


def write_u32(hv: Hypervisor, cpu: Vcpu, address: int, value: int) -> None:
    """One u32."""
    write(hv, cpu, address, _U32.pack(value & 0xFFFF_FFFF))


def write_word(hv: Hypervisor, cpu: Vcpu, address: int, value: int) -> None:
    """One unsigned long of the guest's width."""
    write(hv, cpu, address, (value & hv.abi.mask).to_bytes(hv.abi.word, "little"))

"""Guest memory as hypercalls reach it: through the caller's page tables, never into Xen's own addresses."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import MachineError

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.layout import Abi

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")


@attrs.define(eq=False)
class BadHandleError(MachineError):
    """A guest pointer reaches into Xen's part of the address space: the hypercall fails with -EFAULT."""


def addr_ok(abi: Abi, address: int, length: int = 1) -> bool:
    """The range lies where a guest may have memory, and is canonical."""
    end = address + length
    if abi.bits == 32:
        return address >= 0 and end <= abi.m2p_start
    if end <= 1 << 47:
        return address >= 0
    return address >= 0xFFFF_8800_0000_0000 and end <= 1 << 64


def canonical(abi: Abi, address: int) -> bool:
    """A 64-bit address has its top 17 bits alike; every 32-bit one is fine."""
    return abi.bits == 32 or address < 1 << 47 or (1 << 64) - (1 << 47) <= address < 1 << 64


def check(abi: Abi, address: int, length: int) -> None:
    """Raise BadHandleError for a range that a guest must not name."""
    if length and not addr_ok(abi, address, length):
        raise BadHandleError(f"guest handle {address:#x}+{length:#x} is not in guest space")


def read(abi: Abi, cpu: Vcpu, address: int, length: int) -> bytes:
    """``copy_from_guest``."""
    check(abi, address, length)
    return cpu.read_virtual(address, length) if length else b""


def write(abi: Abi, cpu: Vcpu, address: int, data: bytes) -> None:
    """``copy_to_guest``."""
    check(abi, address, len(data))
    cpu.write_virtual(address, data)


def read_u32(abi: Abi, cpu: Vcpu, address: int) -> int:
    """One u32."""
    value: int = _U32.unpack(read(abi, cpu, address, 4))[0]
    return value


def read_u64(abi: Abi, cpu: Vcpu, address: int) -> int:
    """One u64."""
    value: int = _U64.unpack(read(abi, cpu, address, 8))[0]
    return value


def read_word(abi: Abi, cpu: Vcpu, address: int) -> int:
    """One unsigned long of the guest's width."""
    return int.from_bytes(read(abi, cpu, address, abi.word), "little")


def write_u32(abi: Abi, cpu: Vcpu, address: int, value: int) -> None:
    """One u32."""
    write(abi, cpu, address, _U32.pack(value & 0xFFFF_FFFF))


def write_word(abi: Abi, cpu: Vcpu, address: int, value: int) -> None:
    """One unsigned long of the guest's width."""
    write(abi, cpu, address, (value & abi.mask).to_bytes(abi.word, "little"))

"""A vCPU's registers as the bytes that a debugger reads and writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.gdb.description import SEGMENTS, X87, Register, registers
from pvops_core.gdb.errors import REFUSED, PacketError
from pvops_core.machine import GuestFault
from pvops_core.x86 import MSR_EFER, MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

# Bytes of FXSAVE's image: Intel SDM volume 1, table 10-2
_FIELDS: Final = {"fctrl": (0, 2), "fstat": (2, 2), "mxcsr": (24, 4)}
_ST, _XMM, _STEP = 32, 160, 16
_MSRS: Final = {"fs_base": MSR_FS_BASE, "gs_base": MSR_GS_BASE, "k_gs_base": MSR_KERNEL_GS_BASE}


def read(vcpu: Vcpu, register: Register, image: bytes | None = None) -> bytes:
    """A register's bytes.

    Args:
        vcpu: whose.
        register: which.
        image: what fxsave writes of it, where the caller has that already.
    """
    if span := _span(register):
        start, size = span
        image = vcpu.save_fpu() if image is None else image
        return image[start : start + size].ljust(register.size, b"\0")
    return (_number(vcpu, register.name) & (1 << register.bits) - 1).to_bytes(register.size, "little")


def read_all(vcpu: Vcpu) -> bytes:
    """All registers, in order."""
    image = vcpu.save_fpu()
    return b"".join(read(vcpu, each, image) for each in registers(vcpu.machine.kind.bits))


def write(vcpu: Vcpu, register: Register, data: bytes) -> bool:
    """Set a register; whether that changed anything.

    Raises:
        PacketError: it cannot be set from outside, or not to this.
    """
    if len(data) != register.size:
        raise PacketError(f"{register.name} has {register.size} bytes, not {len(data)}")
    if data == read(vcpu, register):
        return False
    if span := _span(register):
        _write_image(vcpu, span, data)
        return True
    name, value = register.name, int.from_bytes(data, "little")
    if name in {"rip", "eip"}:
        vcpu.rip = value
    elif name == "eflags":
        vcpu.rflags = value
    elif name in _MSRS and vcpu.machine.kind.bits == 64:
        vcpu.set_msr(_MSRS[name], value)
    elif (register.feature.endswith(".core") and name not in {*SEGMENTS, *X87}) or name == "cr2":
        vcpu.set(name, value)
    else:
        # What depends on tables, or decides what the engine has translated: a guest's own instructions are for that.
        raise PacketError(f"{name} cannot be set from outside", REFUSED)
    return True


def _write_image(vcpu: Vcpu, span: tuple[int, int], data: bytes) -> None:
    start, size = span
    image = bytearray(vcpu.save_fpu())
    image[start : start + size] = data[:size]
    try:
        vcpu.load_fpu(bytes(image))
    except GuestFault as fault:
        raise PacketError(str(fault)) from fault


def _span(register: Register) -> tuple[int, int] | None:
    """Where FXSAVE's image has it: first byte and length."""
    name = register.name
    if name in _FIELDS:
        return _FIELDS[name]
    if register.bits == 80:
        return _ST + _STEP * int(name[2:]), register.size
    if register.bits == 128:
        return _XMM + _STEP * int(name[3:]), register.size
    return None


def _number(vcpu: Vcpu, name: str) -> int:
    match name:
        case "rip" | "eip":
            found = vcpu.rip
        case "eflags":
            found = vcpu.rflags
        case "fs_base" | "gs_base":
            found = vcpu.segment(name[:2])[1]
        case "k_gs_base" | "efer":
            found = vcpu.msr(MSR_KERNEL_GS_BASE if name == "k_gs_base" else MSR_EFER)
        case "ftag":
            found = _whole_tags(vcpu.save_fpu()[4])
        case _:
            found = 0 if name in X87 else vcpu.get(name)  # the pointers of the last x87 instruction are not kept
    return found


def _whole_tags(short: int) -> int:
    """Two bits a register, of which an image has one: valid (00) or empty (11), as debuggers take them."""
    return sum(0 if short >> number & 1 else 3 << 2 * number for number in range(8))

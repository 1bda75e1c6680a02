"""A non-canonical address through SS is #SS(0), through any other segment #GP(0); the engine says #GP(0) for both.

Source: Intel SDM volume 3, 6.15 (interrupt 12), and volume 1, 3.3.7.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu import faults
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.x86 import CANONICAL_TOPS

if TYPE_CHECKING:
    from pvops_core.machine.cpu.core import Core

_LAST_PAGE: Final = 0x7_FFFF_FFFF  # number of the lower half's last page
_NO_MEMORY: Final = frozenset(bytes((code,)) for code in (*range(0xE4, 0xE8), *range(0xEC, 0xF0), 0xF4, 0xFA, 0xFB))
_NO_MEMORY_0F: Final = frozenset(bytes((code,)) for code in (0x06, 0x08, 0x09, *range(0x20, 0x24), *range(0x30, 0x36)))
"""First bytes of port and privileged instructions without memory operand: what faults often where somebody emulates."""

_XSETBV: Final = b"\x0f\x01\xd1"


def canonical(address: int, size: int = 1) -> bool:
    """Whether all of a range of 64-bit addresses may be used."""
    return address >> 47 in CANONICAL_TOPS and (address + size - 1 & (1 << 64) - 1) >> 47 in CANONICAL_TOPS


def canonicality_decides(vector: int, error_code: int | None, address: int | None) -> bool:
    """Whether a fault of the engine's may be for a non-canonical address.

    Where an access begins in the last page of the lower half and ends beyond it, the engine looks for that page first.
    """
    if vector == faults.PF:
        return address is not None and address >> 12 == _LAST_PAGE
    return vector == faults.GP and error_code == 0


def vector_of(vcpu: Core, vector: int) -> int:
    """The vector of such a fault at the instruction at RIP: #SS, #GP, or what the engine calls it.

    Or #UD for xsetbv, which the engine knows although nobody can turn it on: SDM volume 2, XSETBV.
    """
    code = vcpu.virtual.code(vcpu.rip)
    if code.startswith(_XSETBV):
        return faults.UD
    if _touches_no_memory(code) or not vcpu.in_64_bit_code:
        return vector
    # The engine does not give an access's address for #GP, so it is computed from the instruction, as late as this.
    from pvops_core.machine.cpu.memory.decode import accesses  # noqa: PLC0415 - the disassembler, for faults only

    bases = {"fs": "fs_base", "gs": "gs_base"}
    for access in accesses(vcpu):
        base = vcpu.get(bases[access.segment]) if access.segment in bases else 0
        if not canonical(base + access.offset & (1 << 64) - 1, access.size):
            return faults.SS if access.segment == "ss" else faults.GP
    return vector


def _touches_no_memory(code: bytes) -> bool:
    return code[:1] in _NO_MEMORY or (code[:1] == b"\x0f" and code[1:2] in _NO_MEMORY_0F)


def through_stack(fault: GuestFault) -> GuestFault:
    """The fault of an access that was made through SS."""
    if type(fault) is GuestFault and fault.vector == faults.GP and fault.error_code == 0:
        return GuestFault(fault.message, vector=faults.SS, error_code=0)
    return fault

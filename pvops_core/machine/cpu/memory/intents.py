"""An instruction that reads memory and writes it back faults as a write, at the first page that refuses that.

The engine reads first, and tells of a read. A processor looks for the right to write before it reads, as it must where
the access is locked: Intel SDM volume 3, 4.7 (the W/R flag) and 8.1.2; so does Bochs (cpu/access.cc, read_RMW_virtual).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import GuestFault, PageFault
from pvops_core.machine.cpu.memory.paging import ErrorCode
from pvops_core.machine.cpu.memory.virtual import LONGEST
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.machine.cpu.core import Core

_NARROW: Final = 0xFFFFFFFF
_WRITE: Final = int(ErrorCode.WRITE)
_DECIDED: Final = int(ErrorCode.WRITE | ErrorCode.FETCH | ErrorCode.RESERVED)
"""Plain numbers: there are thousands of page faults in a boot."""
_SHORTEST: Final = 2  # an opcode and its ModRM byte, without which nothing is changed in memory
_PREFIXES: Final = frozenset(bytes.fromhex("26 2e 36 3e 64 65 66 67 f0 f2 f3"))
_REX: Final = range(0x40, 0x50)  # SDM volume 2, 2.2.1.1: in 64-bit code alone
_ALL: Final = frozenset(range(8))
_TWO_BYTES: Final = 0x0F
_ONE: Final = {
    **{base + wide: _ALL for base in range(0x00, 0x38, 8) for wide in (0, 1)},  # add or adc sbb and sub xor
    **dict.fromkeys((0x80, 0x81, 0x82, 0x83), _ALL - {7}),  # the same with a number; not cmp
    **dict.fromkeys((0x86, 0x87), _ALL),  # xchg
    **dict.fromkeys((0xC0, 0xC1, *range(0xD0, 0xD4)), _ALL),  # shifts
    **dict.fromkeys((0xF6, 0xF7), frozenset({2, 3})),  # not neg
    **dict.fromkeys((0xFE, 0xFF), frozenset({0, 1})),  # inc dec
}
_TWO: Final = {
    **dict.fromkeys((0xA4, 0xA5, 0xAC, 0xAD), _ALL),  # shld shrd
    **dict.fromkeys((0xAB, 0xB3, 0xBB), _ALL),  # bts btr btc
    **dict.fromkeys((0xB0, 0xB1, 0xC0, 0xC1), _ALL),  # cmpxchg xadd
    0xBA: frozenset({5, 6, 7}),  # bts btr btc with a number; not bt
    0xC7: frozenset({1}),  # cmpxchg8b, cmpxchg16b
}
"""Opcodes, with what the middle of their ModRM byte may be. Source: Intel SDM volume 2, appendix A."""


def changes_memory(code: bytes, *, long: bool) -> bool:
    """Whether code begins with an instruction that reads a place in memory and writes it back.

    Args:
        code: its bytes, and any that follow.
        long: it is 64-bit code.
    """
    at = 0
    while at < len(code) and (code[at] in _PREFIXES or (long and code[at] in _REX)):
        at += 1
    table = _ONE
    if at < len(code) and code[at] == _TWO_BYTES:
        at, table = at + 1, _TWO
    if len(code) < at + _SHORTEST:
        return False
    opcode, modrm = code[at], code[at + 1]
    # Mod 11B is a register; the middle is the opcode's extension or a register (SDM volume 2, 2.1.3).
    return modrm >> 6 != 3 and modrm >> 3 & 7 in table.get(opcode, ())


def as_processor(vcpu: Core, rip: int, ordered: GuestFault | None, error_code: int, address: int) -> tuple[int, int]:
    """Error code and address of a page fault that the engine tells of, as the processor has them; CR2 as well.

    Args:
        vcpu: whose.
        rip: of the instruction.
        ordered: the fault of words that the engine does not push in their order.
        error_code: as the engine tells.
        address: likewise.
    """
    told = address
    if ordered is not None and ordered.address is not None and ordered.error_code is not None:
        error_code, address = ordered.error_code, ordered.address
    error_code, address = as_write(vcpu, rip, error_code, address)
    if address != told:
        vcpu.cr2 = address
    return error_code, address


def as_write(vcpu: Core, rip: int, error_code: int, address: int) -> tuple[int, int]:
    """Error code and address of a page fault that the engine tells of, as the processor has them."""
    if error_code & _DECIDED:
        return error_code, address
    long = rip > _NARROW or vcpu.in_64_bit_code
    start = rip if long else rip + vcpu.segment("cs")[1] & _NARROW
    try:
        code = vcpu.virtual.code(start)
        if not changes_memory(code, long=long):
            return error_code, address
        vcpu.walk(start, fetch=True)
        if 0 <= address - start < LONGEST:
            # Told apart from a read of data by where it is: within the instruction's own bytes.
            vcpu.walk(address, fetch=True)  # without no-execute pages a fetch is told as a read is
        # Only at a page's start can the engine's address be the second page of an access that began on the one
        # before.
        if address % PAGE == 0:
            _whole(vcpu, address)
    except PageFault as fault:
        # The walk for a write was refused for being a write: that is the processor's fault, and this its first page.
        if fault.error_code is None or not fault.error_code & _WRITE or fault.address is None:
            return error_code, address
        return fault.error_code, fault.address
    except GuestFault:
        return error_code, address
    return error_code | _WRITE, address


def _whole(vcpu: Core, address: int) -> None:
    """Look for the right to write from where the access begins, which may be on the page before.

    Raises:
        PageFault: it is refused there.
    """
    from pvops_core.machine.cpu.memory.decode import accesses  # noqa: PLC0415 - the disassembler, for faults only

    for access in accesses(vcpu):
        # In 64-bit code only FS and GS have a base (SDM volume 3, 3.4.4).
        flat = vcpu.in_64_bit_code and access.segment not in {"fs", "gs"}
        base = 0 if flat else vcpu.segment(access.segment)[1]
        begin = base + access.offset & vcpu.machine.kind.mask
        if access.write and 0 < address - begin < access.size:
            vcpu.walk(begin, write=True)

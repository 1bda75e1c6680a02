"""What iret does, for Python code that acts for the guest: the frame on the stack is taken, checked and entered.

Source: Intel SDM volume 2, IRET/IRETD/IRETQ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.machine.cpu import faults
from pvops_core.machine.cpu.faults import GuestFault, general_protection
from pvops_core.machine.cpu.segmentation.descriptors import read_descriptor, selector_fault
from pvops_core.machine.cpu.segmentation.segments import Descriptor
from pvops_core.machine.cpu.segmentation.stackfaults import through_stack
from pvops_core.x86 import CANONICAL_TOPS, FLAG_IF, FLAG_IOPL, FLAG_NT, FLAG_VM

if TYPE_CHECKING:
    from pvops_core.machine.cpu.core import Core

_CHANGEABLE = 0x254DD5  # CF PF AF ZF SF TF DF OF NT RF AC ID


def iret(vcpu: Core) -> None:
    """Return from an interrupt with the frame at the top of the stack.

    Raises:
        GuestFault: as iret would; nothing has changed then.
    """
    long = vcpu.long_mode
    size = 8 if long else 4
    flags, cpl = vcpu.rflags, vcpu.cpl
    if flags & FLAG_NT and not long:
        raise general_protection("a nested task return is not supported")
    if flags & FLAG_NT:
        raise general_protection("iret with NT set")
    rsp = vcpu.rsp
    # RSP is used with SS's base in 32-bit code; in 64-bit mode the base is 0 (SDM volume 3, 3.4.4).
    base = 0 if long else vcpu.segment("ss")[1]
    words = [_word(vcpu, base + rsp + size * index, size) for index in range(3)]
    rip, cs, new_flags = words[0], words[1] & 0xFFFF, words[2]
    if new_flags & FLAG_VM and not long and cpl == 0:
        raise general_protection("virtual-8086 mode is not supported")
    code = read_descriptor(vcpu, cs)
    level = cs & 3
    if not code.code or level < cpl or (code.dpl > level if code.conforming else code.dpl != level):
        raise selector_fault(faults.GP, cs, "cannot be returned to")
    if not code.present:
        raise selector_fault(faults.NP, cs, "not present")
    stack: tuple[int, Descriptor] | None = None
    new_rsp = rsp + 3 * size
    # Same level in 32-bit code: three words; in 64-bit mode all five are popped always (SDM volume 2, IRETQ).
    if long or level > cpl:
        new_rsp = _word(vcpu, base + rsp + 3 * size, size)
        selector = _word(vcpu, base + rsp + 4 * size, size) & 0xFFFF
        stack = selector, _stack_descriptor(vcpu, selector, level, code)
    # RIP is checked before the flags go: a bad frame leaves everything as it was.
    if code.long and rip >> 47 not in CANONICAL_TOPS:
        raise general_protection(f"return to non-canonical {rip:#x}")
    changeable = _CHANGEABLE
    if cpl == 0:
        changeable |= FLAG_IOPL
    # IF may be set only by who could have executed sti; IOPL only by level 0 (SDM volume 2, IRET).
    if cpl <= flags >> 12 & 3:
        changeable |= FLAG_IF
    vcpu.enter(
        level,
        cs=(cs, code),
        ss=stack,
        rip=rip if code.long else rip & 0xFFFFFFFF,
        rsp=new_rsp if code.long or not long else new_rsp & 0xFFFFFFFF,
        rflags=flags & ~changeable | new_flags & changeable,
        outward=level > cpl,
    )


def _word(vcpu: Core, address: int, size: int) -> int:
    try:
        return vcpu.virtual.number(address, size)
    except GuestFault as fault:
        raise through_stack(fault) from None


def _stack_descriptor(vcpu: Core, selector: int, level: int, code: Descriptor) -> Descriptor:
    # In 64-bit mode a kernel's stack may have a null selector (SDM volume 3, 5.4.1.1); its DPL is bits 13 and 14.
    if not selector & 0xFFFC and code.long and level < 3:
        return Descriptor(0, level << 13)
    descriptor = read_descriptor(vcpu, selector)
    if selector & 3 != level or descriptor.dpl != level or not descriptor.writable_data:
        raise selector_fault(faults.GP, selector, f"no stack for level {level}")
    if not descriptor.present:
        raise selector_fault(faults.SS, selector, "not present")
    return descriptor

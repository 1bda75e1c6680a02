"""Runs functions of the guest from outside: how hooks are called.

On the borrowed vCPU's own kernel stack, below what is there, interrupts off, arguments as the guest's kernel passes
them (System V on x86_64, ``regparm(3)`` on i386). All registers are put back afterwards.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pvops_core.livepatch.errors import LivepatchError
from pvops_core.machine.state import BLOCK_NS

if TYPE_CHECKING:
    from pvops_core.livepatch.guest import PatchedGuest
    from pvops_core.machine import Vcpu

LIMIT_NS = 100_000_000
"""Virtual time that one hook may take. A hook that hangs in Xen's quiet zone hangs the machine."""
LANDING = b"\xeb\xfe"
"""What stands where a called function returns to; it is never executed."""
_ROOM = 256
_DIRECTION = 1 << 10


def call(guest: PatchedGuest, vcpu: Vcpu, function: int, argument: int = 0) -> int:
    """Call a function of the guest with one argument; its result as a signed 32-bit number.

    Raises:
        LivepatchError: ETIMEDOUT, it did not return in 100 ms of virtual time, or the machine was stopped meanwhile.
    """
    machine = guest.machine
    registers, halted, held = vcpu.save_registers(), vcpu.halted, vcpu.held
    vcpu.halted = vcpu.held = False
    try:
        with guest.calls.kernel_mode(vcpu) as stack:
            vcpu.rsp = (stack - _ROOM) & -16
            vcpu.push(guest.area.landing)
            vcpu.set("rdi" if machine.kind.bits == 64 else "eax", argument)
            vcpu.rflags &= ~_DIRECTION
            vcpu.rip = function
            returned = machine.call(vcpu, guest.area.landing, blocks=LIMIT_NS // BLOCK_NS)
            result, last = vcpu.get("eax"), vcpu.rip
    finally:
        vcpu.load_registers(registers)
        vcpu.halted, vcpu.held = halted, held
    if not returned:
        message = f"the function at {function:#x} did not return; it was at {last:#x}"
        raise LivepatchError(message, errno=errno.ETIMEDOUT)
    return result - (1 << 32) if result >> 31 & 1 else result & 0xFFFFFFFF

"""Runs functions of the guest on a borrowed vCPU: how hooks are called.

On the vCPU's own kernel stack, below what is there, interrupts off, alone. All its state is put back afterwards: it may
have been in user mode, or waiting.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pvops_core.livepatch.errors import LivepatchError
from pvops_core.session.callee import Callee
from pvops_core.session.calls import CallError, Calls

if TYPE_CHECKING:
    from pvops_core.livepatch.guest import PatchedGuest
    from pvops_core.machine import Vcpu

LIMIT_NS = 100_000_000
"""Virtual time that one hook may take. A hook that hangs in Xen's quiet zone hangs the machine."""
LANDING = b"\xeb\xfe"  # jmp to itself
"""What stands where a called function returns to; it is never executed."""
# Bytes left free below the stack pointer: the red zone, and what an interrupted push may still write.
_ROOM = 256


def call(guest: PatchedGuest, vcpu: Vcpu, function: int, argument: int = 0) -> int:
    """Call a function of the guest with one argument; its result as a signed 32-bit number.

    Raises:
        LivepatchError: ETIMEDOUT, it did not return in 100 ms of virtual time, or the machine was stopped meanwhile.
    """
    # Symbols are not looked up: the function is an address already.
    calls = Calls(guest.machine, symbol_at=lambda _va: None)
    callee = Callee.function(f"the hook at {function:#x}", function, guest.machine.kind.bits, argument)
    registers, halted, held = vcpu.save_registers(), vcpu.halted, vcpu.held
    # A held vCPU runs nothing.
    vcpu.held = False
    try:
        with guest.calls.kernel_mode(vcpu) as stack:
            vcpu.rsp = stack - _ROOM
            result = calls.plain(vcpu, callee, landing=guest.area.landing, max_ns=LIMIT_NS) & 0xFFFFFFFF
    except CallError as error:
        raise LivepatchError(error.message, errno=errno.ETIMEDOUT) from error
    finally:
        vcpu.load_registers(registers)
        vcpu.halted, vcpu.held = halted, held
    # An int is 32 bits; negative is an errno.
    return result - (1 << 32) if result >> 31 else result

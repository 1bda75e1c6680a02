"""The instructions that a guest may stumble over and the host does for it.

A kernel probes ports that a virtual machine does not have: every read gives all ones and every write is lost.
And the time-stamp counter, which the real host lets the guest read: here it traps, so that what the guest sees
is virtual time. Source: emulate_insn() of drivers/lguest/x86/core.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.machine import general_protection
from pvops_lguest.host.segments import GUEST_PL

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

CR4_TSD = 0x4
"""With it set, rdtsc faults outside of ring 0."""

TSC_KHZ = 1_000_000
"""The counter counts nanoseconds of virtual time."""

_RDTSC = b"\x0f\x31"


def privileged(vcpu: Vcpu, name: str, *operands: int) -> int | None:
    """Answer a privileged instruction, given by the name of its method of ``vcpu.insn``.

    Returns:
        Its result; None if it has none.

    Raises:
        GuestFault: it is the guest's own fault (vector 13).
    """
    if name == "rdtsc":
        return time_stamp(vcpu)
    if vcpu.cpl == GUEST_PL and name == "in_":
        return (1 << 8 * operands[1]) - 1
    if vcpu.cpl == GUEST_PL and name == "out":
        return None
    raise general_protection(f"{name} is not allowed in ring {vcpu.cpl}")


def time_stamp(vcpu: Vcpu) -> int:
    """The time-stamp counter now, 64 bits."""
    return (vcpu.machine.clock.ns + vcpu.tsc_offset) & 0xFFFFFFFFFFFFFFFF


def rdtsc(vcpu: Vcpu, code: bytes) -> bool:
    """Do the instruction at EIP if it is ``rdtsc``.

    Args:
        vcpu: the CPU.
        code: the bytes at EIP.
    """
    if not code.startswith(_RDTSC):
        return False
    value = time_stamp(vcpu)
    vcpu.batch("eax", "edx").write(value & 0xFFFFFFFF, value >> 32)
    vcpu.rip = (vcpu.rip + len(_RDTSC)) & 0xFFFFFFFF
    return True

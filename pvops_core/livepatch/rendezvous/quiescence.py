"""Is a vCPU quiescent? Live patches alone ask that: hooks are run on it, and it is to be as after a turn of its kernel.

Whoever merely writes text does not care: interrupts that are off are no objection to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pvops_core.livepatch.guest import CallsIn
    from pvops_core.machine import Vcpu


def offline(calls: CallsIn, vcpu: Vcpu) -> bool:
    """Whether a vCPU executes nothing and takes no interrupts: not started yet, or parked for good."""
    # Halted with interrupts on is merely idle, and an interrupt wakes it.
    return vcpu.halted and not calls.interruptible(vcpu)


def objection(calls: CallsIn, vcpu: Vcpu) -> str:
    """Why a vCPU is not quiescent; empty if it is."""
    return "" if calls.interruptible(vcpu) else "interrupts are off"

"""``rdtsc`` at a privilege level where nothing traps it: answered from the virtual clock, by address.

With CR4.TSD set ``rdtsc`` faults at level 3; at level 0 the engine would read the host's own counter, and no run would
be like another. So the addresses where text holds the instruction are watched, and answered before it executes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pvops_core.machine.cpuslot import CpuSlot
    from pvops_core.machine.vcpu import Vcpu

RDTSC: Final = b"\x0f\x31"
RDTSCP: Final = b"\x0f\x01\xf9"
_EITHER: Final = re.compile(b"(?=" + re.escape(RDTSC) + b"|" + re.escape(RDTSCP) + b")")
_MSR_TSC_AUX: Final = 0xC0000103


class TscSites:
    """The addresses at which one machine's text holds ``rdtsc`` or ``rdtscp``."""

    def __init__(self, slots: list[CpuSlot]) -> None:
        self._slots = slots
        self._watched: set[int] = set()

    def watch(self, va: int, code: bytes) -> None:
        """Answer every ``rdtsc`` in ``code``, which stands or is about to stand at ``va``.

        Bytes that only look like one, inside another instruction, do no harm: the engine calls at the start of an
        instruction only. Code that was translated before stays as it was until it is invalidated.
        """
        for match in _EITHER.finditer(code):
            address = va + match.start()
            if address not in self._watched:
                self._watched.add(address)
                for slot in self._slots:
                    slot.callbacks.hook_address(address, answer)


def answer(vcpu: Vcpu) -> None:
    """Do what ``rdtsc`` or ``rdtscp`` at RIP would do; nothing if other code stands there by now."""
    rip = vcpu.rip
    code = vcpu.read_virtual(rip, len(RDTSC))
    if code != RDTSC:
        code = vcpu.read_virtual(rip, len(RDTSCP))
        if code != RDTSCP:
            return
        vcpu.set("rcx", vcpu.msr(_MSR_TSC_AUX))
    ticks = vcpu.insn.rdtsc()
    vcpu.set("rax", ticks & 0xFFFFFFFF)
    vcpu.set("rdx", ticks >> 32)
    vcpu.rip = rip + len(code)

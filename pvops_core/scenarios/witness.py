"""What a guest ran into, noted before its platform deals with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pvops_core.machine import GuestFault

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


@attrs.frozen
class Fault:
    """An exception of the guest's.

    Attributes:
        vector: 0 to 31.
        error_code: as the processor pushed it; None for vectors without one.
        rip: guest-virtual address of the instruction.
        address: linear address of a page fault, else None.
        entry: leaf page-table entry that maps it, as the processor sees it; None if nothing does.
        ns: virtual time.
    """

    vector: int
    error_code: int | None
    rip: int
    address: int | None
    entry: int | None
    ns: int


@attrs.define
class Witness:
    """Notes the exceptions of one run, those that the implementation of an op ran into among them.

    Attributes:
        faults: the exceptions in order.
    """

    faults: list[Fault] = attrs.field(factory=list)

    def note(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        """Observe one."""
        entry = None if address is None else _leaf(vcpu, address)
        self.faults.append(Fault(vector, error_code, vcpu.rip, address, entry, vcpu.machine.clock.ns))


def _leaf(vcpu: Vcpu, address: int) -> int | None:
    try:
        return vcpu.walk(address).entries[-1][1]
    except GuestFault:
        return None

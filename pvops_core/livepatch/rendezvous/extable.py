"""Exceptions that applied payloads expect: ``.ex_table`` entries, seen before the platform gives a fault to the guest.

Page faults are left to the guest: whether one is an error is decided by its own handler, or by shadow tables. Xen's
payloads extend the table that its fault handler searches; a guest's handler searches only its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from pvops_core.x86 import AC, DE, GP, MF, NP, PF, SS, UD, XM

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

VECTORS = frozenset({DE, UD, NP, SS, GP, MF, AC, XM})
"""Faults whose instruction did nothing and that nobody but the guest's kernel could mend."""


@attrs.frozen
class Fixups:
    """Observes a machine's exceptions.

    Attributes:
        find: where to go on after a fault of the instruction at an address; None for one that is not expected.
        missing: a page fault at an address; True if it was a payload's page, which is there now.
    """

    find: Callable[[int], int | None]
    missing: Callable[[Vcpu, int], bool]

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> bool:  # noqa: ARG002
        """Go on where a payload says, or leave it to the platform."""
        if vector == PF and address is not None and self.missing(vcpu, address):
            # Set, though equal: the engine is to begin there again, not behind.
            vcpu.rip = vcpu.rip
            return True
        # A page fault's address decides, and the guest's own handler must see it.
        target = self.find(vcpu.rip) if vector in VECTORS else None
        if target is not None:
            vcpu.rip = target
        return target is not None

"""Exceptions that applied payloads expect: ``.ex_table`` entries, seen before the platform gives a fault to the guest.

Page faults are left to the guest: whether one is an error is decided by its own handler, or by shadow tables. Xen's
payloads extend the table that its fault handler searches; a guest's handler searches only its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from pvops_core.machine import Machine, TrapHandler, Vcpu

_DE, _UD, _NP, _SS, _GP, _MF, _AC, _XM = 0, 6, 11, 12, 13, 16, 17, 19
_PF = 14
VECTORS = frozenset({_DE, _UD, _NP, _SS, _GP, _MF, _AC, _XM})
"""Faults whose instruction did nothing and that nobody but the guest's kernel could mend."""


class Fixups:
    """Stands before a platform.

    Args:
        platform: who answers everything else.
        find: where to go on after a fault of the instruction at an address; None for one that is not expected.
        missing: a page fault at an address; True if it was a payload's page, which is there now.
    """

    def __init__(
        self, platform: TrapHandler, find: Callable[[int], int | None], missing: Callable[[Vcpu, int], bool]
    ) -> None:
        self._platform = platform
        self._find = find
        self._missing = missing

    @classmethod
    def put_before(
        cls, machine: Machine, find: Callable[[int], int | None], missing: Callable[[Vcpu, int], bool]
    ) -> None:
        """Stand before a machine's platform from now on."""
        machine.attach(cast("TrapHandler", cls(machine.platform, find, missing)))

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        """Go on where a payload says, or let the platform answer."""
        if vector == _PF and address is not None and self._missing(vcpu, address):
            vcpu.rip = vcpu.rip
            return
        target = self._find(vcpu.rip) if vector in VECTORS else None
        if target is None:
            self._platform.exception(vcpu, vector, error_code, address)
        else:
            vcpu.rip = target

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the platform's own methods
        return getattr(self._platform, name)

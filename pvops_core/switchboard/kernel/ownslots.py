"""While a kernel looks at its own table, the slots hold what they would without hooks.

``paravirt_set_cap`` (arch/x86/kernel/paravirt-spinlocks.c) forces a feature of the processor for each lock op that is
not the native one, and by these features sites are inlined. A hook is no reason for that: it would be another kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pvops_core.guest.points import Passed, Points
    from pvops_core.machine import Machine, Vcpu

_LOOKS: Final = "paravirt_set_cap"
_CALLER, _AFTER = "alternatives", "patched"


class OwnSlots:
    """Lends a kernel its own slots, from where the function begins that calls the one that looks.

    Nothing acts where it stands, which would slow all code down until then: a block of code ends at that call, and
    another before the first record of a site has been read.

    Args:
        machine: its machine.
        symbols: its functions.
        points: notes how far its boot has come.
        patches: name of the function that comes after the look, and patches sites.
        lend: puts into the slots what they would hold without hooks; every vCPU is stopped.
        take: puts the hooks into them again, where they are not.
    """

    def __init__(
        self,
        machine: Machine,
        symbols: Mapping[str, int],
        points: Points,
        patches: str,
        lend: Callable[[], None],
        take: Callable[[], None],
    ) -> None:
        self._machine = machine
        self._points = points
        self._lend = lend
        self._take = take
        # A kernel without that function looks at no slot.
        if _LOOKS in symbols:
            points.listen(self._at_point, acts=False)
            machine.break_at(symbols[patches], self._look_is_over, acts=False)

    def _at_point(self, passed: Passed, _vcpu: Vcpu) -> None:
        if passed.name == _CALLER:
            self._machine.defer(self._lend)

    def _look_is_over(self, _vcpu: Vcpu) -> None:
        # Between the two the kernel looks; before and after them the slots are the hooks'.
        if _CALLER in self._points.passed and _AFTER not in self._points.passed:
            self._machine.defer(self._take)

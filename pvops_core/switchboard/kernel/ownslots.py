"""While a kernel looks at its own table, the slots hold what they would without hooks.

``paravirt_set_cap`` (arch/x86/kernel/paravirt-spinlocks.c) forces a feature of the processor for each lock op that is
not the native one, and by these features sites are inlined. A hook is no reason for that: it would be another kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pvops_core.machine import Machine, Vcpu

_LOOKS: Final = "paravirt_set_cap"


class OwnSlots:
    """Lends a kernel its own slots, once.

    Args:
        machine: its machine, before the kernel has patched itself.
        symbols: its functions.
        patches: name of the function that comes after the look, and patches sites.
        lend: puts into the slots what they would hold without hooks; every vCPU is stopped.
        take: puts the hooks into them again.
    """

    def __init__(
        self,
        machine: Machine,
        symbols: Mapping[str, int],
        patches: str,
        lend: Callable[[], None],
        take: Callable[[], None],
    ) -> None:
        self._machine = machine
        self._take = take
        self._lent = False
        self._lend = lend
        places = (_LOOKS, patches) if _LOOKS in symbols else ()
        self._places = [machine.break_at(symbols[name], self._at) for name in places]

    def _at(self, _vcpu: Vcpu) -> None:
        self._machine.defer(self._over if self._lent else self._begin)

    def _begin(self) -> None:
        self._lent = True
        self._lend()

    def _over(self) -> None:
        if self._places:
            self._take()
        for place in self._places:
            self._machine.remove(place)
        self._places.clear()

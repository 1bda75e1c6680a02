"""Which of a machine's vCPUs the guest has started."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pvops_core.machine import Machine


class Processors:
    """Looks between slices which vCPUs run: one that the guest has not started is halted from the beginning.

    What counts is what the guest does, an INIT and a start-up IPI or a hypercall, and not what it says.

    Args:
        machine: the machine, before it runs.
    """

    def __init__(self, machine: Machine) -> None:
        self._vcpus = machine.vcpus
        self._started: frozenset[int] = frozenset()
        machine.watch(self._look)
        machine.keep(self)

    @property
    def started(self) -> int:
        """How many have run, the first among them."""
        return len(self._started)

    def _look(self) -> None:
        # Once all have run there is nothing to see.
        if len(self._started) < len(self._vcpus):
            self._started |= {vcpu.index for vcpu in self._vcpus if not vcpu.halted}

    def save(self) -> tuple[int, ...]:
        """State for a snapshot."""
        return tuple(sorted(self._started))

    def load(self, state: tuple[int, ...]) -> None:
        """Go back to a saved state."""
        self._started = frozenset(state)

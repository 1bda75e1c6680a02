"""Lets real time pass where a person waits at a terminal: a guest that sleeps should not race through its night."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pvops_core.backends.keyboard import Keyboard
    from pvops_core.machine import Machine

_GRAIN_NS = 2_000_000
_BEHIND_NS = 100_000_000
"""A guest that is slower than the host's clock by more is not to catch up: its next sleep would end at once."""


@attrs.define
class RealTimePacer:
    """Keeps the virtual clock from getting ahead of the host's; the process sleeps while the guest does.

    A key ends a sleep at the virtual time that the host's clock has come to. What happens in a run is then decided by
    when keys are typed, as always.
    """

    machine: Machine
    keyboard: Keyboard
    _wall: int = attrs.field(factory=time.monotonic_ns, init=False)
    _virtual: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._virtual = self.machine.clock.ns

    def keep(self) -> None:
        """Between two slices: wait until the host's clock has come as far as the virtual one."""
        now = self.machine.clock.ns
        ahead = now - self._passed()
        if ahead < -_BEHIND_NS:
            self._wall, self._virtual = time.monotonic_ns(), now
        elif ahead > _GRAIN_NS:
            self._wait(now, ahead)

    def sleep(self, now: int, until: int) -> int:
        """Wait as long as the guest sleeps, from one virtual time to another; gives when a key has ended that."""
        ahead = until - self._passed()
        if ahead <= 0 or not self._wait(now, ahead):
            return until
        # Later than now in any case, or a guest that sleeps again at once would stand still in time.
        return min(until, max(now + 1, self._passed()))

    def _passed(self) -> int:
        """The virtual time that the host's clock has come to."""
        return self._virtual + time.monotonic_ns() - self._wall

    def _wait(self, now: int, ns: int) -> bool:
        return self.keyboard.wait(now, lambda: self.machine.loop.leaving, seconds=ns / 1e9)

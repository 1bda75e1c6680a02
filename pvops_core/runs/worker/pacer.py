"""Lets real time pass where a person waits at a terminal: a guest that sleeps should not race through its night."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pvops_core.backends.keyboard import Keyboard
    from pvops_core.machine import Machine

_GRAIN_NS = 2_000_000


@attrs.define
class RealTimePacer:
    """Keeps the virtual clock from getting ahead of the host's, between slices; a key ends the wait.

    What happens in the run, and in which order, it does not change.
    """

    machine: Machine
    keyboard: Keyboard
    _start: int = attrs.field(factory=time.monotonic_ns, init=False)

    def keep(self) -> None:
        """Wait until the host's clock has come as far as the virtual one."""
        ahead = self.machine.clock.ns - (time.monotonic_ns() - self._start)
        if ahead > _GRAIN_NS:
            self.keyboard.wait(lambda: self.machine.loop.interrupted, seconds=ahead / 1e9)

from __future__ import annotations

import time

from pvops_core.backends.keyboard import Keyboard
from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine
from pvops_core.runs.worker.pacer import RealTimePacer


def test_the_virtual_clock_waits_for_the_hosts() -> None:
    keyboard = Keyboard()
    keyboard.listen()
    with Machine(MachineKind.X86_64, memory=1 << 20) as machine:
        pace = RealTimePacer(machine, keyboard)
        begin = time.monotonic()
        pace.keep()
        assert time.monotonic() - begin < 0.05, "the virtual clock is not ahead"
        machine.clock.advance(int((time.monotonic() - begin) * 1e9) + 200_000_000)
        pace.keep()
        assert time.monotonic() - begin >= 0.15
        machine.clock.advance(3_600_000_000_000)
        keyboard.type(b"x")
        begin = time.monotonic()
        pace.keep()
        assert time.monotonic() - begin < 1, "a key ends the wait"
        assert keyboard.take() == b"x"
        keyboard.end()
        pace.keep()
        assert time.monotonic() - begin < 2, "nobody is there to wait for"

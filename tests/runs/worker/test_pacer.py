from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pvops_core.backends.keyboard import Keyboard, Look, Stroke
from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine
from pvops_core.runs.worker.pacer import RealTimePacer


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(MachineKind.X86_64, memory=1 << 20) as made:
        yield made


def test_the_virtual_clock_waits_for_the_hosts(machine: Machine) -> None:
    keyboard = Keyboard()
    keyboard.listen()
    pacer = RealTimePacer(machine, keyboard)
    begin = time.monotonic()
    pacer.keep()
    assert time.monotonic() - begin < 0.05, "the virtual clock is not ahead"
    machine.clock.advance(int((time.monotonic() - begin) * 1e9) + 200_000_000)
    pacer.keep()
    assert time.monotonic() - begin >= 0.15
    machine.clock.advance(3_600_000_000_000)
    keyboard.type(b"x")
    begin = time.monotonic()
    pacer.keep()
    assert time.monotonic() - begin < 1, "a key ends the wait"
    assert keyboard.take(0) == Stroke(Look(0), b"x")
    keyboard.end()
    pacer.keep()
    assert time.monotonic() - begin < 2, "nobody is there to wait for"


def test_a_sleep_takes_its_time_after_a_slow_boot_too(machine: Machine) -> None:
    keyboard = Keyboard()
    keyboard.listen()
    pacer = RealTimePacer(machine, keyboard)
    time.sleep(0.3)  # in which the guest comes a millisecond on
    machine.clock.advance(1_000_000)
    pacer.keep()
    begin = time.monotonic()
    now = machine.clock.ns
    assert pacer.sleep(now, now + 100_000_000) == now + 100_000_000
    assert time.monotonic() - begin >= 0.09, "what was lost before is not to be made up"


def test_a_key_ends_a_sleep_where_the_hosts_clock_is(machine: Machine) -> None:
    keyboard = Keyboard()
    keyboard.listen()
    pacer = RealTimePacer(machine, keyboard)
    keyboard.type(b"x")
    woken = pacer.sleep(0, 3_600_000_000_000)
    assert 0 < woken < 60_000_000_000
    machine.clock.advance(woken)
    assert pacer.sleep(woken, woken + 1) == woken + 1, "and never beyond its end"

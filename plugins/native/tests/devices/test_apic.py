from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from pvops_native.devices import apic as lapic
from pvops_native.devices.apic import LocalApic


@attrs.define
class System:
    ns: int = 0
    apics: list[LocalApic] = attrs.field(factory=list)
    signals: list[tuple[int, int, list[int]]] = attrs.field(factory=list)

    def now(self) -> int:
        return self.ns

    def send(self, mode: int, vector: int, addressed: Callable[[LocalApic], bool]) -> None:
        targets = [apic for apic in self.apics if addressed(apic)]
        if mode == lapic.FIXED:
            for apic in targets:
                apic.request(vector)
        else:
            self.signals.append((mode, vector, [apic.number for apic in targets]))


def system(count: int = 3, *, enabled: bool = True) -> System:
    there = System()
    there.apics = [LocalApic(n, there.now, there.send) for n in range(count)]
    for apic in there.apics:
        if enabled:
            apic.write(lapic.SPURIOUS, 0x1FF)
        apic.write(lapic.LDR, 1 << 24 + apic.number)
    return there


def test_identity() -> None:
    _, second, _ = system().apics
    assert second.read(lapic.ID) == 1 << 24
    assert second.read(lapic.VERSION) & 0xFF == 0x14
    second.write(lapic.VERSION, 0)
    assert second.read(lapic.VERSION) & 0xFF == 0x14


def test_a_disabled_apic_takes_nothing() -> None:
    apic = system(enabled=False).apics[0]
    apic.request(0x50)
    assert apic.pending() is None


def test_priorities_and_end_of_interrupt() -> None:
    apic = system().apics[0]
    apic.request(0x41)
    apic.request(0x62)
    assert apic.pending() == 0x62
    apic.acknowledge(0x62)
    assert apic.read(lapic.PPR) == 0x60
    assert apic.read(lapic.ISR + 0x30) == 1 << 2
    assert apic.read(lapic.IRR + 0x20) == 1 << 1
    assert apic.pending() is None
    apic.write(lapic.EOI, 0)
    assert apic.pending() == 0x41
    apic.write(lapic.TPR, 0x40)
    assert apic.pending() is None


@pytest.mark.parametrize(
    ("high", "low", "who"),
    [
        (1 << 24, 0x31, [1]),
        (0, 0x0004_0031, [0]),
        (0, 0x0008_0031, [0, 1, 2]),
        (0, 0x000C_0031, [1, 2]),
        (6 << 24, 0x831, [1, 2]),
    ],
)
def test_interrupts_between_processors(high: int, low: int, who: list[int]) -> None:
    there = system()
    there.apics[0].write(lapic.ICR_HIGH, high)
    there.apics[0].write(lapic.ICR_LOW, low)
    assert [apic.number for apic in there.apics if apic.pending() == 0x31] == who


@pytest.mark.parametrize(
    ("low", "signals"),
    [
        (0x4000 | lapic.INIT << 8, [(lapic.INIT, 0, [2])]),
        (0x8000 | lapic.INIT << 8, []),  # de-assert
        (lapic.STARTUP << 8 | 0x99, [(lapic.STARTUP, 0x99, [2])]),
        (0xC0000 | lapic.NMI << 8, [(lapic.NMI, 0, [1, 2])]),
    ],
)
def test_messages_that_are_no_interrupts(low: int, signals: list[tuple[int, int, list[int]]]) -> None:
    there = system()
    there.apics[0].write(lapic.ICR_HIGH, 2 << 24)
    there.apics[0].write(lapic.ICR_LOW, low)
    assert there.signals == signals
    assert not there.apics[0].read(lapic.ICR_LOW) & 1 << 12


@pytest.mark.parametrize(
    ("own", "model", "destination", "hit"),
    [(0b0100, 0xF, 0b0110, True), (0b0100, 0xF, 0b1011, False), (0x24, 0, 0x26, True), (0x24, 0, 0x34, False)],
)
def test_logical_destinations_flat_and_by_cluster(own: int, model: int, destination: int, *, hit: bool) -> None:
    apic = system().apics[1]
    apic.write(lapic.LDR, own << 24)
    apic.write(lapic.DFR, model << 28 | 0x0FFF_FFFF)
    assert apic.addressed(destination, logical=True) is hit


def test_only_the_first_hears_the_8259s_until_its_lint0_is_masked() -> None:
    first, second, _ = system().apics
    assert first.passes_pic
    assert not second.passes_pic
    first.write(lapic.LVT_LINT0, lapic.MASKED | lapic.EXTINT << 8)
    assert not first.passes_pic


def test_init_empties_all_but_the_identification() -> None:
    apic = system().apics[2]
    apic.request(0x50)
    apic.write(lapic.INITIAL_COUNT, 5)
    apic.reset()
    assert apic.read(lapic.ID) == 2 << 24
    assert apic.read(lapic.SPURIOUS) == 0xFF
    assert (apic.pending(), apic.next_event()) == (None, None)


def test_whoever_listens_is_told_what_has_ended() -> None:
    ended: list[int] = []
    apic = LocalApic(0, lambda: 0, lambda *_: None, ended.append)
    apic.write(lapic.SPURIOUS, 0x1FF)
    apic.write(lapic.EOI, 0)
    apic.request(0x55)
    apic.acknowledge(0x55)
    apic.write(lapic.EOI, 0)
    assert ended == [0x55]


def test_one_shot_timer() -> None:
    there = system()
    apic = there.apics[0]
    apic.write(lapic.DIVIDE, 0xB)  # by 1
    apic.write(lapic.LVT_TIMER, 0x70)
    apic.write(lapic.INITIAL_COUNT, 100)
    assert apic.next_event() == 1000
    there.ns = 400
    assert apic.read(lapic.CURRENT_COUNT) == 60
    apic.service()
    assert apic.pending() is None
    there.ns = 5000
    apic.service()
    assert apic.pending() == 0x70
    assert apic.next_event() is None
    assert apic.read(lapic.CURRENT_COUNT) == 0


def test_periodic_timer_keeps_its_phase() -> None:
    there = system()
    apic = there.apics[0]
    apic.write(lapic.DIVIDE, 0)  # by 2
    apic.write(lapic.LVT_TIMER, lapic.PERIODIC | 0x70)
    apic.write(lapic.INITIAL_COUNT, 50)
    there.ns = 2500
    apic.service()
    assert apic.pending() == 0x70
    assert apic.next_event() == 3000


def test_masked_timer_runs_in_silence() -> None:
    there = system()
    apic = there.apics[0]
    apic.write(lapic.LVT_TIMER, lapic.MASKED | 0x70)
    apic.write(lapic.INITIAL_COUNT, 5)
    there.ns = 10_000
    apic.service()
    assert apic.pending() is None
    assert apic.next_event() is None

"""Virtual interrupts: when they come, in which order, and what wakes a halted guest."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_lguest.host.abi import ABIS, Call
from pvops_lguest.host.interrupts import Interrupts
from pvops_lguest.host.traps import KernelStack, Traps

from pvops_core.machine.run.watchdog import run_within

from .rig import BASE, CODE, STACK_TOP, Host, Program

if TYPE_CHECKING:
    from .conftest import MakeHost
from .interrupts_rig import ON, OUT, looping


class Page:
    """The members of the shared page that interrupts use."""

    def __init__(self, irq_enabled: int, blocked: int) -> None:
        self.irq_enabled = irq_enabled
        self.blocked_interrupts = blocked
        self.pending: int | None = None

    def set_irq_pending(self, value: int) -> None:
        self.pending = value


def interrupts(*handled: int) -> Interrupts:
    traps = Traps(KernelStack())
    for irq in handled:
        traps.load_idt_entry(32 + irq, 0x00610000 | irq, 0xC0008E00)
    return Interrupts(traps)


@settings(max_examples=150, derandomize=True)
@given(
    raised=st.sets(st.integers(0, 31)),
    blocked=st.integers(0, 2**32 - 1),
    enabled=st.sampled_from([0, ON]),
    halted=st.booleans(),
    eip=st.integers(0, 12),
)
def test_what_is_taken(raised: set[int], blocked: int, enabled: int, halted: bool, eip: int) -> None:  # noqa: FBT001 - given
    subject = interrupts(*range(32))
    subject.noirq = (4, 9)
    subject.halted = halted
    for irq in raised:
        subject.raise_irq(irq)
    page = Page(enabled, blocked)
    ready = sorted(irq for irq in raised if not blocked >> irq & 1)
    gate = subject.take(page, eip)  # type: ignore[arg-type]  # a stand-in
    if not ready or 4 <= eip < 9 or not (halted or enabled):
        assert gate is None
        assert subject.halted == halted
        if ready:
            assert subject.next_irq(page) == ready[0]  # type: ignore[arg-type]  # as above
            assert page.pending == (None if 4 <= eip < 9 else ON)
        return
    assert gate is not None
    assert gate.handler == 0xC0000000 | ready[0]
    assert not subject.halted
    assert page.irq_enabled == ON
    rest = ready[1:]
    assert subject.next_irq(page) == (rest[0] if rest else None)  # type: ignore[arg-type]  # as above
    assert page.pending == (None if rest else 0)


def test_an_interrupt_without_handler_waits() -> None:
    subject = interrupts()
    subject.raise_irq(3)
    page = Page(ON, 0)
    assert subject.take(page, 0) is None  # type: ignore[arg-type]  # a stand-in
    assert subject.next_irq(page) == 3  # type: ignore[arg-type]  # as above


def test_the_clock_event() -> None:
    subject = interrupts()
    page = Page(ON, 0)
    subject.set_clockevent(100, 50)
    subject.tick(149)
    assert subject.next_irq(page) is None  # type: ignore[arg-type]  # a stand-in
    subject.tick(150)
    assert subject.next_irq(page) == 0  # type: ignore[arg-type]  # as above
    assert subject.deadline is None
    subject.set_clockevent(100, 50)
    subject.set_clockevent(100, 0)
    assert subject.deadline is None


@pytest.mark.parametrize("abi", ABIS)
def test_the_timer_interrupts_a_loop_and_it_goes_on(make_host: MakeHost, abi: str) -> None:
    host = make_host(abi)
    host.program(looping(host))
    host.call(Call.SET_CLOCKEVENT, 100_000)
    time = host.get(host.member("time") + 4)
    host.ends(90_000)
    assert host.get(OUT) == 0
    before = host.get(OUT + 4)
    assert before > 0
    host.ends(200_000)
    assert host.get(OUT) == 1
    assert host.get(OUT + 4) > before
    assert host.get(host.member("time") + 4) > time
    assert host.platform.traps["interrupt"] == 1


@pytest.mark.parametrize("abi", ABIS)
def test_a_loop_without_interrupts_ends_in_time_at_a_named_address(make_host: MakeHost, abi: str) -> None:
    host = make_host(abi)
    host.program(looping(host, enabled=0))
    host.call(Call.SET_CLOCKEVENT, 100_000)
    begin = time.monotonic()
    stop = run_within(host.machine, lambda address: ("loop", address - BASE - CODE), max_seconds=0.5)
    assert 0.5 <= time.monotonic() - begin < 2
    assert stop.reason == "timeout"
    assert re.search(r"vcpu 0 at loop\+0x[06] ", stop.detail)
    assert host.get(OUT) == 0  # the timer waits for ever


def test_nothing_comes_while_interrupts_are_off(host: Host) -> None:
    host.program(looping(host, enabled=0))
    host.state.interrupts.raise_irq(0)
    host.ends(200_000)
    assert host.get(OUT) == 0
    host.set(host.member("irq_enabled"), ON)
    host.ends(200_000)
    assert host.get(OUT) == 1


def test_nothing_comes_while_it_is_blocked(host: Host) -> None:
    host.program(looping(host))
    host.set(host.member("blocked_interrupts"), 1)
    host.state.interrupts.raise_irq(0)
    host.ends(200_000)
    assert host.get(OUT) == 0


def test_the_window_of_iret_is_never_interrupted(make_host: MakeHost) -> None:
    """A guest that stands in [noirq_start, noirq_end) at every entry is left alone until it is out."""
    host = make_host()
    window = Program(0x105000).hang()
    host.set(host.member("noirq_start"), BASE + window.at)
    host.set(host.member("noirq_end"), BASE + window.at + 2)
    looping(host)
    host.program(window)
    host.state.interrupts.raise_irq(0)
    host.vcpu.rip = BASE + window.at
    host.ends(200_000)
    assert host.get(OUT) == 0
    host.vcpu.rip = BASE + window.at + 2
    host.program(Program(window.at + 2).hang())
    host.ends(200_000)
    assert host.get(OUT) == 1
    # It interrupted the first byte after the window.
    assert host.get(STACK_TOP - 12) == BASE + window.at + 2


@pytest.mark.parametrize("enabled", [0, ON])
def test_halt_sleeps_until_the_timer(host: Host, enabled: int) -> None:
    """Whatever irq_enabled was: the interrupt that wakes turns it on."""
    looping(host, enabled=enabled)
    program = Program()
    host.call_code(program, Call.SET_CLOCKEVENT, 3_000_000)
    host.call_code(program, Call.HALT)
    program.store(OUT + 8, 1).hang()
    host.program(program)
    host.ends(4_000_000)
    assert host.get(OUT) == 1
    assert host.get(OUT + 8) == 1
    assert host.machine.clock.ns >= 3_000_000
    # What the handler will return to had interrupts on, for the host set them first.
    assert host.get(STACK_TOP - 4) & ON


def test_an_interrupt_that_waits_already_ends_halt_at_once(host: Host) -> None:
    looping(host, enabled=0)
    host.state.interrupts.raise_irq(0)
    program = Program()
    host.call_code(program, Call.HALT)
    host.program(program.store(OUT + 8, 1).hang())
    assert host.ends(500_000)[0] == "timeout"
    assert (host.get(OUT), host.get(OUT + 8)) == (1, 1)


def test_halt_with_nothing_to_come_is_the_end(host: Host) -> None:
    looping(host)
    program = Program()
    host.call_code(program, Call.HALT)
    host.program(program.hang())
    assert host.ends()[0] == "dead"
    host.set(host.member("blocked_interrupts"), 1)
    host.call(Call.SET_CLOCKEVENT, 1000)
    assert host.ends()[0] == "dead"


def test_the_guest_comes_back_with_its_registers(host: Host) -> None:
    looping(host)
    host.program(Program().load(eax=1, ecx=2, edx=3, ebx=4, esi=5, edi=6).hang())
    host.call(Call.SET_CLOCKEVENT, 1000)
    host.ends(300_000)
    assert host.get(OUT) == 1
    assert host.vcpu.batch("eax", "ecx", "edx", "ebx", "esi", "edi", "esp").read() == (
        1,
        2,
        3,
        4,
        5,
        6,
        BASE + STACK_TOP,
    )

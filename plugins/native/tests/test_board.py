"""The board: which processor a message, a request line or a timer is for."""

from __future__ import annotations

import attrs
import pytest
from pvops_native.board import IRQ_TIMER, PIN_TIMER, Board, Wires
from pvops_native.devices.apic import FIXED, INIT, LOWEST, LVT_LINT0, MASKED, NMI, SPURIOUS, LocalApic


@attrs.define
class World:
    """What is around a board, and what it was told."""

    ns: int = 0
    signals: list[tuple[int, int, int]] = attrs.field(factory=list)

    def board(self, processors: int = 3) -> Board:
        def signal(mode: int, vector: int, number: int) -> None:
            self.signals.append((mode, vector, number))

        wires = Wires(lambda: self.ns, lambda _byte: None, lambda _why: None, lambda _number: None, signal)
        board = Board(wires, 0, processors)
        for apic in board.apics:
            apic.write(SPURIOUS, 0x1FF)
        return board


def everybody(_apic: LocalApic) -> bool:
    return True


@pytest.mark.parametrize(("mode", "takers"), [(FIXED, [0, 1, 2]), (LOWEST, [0])])
def test_a_message_goes_to_all_or_to_the_first(mode: int, takers: list[int]) -> None:
    board = World().board()
    board.apics[0].send(mode, 0x41, everybody)
    assert [apic.number for apic in board.apics if apic.pending() == 0x41] == takers
    assert [board.acknowledge(number) for number in takers] == [0x41] * len(takers)
    assert not any(board.pending(number) for number in range(3))


def test_signals_leave_the_board_and_init_resets() -> None:
    world = World()
    board = world.board()
    board.apics[1].send(NMI, 2, lambda apic: apic.number == 2)
    board.apics[0].send(INIT, 0, lambda apic: apic.number == 1)
    assert world.signals == [(NMI, 2, 2), (INIT, 0, 1)]
    assert board.apics[1].read(SPURIOUS) == 0xFF
    assert board.take_messages()
    assert not board.take_messages()


def test_the_8259s_are_heard_by_the_first_alone_and_only_through_lint0() -> None:
    board = World().board()
    for port, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xFE)):
        board.ports.write(port, 1, value)
    board.pic.pulse(IRQ_TIMER)
    assert [board.pending(number) for number in range(3)] == [True, False, False]
    board.apics[0].write(LVT_LINT0, MASKED)
    assert not board.pending(0)
    board.apics[0].write(LVT_LINT0, 7 << 8)
    assert board.acknowledge(0) == 0x20


def test_a_timer_that_nobody_gets_is_not_waited_for() -> None:
    board = World().board()
    for port, value in ((0x43, 0x34), (0x40, 0), (0x40, 0x10)):
        board.ports.write(port, 1, value)
    assert board.next_event({0, 1, 2}) is None
    board.ioapic.entries[PIN_TIMER] = 1 << 56 | 0x30
    assert board.next_event({1}) == board.pit.next_event()
    assert board.next_event({0, 2}) is None


def test_the_state_comes_back() -> None:
    board = World().board()
    board.apics[0].send(FIXED, 0x55, everybody)
    saved = board.save()
    board.acknowledge(0)
    board.take_messages()
    board.load(saved)
    assert board.pending(0)
    assert board.take_messages()

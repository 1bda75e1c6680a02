"""ORC tables as images have them, and walks by them over stacks made of words."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pvops_core.guest.stacks.unwind import Frame, walk
from pvops_core.machine import GuestFault
from tests.guest.stacks.frames import IRQ_STACK, LINES, STACK, TEXT, tables

if TYPE_CHECKING:
    from pvops_core.guest.stacks.orc import Orc

KERNEL_CS, USER_CS = 0x10, 0x33
SAVED = {"bp": 32, "r10": 56, "ip": 128, "cs": 136, "sp": 152}


class Memory:
    """Words by address; a fault where there are none."""

    def __init__(self, **_: int) -> None:
        self.words: dict[int, int] = {}

    def put(self, at: int, *words: int) -> None:
        self.words.update({at + 8 * number: word for number, word in enumerate(words)})

    def regs(self, at: int, **values: int) -> None:
        self.put(at, *[0xDEAD] * 21)
        for name, value in values.items():
            self.words[at + SAVED[name]] = value

    def __call__(self, at: int) -> int:
        if at not in self.words:
            raise GuestFault(f"{at:#x}", vector=14)
        return self.words[at]


def frame(place: int, sp: int, bp: int = 0, *, exact: bool = True, **registers: int) -> Frame:
    return Frame(TEXT + place, sp, bp, exact, lambda name: registers[name])


def nobody(_address: int) -> bool:
    return False


def test_calls_with_and_without_frame_pointers(orc: Orc) -> None:
    memory = Memory()
    memory.put(STACK, TEXT + 0x120)  # called by one with a frame pointer
    memory.put(STACK + 0x100, 0, TEXT + 0x10)  # whose frame has the caller's rbp, and the return into the first
    walked = walk(orc, frame(0x100, STACK, STACK + 0x100), memory, nobody)
    assert walked.places == (TEXT + 0x100, TEXT + 0x120, TEXT + 0x10)
    assert not walked.lost
    assert walked.sp == STACK + 0x110


def test_an_interrupt_is_followed_to_what_it_interrupted_on_another_stack(orc: Orc) -> None:
    memory = Memory()
    memory.regs(IRQ_STACK, ip=TEXT + 0x101, cs=KERNEL_CS, sp=STACK, bp=7)
    memory.put(STACK, 7, TEXT + 0x20)
    walked = walk(orc, frame(0x210, IRQ_STACK), memory, nobody)
    assert walked.places == (TEXT + 0x210, TEXT + 0x101, TEXT + 0x20)
    assert (walked.lost, walked.sp) == (False, STACK + 16)


def test_five_words_are_enough(orc: Orc) -> None:
    memory = Memory()
    memory.put(IRQ_STACK, TEXT + 0x101, KERNEL_CS, 0x246, STACK, 0x18)
    memory.put(STACK, 0, TEXT + 0x20)
    assert walk(orc, frame(0x300, IRQ_STACK), memory, nobody).places == (TEXT + 0x300, TEXT + 0x101, TEXT + 0x20)


def test_what_came_from_user_mode_returns_nowhere_in_the_kernel(orc: Orc) -> None:
    memory = Memory()
    memory.regs(STACK, ip=0x401000, cs=USER_CS, sp=0x7FFF0000)
    walked = walk(orc, frame(0x200, STACK), memory, nobody)
    assert walked.places == (TEXT + 0x200,)
    assert not walked.lost


def test_a_stack_pointer_that_was_kept_at_the_top_of_another_stack(orc: Orc) -> None:
    memory = Memory()
    memory.put(IRQ_STACK, STACK)
    memory.put(STACK, TEXT + 0x20)
    assert walk(orc, frame(0x400, IRQ_STACK), memory, nobody).places == (TEXT + 0x400, TEXT + 0x20)


def test_a_register_is_known_of_one_that_was_interrupted_alone(orc: Orc) -> None:
    memory = Memory()
    memory.put(STACK, TEXT + 0x20)
    assert not walk(orc, frame(0x500, 0, r10=STACK + 8), memory, nobody).lost
    memory.put(STACK + 8, TEXT + 0x501)
    called = walk(orc, frame(0x100, STACK + 8), memory, nobody)
    assert (called.places, called.lost) == ((TEXT + 0x100, TEXT + 0x501), True)


@pytest.mark.parametrize("place", [0x600, -0x1000])
def test_where_the_tables_know_nothing_the_walk_is_lost(orc: Orc, place: int) -> None:
    walked = walk(orc, frame(place, STACK), Memory(), nobody)
    assert (walked.places, walked.lost, walked.sp) == ((TEXT + place,), True, STACK)


def test_a_stack_that_is_not_mapped_loses_it(orc: Orc) -> None:
    assert walk(orc, frame(0x100, STACK), Memory(), nobody).lost


def test_an_entry_that_the_tables_do_not_know_has_just_been_called(orc: Orc) -> None:
    memory = Memory()
    memory.put(STACK, TEXT + 0x20)
    walked = walk(orc, frame(0x610, STACK), memory, lambda address: address == TEXT + 0x610)
    assert (walked.places, walked.lost) == ((TEXT + 0x610, TEXT + 0x20), False)


def test_a_stack_that_leads_round_in_circles_ends(orc: Orc) -> None:
    memory = Memory()
    memory.put(STACK, 0, TEXT + 0x120)
    memory.put(STACK - 16, *struct.unpack("<2Q", struct.pack("<2Q", STACK - 16, TEXT + 0x120)))
    assert walk(orc, frame(0x104, 0, STACK - 16), memory, nobody).lost


def test_who_stands_in_code_without_a_frame_may_return_anywhere() -> None:
    """As in xen_iret, which the tables give no frame though it is about to go back to what was interrupted."""
    memory = Memory()
    memory.put(STACK, TEXT + 0x104, KERNEL_CS, 0x200, STACK + 0x100, 0)
    walked = walk(tables(*LINES, header=True), Frame(TEXT, STACK, 0, exact=True), memory, lambda _: False)
    assert walked.lost

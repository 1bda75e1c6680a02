"""ORC tables as images have them, and walks by them over stacks made of words."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pvops_core.guest.stacks.orc import NUMBERED, Base, Orc, OrcKind, read_orc
from pvops_core.guest.stacks.unwind import Frame, walk
from pvops_core.images import load_image
from pvops_core.machine import GuestFault

ENTRY = np.dtype([("sp_offset", "<i2"), ("bp_offset", "<i2"), ("bits", "<u2")])
TEXT, STACK, IRQ_STACK = 0xFFFFFFFF81000000, 0xFFFFC90000004000, 0xFFFFC90000100000
KERNEL_CS, USER_CS = 0x10, 0x33
OLD = {OrcKind.CALL: 0, OrcKind.REGS: 1, OrcKind.PARTIAL: 2}
NEW = {OrcKind.UNKNOWN: 0, OrcKind.END: 1, OrcKind.CALL: 2, OrcKind.REGS: 3, OrcKind.PARTIAL: 4}
SAVED = {"bp": 32, "r10": 56, "ip": 128, "cs": 136, "sp": 152}


def bits(sp: Base, bp: Base, kind: OrcKind, *, header: bool, numbered: int = 0) -> int:
    both = NUMBERED[numbered].index(sp) | NUMBERED[numbered].index(bp) << 4
    if header:
        return both | NEW[kind] << 8
    return both | (1 << 10 if kind is OrcKind.END else OLD.get(kind, 0) << 8)


Line = tuple[int, Base, int, Base, int, OrcKind]


def tables(*lines: Line, header: bool, numbered: int = 0) -> Orc:
    """From (offset in text, base and offset of the stack pointer, of the frame pointer, kind)."""
    places = np.array([TEXT + line[0] for line in lines], dtype=np.uint64)
    rows = [
        (sp_offset, bp_offset, bits(sp, bp, kind, header=header, numbered=numbered))
        for _, sp, sp_offset, bp, bp_offset, kind in lines
    ]
    return Orc(places, np.array(rows, dtype=ENTRY), header=header)


LINES: tuple[Line, ...] = (
    (0x000, Base.UNDEFINED, 0, Base.UNDEFINED, 0, OrcKind.END),  # where a task begins
    (0x100, Base.SP, 8, Base.UNDEFINED, 0, OrcKind.CALL),  # has pushed nothing
    (0x101, Base.SP, 16, Base.PREV_SP, -16, OrcKind.CALL),  # push rbp
    (0x104, Base.BP, 16, Base.PREV_SP, -16, OrcKind.CALL),  # mov rbp, rsp
    (0x200, Base.SP, 0, Base.UNDEFINED, 0, OrcKind.REGS),  # in an exception's entry code
    (0x300, Base.SP, 0, Base.UNDEFINED, 0, OrcKind.PARTIAL),
    (0x400, Base.SP_INDIRECT, 8, Base.UNDEFINED, 0, OrcKind.CALL),  # on another stack, whose top has the pointer
    (0x500, Base.R10, 0, Base.UNDEFINED, 0, OrcKind.CALL),
    (0x600, Base.UNDEFINED, 0, Base.UNDEFINED, 0, OrcKind.UNKNOWN),
)


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


@pytest.fixture(params=[(False, 0), (True, 0), (True, 1)], ids=["before 6.4", "since 6.4", "of 7.2"])
def orc(request: pytest.FixtureRequest) -> Orc:
    header, numbered = request.param
    return tables(*LINES, header=header, numbered=numbered)


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


def test_an_entrance_that_the_tables_do_not_know_has_just_been_called(orc: Orc) -> None:
    memory = Memory()
    memory.put(STACK, TEXT + 0x20)
    walked = walk(orc, frame(0x610, STACK), memory, lambda address: address == TEXT + 0x610)
    assert (walked.places, walked.lost) == ((TEXT + 0x610, TEXT + 0x20), False)


def test_a_stack_that_leads_round_in_circles_ends(orc: Orc) -> None:
    memory = Memory()
    memory.put(STACK, 0, TEXT + 0x120)
    memory.put(STACK - 16, *struct.unpack("<2Q", struct.pack("<2Q", STACK - 16, TEXT + 0x120)))
    assert walk(orc, frame(0x104, 0, STACK - 16), memory, nobody).lost


def test_where_the_numbering_cannot_be_told_nothing_is_known() -> None:
    rows = np.array([(8, 0, 7 | NEW[OrcKind.CALL] << 8)], dtype=ENTRY)  # all from R13
    assert Orc(np.array([TEXT], dtype=np.uint64), rows, header=True).find(TEXT) is None


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["6.1.0-56-cloud-amd64", "6.12.117+deb12-cloud-amd64", "7.2.13+deb14-cloud-amd64"])
def test_tables_of_three_ages_say_where_a_function_that_begins_returns_to(
    name: str, kernel_path: Callable[[str], Path]
) -> None:
    image = load_image(kernel_path(f"vmlinuz-{name}"))
    orc = read_orc(image)
    assert orc is not None
    for function in ("do_exit", "vfs_read", "schedule"):
        assert orc.find(image.symbols[function]) == (Base.SP, 8, Base.UNDEFINED, 0, OrcKind.CALL)


def test_who_stands_in_code_without_a_frame_may_return_anywhere() -> None:
    """As in xen_iret, which the tables give no frame though it is about to go back to what was interrupted."""
    memory = Memory()
    memory.put(STACK, TEXT + 0x104, KERNEL_CS, 0x200, STACK + 0x100, 0)
    walked = walk(tables(*LINES, header=True), Frame(TEXT, STACK, 0, exact=True), memory, lambda _: False)
    assert walked.lost

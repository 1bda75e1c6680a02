"""A plain model of the manual's rules for memory accesses, to compare the machine with.

It knows a handful of instructions, as ``memory_programs`` writes them, and nothing of how the machine works. Sources:
Intel SDM volume 3, 4.6 and 4.7 (access rights, page faults), 6.15 (#SS and #GP), volume 1, 3.3.7.1 (canonical
addresses), and the pages of the instructions in volume 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

PAGE: Final = 0x1000
GP, SS, PF, UD = 13, 12, 14, 6
AX, CX, DX, BX, SP, BP, SI, DI = range(8)
DF: Final = 1 << 10
ZF: Final = 1 << 6
_ARITHMETIC: Final = 0x8D5
"""CF, PF, AF, ZF, SF and OF."""


@attrs.frozen
class Page:
    """One page: its frame's number, and who may do what."""

    frame: int
    writable: bool = True
    user: bool = True
    no_execute: bool = False


@attrs.frozen
class World:
    """What does not change while a program runs.

    Attributes:
        bits: 32 or 64.
        nx: no-execute pages exist.
        user: the program runs at level 3.
        protect: CR0.WP.
        pages: page number -> mapping; a page that is not there is missing.
        lowest: what is below this address is the bench's own.
    """

    bits: int
    nx: bool
    user: bool
    protect: bool
    pages: Mapping[int, Page]
    lowest: int = 0x100000


class Fault(Exception):  # noqa: N818 - the manuals call it a fault
    """What the program ends with."""

    def __init__(self, vector: int, error: int | None, address: int | None = None) -> None:
        super().__init__(vector, error, address)
        self.vector, self.error, self.address = vector, error, address


class OffTheMapError(Exception):
    """The model cannot say what comes: nobody wrote instructions there, or the manual leaves it open."""


Step = Callable[["Model"], None]


class Model:
    """One processor.

    Attributes:
        registers: AX to DI.
        flags: RFLAGS, of which the model changes DF and those of arithmetic.
        frames: frame number -> its bytes.
        target: where the instruction under way leads.
        progress: it is a repeated one that has been done some times, which stays so when it faults.
    """

    def __init__(self, world: World, frames: dict[int, bytearray], registers: list[int], flags: int, rip: int) -> None:
        self.world, self.frames = world, frames
        self.registers, self.flags, self.rip = registers, flags, rip
        self.mask = (1 << world.bits) - 1
        self.target = rip
        self.progress = False
        self._written: list[tuple[bytearray, int, int]] = []

    def run(self, program: Mapping[int, tuple[int, Step]], most: int = 200) -> Fault:
        """Execute instructions (address -> length, what it does) to the first fault."""
        for _ in range(most):
            self.progress = False
            self._written.clear()
            before = list(self.registers), self.flags
            try:
                self._fetch(self.rip, 1)
                if self.rip not in program:
                    raise OffTheMapError
                length, step = program[self.rip]
                self._fetch(self.rip, length)
                self.target = self.rip + length & self.mask
                step(self)
            except Fault as fault:
                if not self.progress:
                    self.registers, self.flags = before
                    for frame, at, old in reversed(self._written):
                        frame[at] = old
                return fault
            self.rip = self.target
        raise OffTheMapError

    # Memory

    def _fetch(self, start: int, size: int) -> None:
        self._check(start, size, "cs", write=False, fetch=True)

    def _check(self, start: int, size: int, segment: str, *, write: bool, fetch: bool = False) -> None:
        """Every byte of an access may be accessed so, or the fault of the first page that refuses."""
        last = start + size - 1 & self.mask
        if self.world.bits == 64 and any(at >> 47 not in {0, 0x1FFFF} for at in (start, last)):
            raise Fault(SS if segment == "ss" else GP, 0)
        self._check_page(start, write=write, fetch=fetch)
        if last // PAGE != start // PAGE:
            self._check_page(last // PAGE * PAGE, write=write, fetch=fetch)

    def _check_page(self, at: int, *, write: bool, fetch: bool) -> None:
        world, page = self.world, self.world.pages.get(at // PAGE)
        if at < world.lowest:
            raise OffTheMapError
        code = (2 if write else 0) | (4 if world.user else 0) | (16 if fetch and world.nx else 0)
        if page is None:
            raise Fault(PF, code, at)
        refused = world.user and not page.user
        refused |= write and not page.writable and (world.user or world.protect)
        refused |= fetch and page.no_execute and world.nx
        if refused:
            raise Fault(PF, code | 1, at)

    def _bytes(self, start: int, size: int) -> list[tuple[bytearray, int]]:
        addresses = [at & self.mask for at in range(start, start + size)]
        return [(self.frames[self.world.pages[at // PAGE].frame], at % PAGE) for at in addresses]

    def load(self, start: int, size: int, segment: str = "ds", *, change: bool = False) -> int:
        """A number from memory; one that is to be changed has to be writable."""
        start &= self.mask
        self._check(start, size, segment, write=change)
        return sum(frame[at] << 8 * index for index, (frame, at) in enumerate(self._bytes(start, size)))

    def faults(self, start: int, size: int) -> bool:
        """Whether a load would fault."""
        try:
            self.load(start, size)
        except Fault:
            return True
        return False

    def store(self, start: int, size: int, value: int, segment: str = "ds") -> None:
        """A number to memory: all of it or none."""
        start &= self.mask
        self._check(start, size, segment, write=True)
        for index, (frame, at) in enumerate(self._bytes(start, size)):
            self._written.append((frame, at, frame[at]))
            frame[at] = value >> 8 * index & 0xFF

    def may_write(self, start: int, segment: str) -> None:
        """A byte could be written, or the fault."""
        self._check(start & self.mask, 1, segment, write=True)

    # Registers

    def set(self, number: int, size: int, value: int) -> None:
        """Write a register: 32 bits clear the upper half, 8 and 16 leave the rest."""
        if size >= 4:
            self.registers[number] = value & (1 << 8 * size) - 1
        else:
            part = (1 << 8 * size) - 1
            self.registers[number] = self.registers[number] & ~part | value & part

    def get(self, number: int, size: int) -> int:
        """Read a register's low bytes."""
        return self.registers[number] & (1 << 8 * size) - 1

    @property
    def word(self) -> int:
        """Bytes that a push pushes."""
        return self.world.bits // 8

    def push(self, value: int, size: int = 0) -> None:
        """Store, and then move the stack pointer."""
        size = size or self.word
        at = self.registers[SP] - size & self.mask
        self.store(at, size, value, "ss")
        self.registers[SP] = at

    def top(self, size: int = 0) -> int:
        """What a pop gives."""
        return self.load(self.registers[SP], size or self.word, "ss")

    def drop(self, size: int = 0) -> None:
        """Move the stack pointer after a pop."""
        self.registers[SP] = self.registers[SP] + (size or self.word) & self.mask

    def add_flags(self, left: int, right: int, size: int) -> int:
        """The sum, and its flags."""
        bits = 8 * size
        total = left + right
        result = total & (1 << bits) - 1
        sign = 1 << bits - 1
        flags = (1 if total >> bits else 0) | (0 if (result & 0xFF).bit_count() & 1 else 4)
        flags |= (left ^ right ^ result) & 0x10
        flags |= (0x40 if not result else 0) | (0x80 if result & sign else 0)
        flags |= 0x800 if ~(left ^ right) & (left ^ result) & sign else 0
        self.flags = self.flags & ~_ARITHMETIC | flags
        return result

    def compare_flags(self, left: int, right: int, size: int) -> None:
        """The flags of left minus right."""
        bits = 8 * size
        result = left - right & (1 << bits) - 1
        sign = 1 << bits - 1
        flags = (1 if left < right else 0) | (0 if (result & 0xFF).bit_count() & 1 else 4)
        flags |= (left ^ right ^ result) & 0x10
        flags |= (ZF if not result else 0) | (0x80 if result & sign else 0)
        flags |= 0x800 if (left ^ right) & (left ^ result) & sign else 0
        self.flags = self.flags & ~_ARITHMETIC | flags


def place(model: Model, base: int, distance: int) -> tuple[int, str]:
    """Address and segment of a place from a register on."""
    return model.registers[base] + distance & model.mask, "ss" if base in {SP, BP} else "ds"

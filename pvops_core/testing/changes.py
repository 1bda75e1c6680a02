"""What has changed in a guest's machine between two looks, found without looking at all of its memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.cpu.registers import GENERAL
from pvops_core.machine.run.written import written_pages
from pvops_core.x86 import ARITHMETIC, PAGE, PRESENT

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.session import Session

SYSTEM: Final = ("rflags", "cr0", "cr2", "cr3", "cr4", "cs", "ss", "ds", "es", "fs", "gs", "dr0", "dr1", "dr2", "dr3")
TABLES: Final = ("gdtr", "idtr", "ldtr", "tr")
MSRS: Final = {
    32: (0x174, 0x175, 0x176),
    64: (0x174, 0x175, 0x176, 0xC0000080, 0xC0000081, 0xC0000082, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102),
}
"""SYSENTER_CS, ESP and EIP; EFER, STAR, LSTAR, SFMASK, FS_BASE, GS_BASE, KERNEL_GS_BASE."""
STACK_POINTERS: Final = {32: "esp", 64: "rsp"}
ACCESSED_DIRTY: Final = 0x60


def registers_of(cpu: Vcpu) -> dict[str, int]:
    """A vCPU's registers by name, descriptor tables (``gdtr``: base) and MSRs (``msr 0x174``) among them."""
    bits = cpu.machine.kind.bits
    registers = {name: cpu.get(name) for name in (*GENERAL[bits], STACK_POINTERS[bits], *SYSTEM)}
    registers |= {name: cpu.table(name).base for name in TABLES}
    return registers | {f"msr {number:#x}": cpu.msr(number) for number in MSRS[bits]}


@attrs.frozen
class StateChange:
    """One thing that is not what it was.

    Attributes:
        old: the value before.
        new: the value since.
    """

    old: int
    new: int

    def __str__(self) -> str:
        return f"{self.old:#x} -> {self.new:#x}"


class Changes(Mapping[str | int, StateChange]):
    """Registers by name, and words of memory by guest-virtual address, that are not what they were.

    Bits that the CPU sets by itself in page-table entries that it walks (accessed, dirty) are no change.

    Args:
        registers: the registers that changed.
        memory: the words that changed.
    """

    def __init__(self, registers: Mapping[str, StateChange], memory: Mapping[int, StateChange]) -> None:
        self.registers = dict(registers)
        self.memory = dict(memory)
        places: chain[str | int] = chain(registers, memory)
        self._all = dict(zip(places, chain(registers.values(), memory.values()), strict=True))

    def __getitem__(self, place: str | int) -> StateChange:
        return self._all[place]

    def __iter__(self) -> Iterator[str | int]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        shown = (f"{place if isinstance(place, str) else hex(place)}: {change}" for place, change in self.items())
        return "{" + ", ".join(shown) + "}"


class GuestFrames:
    """Where a guest's kernel sees machine memory: in its image, or in its map of all memory.

    Args:
        session: the guest's.
    """

    def __init__(self, session: Session) -> None:
        self._platform = session.platform
        self._size = session.platform.guest_memory
        self._segments = session.guest.image.segments
        self._map = session.guest.direct_map(session.text)
        self._pages: dict[int, int] = {}
        self._read = False

    def expire(self) -> None:
        """The guest has run, and may have exchanged frames."""
        self._read = False

    def virtual(self, machine: int) -> int | None:
        """Kernel-virtual address of a page; None for a frame that is not the guest's own."""
        pa = self._pages.get(machine)
        if not self._read and (pa is None or self._platform.machine_address(pa) != machine):
            self._pages = {self._platform.machine_address(pa): pa for pa in range(0, self._size, PAGE)}
            self._read = True
            pa = self._pages.get(machine)
        if pa is None:
            return None
        for segment in self._segments:
            if segment.address and 0 <= pa - segment.physical < segment.memory_size:
                return segment.address + pa - segment.physical
        return self._map + pa


class StateDiff:
    """A machine as it is now, to be compared with what it is later; the machine is not running.

    Only what has been written since memory last went back to a snapshot is read; if it never has, it does so now.

    Args:
        session: whose machine it is.
        cpu: the vCPU whose registers are looked at.
        frames: where its kernel sees memory.
        stack: the stack pointer below which nothing counts.
    """

    def __init__(self, session: Session, cpu: Vcpu, frames: GuestFrames, stack: int) -> None:
        self._memory, self._size = session.machine.memory, session.machine.kind.pointer_size
        origin = self._memory.origin
        if origin is None:
            # What has been written is known since memory last went back to a snapshot, so there must be one.
            origin = self._memory.save()
            self._memory.load(origin)
        self._frames = frames
        self._origin = origin
        self._pages = {page: self._memory.read(page, PAGE) for page in written_pages(self._memory, self._origin)}
        self._registers = registers_of(cpu)
        self._dead = dict(dead_stack(cpu, stack, session.guest.stack_size))

    def changes(self, cpu: Vcpu, *, lost: frozenset[str]) -> Changes:
        """What is different now, without ``lost`` registers, the stack pointer, and the stack below it of then."""
        lost |= {STACK_POINTERS[8 * self._size]}
        registers = {
            name: StateChange(self._registers[name], new)
            for name, new in registers_of(cpu).items()
            if name not in lost and (self._registers[name] ^ new) & (~ARITHMETIC if name == "rflags" else -1)
        }
        self._frames.expire()
        return Changes(registers, dict(self._words()))

    def _words(self) -> Iterator[tuple[int, StateChange]]:
        for page in written_pages(self._memory, self._origin):
            before, after = self._pages.get(page) or self._origin.read(page, PAGE), self._memory.read(page, PAGE)
            if before == after or (va := self._frames.virtual(page)) is None:
                continue
            old, new = (np.frombuffer(data, f"<u{self._size}") for data in (before, after))
            for place in np.flatnonzero(old != new).tolist():
                was, now = int(old[place]), int(new[place])
                # A present entry in which A or D alone is new was walked through by the CPU, and is as it was.
                seen_only = was & PRESENT and not (was ^ now) & ~ACCESSED_DIRTY
                if place * self._size >= self._dead.get(page, 0) and not seen_only:
                    yield va + place * self._size, StateChange(was, now)


def dead_stack(cpu: Vcpu, top: int, size: int) -> Iterator[tuple[int, int]]:
    """Machine addresses of the pages of a stack below its pointer, as far as they are mapped, and the bytes in each."""
    for page in range(top & -size, top, PAGE):
        try:
            yield cpu.walk(page, user=False).pa, min(PAGE, top - page)
        except GuestFault:
            continue

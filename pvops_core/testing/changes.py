"""What a machine looks like to a hook test, and what has changed between two looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import attrs
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pvops_core.machine import Vcpu
    from pvops_core.session import Session

GENERAL: Final = {
    32: ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp"),
    64: ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16))),
}
SYSTEM: Final = ("rflags", "cr0", "cr2", "cr3", "cr4", "cs", "ss", "ds", "es", "fs", "gs", "dr0", "dr1", "dr2", "dr3")
TABLES: Final = ("gdtr", "idtr", "ldtr", "tr")
MSRS: Final = {
    32: (0x174, 0x175, 0x176),
    64: (0x174, 0x175, 0x176, 0xC0000080, 0xC0000081, 0xC0000082, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102),
}
"""SYSENTER_CS, ESP and EIP; EFER, STAR, LSTAR, SFMASK, FS_BASE, GS_BASE, KERNEL_GS_BASE."""
ARITHMETIC: Final = 0x8D5
"""CF, PF, AF, ZF, SF, OF: lost in every call."""
ACCESSED_DIRTY: Final = 0x60
PRESENT: Final = 1


def registers_of(cpu: Vcpu) -> dict[str, int]:
    """A vCPU's registers by name, descriptor tables (``gdtr``: base) and MSRs (``msr 0x174``) among them."""
    bits = cpu.machine.kind.bits
    registers = {name: cpu.get(name) for name in (*GENERAL[bits], *SYSTEM)}
    registers |= {name: cpu.table(name).base for name in TABLES}
    return registers | {f"msr {number:#x}": cpu.msr(number) for number in MSRS[bits]}


@attrs.frozen
class Change:
    """One thing that is not what it was.

    Attributes:
        old: the value before.
        new: the value since.
    """

    old: int
    new: int

    def __str__(self) -> str:
        return f"{self.old:#x} -> {self.new:#x}"


@attrs.frozen(eq=False)
class Look:
    """A machine as it was at one time, to be compared with what it is now; used again and again.

    Attributes:
        session: whose machine it is.
        cpu: the vCPU whose registers are looked at.
        registers: values by name, descriptor tables (``gdtr``: base) and MSRs (``msr 0x174``) among them.
        memory: all of the guest's memory, as machine-physical words of a pointer's size.
    """

    session: Session
    cpu: Vcpu
    registers: dict[str, int] = attrs.field(factory=dict, init=False)
    memory: NDArray[np.unsignedinteger[Any]] = attrs.field(init=False)

    _virtual: _Virtual = attrs.field(init=False)

    @_virtual.default
    def _seen_by_the_guest(self) -> _Virtual:
        return _Virtual(self.session)

    @memory.default
    def _blank(self) -> NDArray[np.unsignedinteger[Any]]:
        return np.empty_like(self._live())

    def _live(self) -> NDArray[np.unsignedinteger[Any]]:
        size = self.session.platform.guest_memory
        words = np.uint64 if self.session.guest.kind.bits == 64 else np.uint32
        return self.session.machine.memory.array[:size].view(words)

    def take(self) -> None:
        """Look now; the machine must not be running."""
        self.registers.clear()
        self.registers.update(registers_of(self.cpu))
        np.copyto(self.memory, self._live())

    def changes(self, *, lost: frozenset[str] = frozenset(), dead: range = range(0)) -> Changes:
        """What is different now.

        Args:
            lost: registers that do not count.
            dead: guest-virtual addresses, the stack below its pointer, that do not count.
        """
        registers = {
            name: Change(self.registers[name], new)
            for name, new in registers_of(self.cpu).items()
            if name not in lost and _differs(name, self.registers[name], new)
        }
        return Changes(registers, dict(self._memory(dead)))

    def _memory(self, dead: range) -> Iterator[tuple[int, Change]]:
        live = self._live()
        places = np.flatnonzero(live != self.memory)
        if not len(places):
            return
        old, new = self.memory[places].tolist(), live[places].tolist()
        for place, before, after in zip(places.tolist(), old, new, strict=True):
            if before & PRESENT and not (before ^ after) & ~ACCESSED_DIRTY:
                continue
            va = self._virtual.address(place * live.itemsize)
            if va is not None and va not in dead:
                yield va, Change(before, after)


class Changes(Mapping[str | int, Change]):
    """Registers by name, and words of memory by guest-virtual address, that are not what they were.

    Bits that the CPU sets by itself in page-table entries that it walks (accessed, dirty) are no change.

    Args:
        registers: the registers that changed.
        memory: the words that changed.
    """

    def __init__(self, registers: Mapping[str, Change], memory: Mapping[int, Change]) -> None:
        self.registers = dict(registers)
        self.memory = dict(memory)
        places: chain[str | int] = chain(registers, memory)
        self._all = dict(zip(places, chain(registers.values(), memory.values()), strict=True))

    def __getitem__(self, place: str | int) -> Change:
        return self._all[place]

    def __iter__(self) -> Iterator[str | int]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        shown = (f"{place if isinstance(place, str) else hex(place)}: {change}" for place, change in self.items())
        return "{" + ", ".join(shown) + "}"


def _differs(name: str, old: int, new: int) -> bool:
    return bool((old ^ new) & (~ARITHMETIC if name == "rflags" else -1))


class _Virtual:
    """Where the guest's kernel sees machine memory."""

    def __init__(self, session: Session) -> None:
        self._platform = session.platform
        self._base = session.builtin.kernel_base
        self._size = session.platform.guest_memory
        self._pages: dict[int, int] = {}

    def address(self, machine: int) -> int | None:
        """Kernel-virtual address; None for a frame that is not the guest's own."""
        page = machine & ~0xFFF
        where = self._platform.machine_address
        pa = self._pages.get(page, page)
        if pa >= self._size or where(pa) != page:  # the guest may have exchanged frames since
            self._pages = {where(pa): pa for pa in range(0, self._size, 0x1000)}
            if page not in self._pages:
                return None
            pa = self._pages[page]
        return self._base + pa + (machine & 0xFFF)

"""What words of a running kernel's memory are called, for people who read where two calls differ."""

from __future__ import annotations

from bisect import bisect_right
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.kinds import MachineKind
from pvops_core.machine import GuestFault
from pvops_core.testing.changes import GuestFrames
from pvops_core.testing.proofs.unread import OF_LINUX, UnreadMemory
from pvops_core.x86 import PAGE, PRESENT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pvops_core.backends.proof import ProofNotes
    from pvops_core.session import Session
    from pvops_core.testing.proofs.comparing import ProofKind
    from pvops_core.testing.proofs.unread import Masks

_LARGE: Final = 0x80
_KERNEL_MAP: Final = {32: 0xC0000000, 64: 0xFFFFFFFF80000000}
"""Where Linux maps physical address 0 for its image (__START_KERNEL_map, PAGE_OFFSET)."""
_FRAME: Final = 0x000FFFFFFFFFF000


class KernelPlaces:
    """Names of words of machine memory, in a session that stands still.

    Args:
        session: the session.
        notes: what its backend says of its kernel's variables.
    """

    def __init__(self, session: Session, notes: ProofNotes) -> None:
        self._session, self._notes = session, notes
        self._memory, self._image = session.machine.memory, session.guest.image
        self._frames = GuestFrames(session)
        self._unread = UnreadMemory(session, {**OF_LINUX, **notes.unread})
        self._tables: frozenset[int] | None = None
        self._map = 0
        symbols = session.guest.symbols
        start, end = symbols.get("__per_cpu_start", 0), symbols.get("__per_cpu_end", 0)
        self._offsets = symbols.get("__per_cpu_offset")
        self._linked = _KERNEL_MAP[session.machine.kind.bits]
        inside = sorted((address, name) for name, address in symbols.items() if start <= address < end)
        self._starts = [address for address, _ in inside]
        self._names = [name for _, name in inside]
        self._end = end
        self._mask = (1 << session.machine.kind.bits) - 1

    def moved(self) -> None:
        """The kernel has run: frames may have been exchanged, and tables made."""
        self._frames.expire()
        self._tables = None
        self._map = self._session.guest.direct_map(self._session.text)

    def read(self, address: int) -> bytes:
        """A page as it is."""
        return self._memory.read(address, PAGE)

    def scratch(self, address: int) -> bool:
        """Whether its backend says that the variable may hold anything after a call."""
        return self._is_scratch(self._variable(address))

    def unread(self, written: Mapping[int, bytes], among: Collection[int]) -> Masks:
        """Which bytes of some pages nobody reads, after a call that has written pages."""
        return self._unread.masks(written, among)

    def returns(self, hypercall: str) -> bool:
        """Whether it ends the handling of a fault."""
        return hypercall in self._notes.returns

    def own(self, va: int) -> bool:
        """Whether a guest-virtual address is that of such a variable."""
        found = self._image.symbol_at(va)
        return found is not None and self._is_scratch(found[0])

    def _is_scratch(self, variable: str) -> bool:
        return any(fnmatchcase(variable, pattern) for pattern in self._notes.scratch)

    def name(self, address: int) -> tuple[ProofKind, str]:
        """What kind of memory a word is, and what people call it."""
        variable = self._variable(address)
        if variable in self._notes.event_mask:
            return "event mask", variable
        va = self._frames.virtual(address & -PAGE)
        where = f"{va + address % PAGE:#x}" if va is not None else f"machine address {address:#x}"
        kind: ProofKind = "page tables" if address & -PAGE in self._page_tables() else "memory"
        return kind, f"{variable} ({where})" if variable else where

    def _variable(self, address: int) -> str:
        """The kernel's variable that a word belongs to; a per-CPU one by its symbol too. Empty if none is known."""
        va = self._frames.virtual(address & -PAGE)
        if va is None:
            return ""
        va += address % PAGE
        for offset in self._areas():
            for place in (va, self._linked + va - self._map):  # the first area is in the image until others are made
                linked = place - offset & self._mask  # since 6.15 an offset leads back from where symbols are linked
                if self._starts and self._starts[0] <= linked < self._end:
                    return self._names[bisect_right(self._starts, linked) - 1]
        found = self._image.symbol_at(va)
        return found[0] if found and self._image.section_at(va) else ""

    def _areas(self) -> Iterator[int]:
        """What is added to a per-CPU symbol, for each CPU."""
        if self._offsets is None:
            return
        for cpu in range(len(self._session.machine.vcpus)):
            try:
                yield self._session.space.word(self._offsets + cpu * self._session.machine.kind.pointer_size)
            except GuestFault:
                continue

    def _page_tables(self) -> frozenset[int]:
        """Machine addresses of the tables that vCPUs walk now."""
        if self._tables is None:
            levels = {MachineKind.X86_64: 4, MachineKind.PAE: 3, MachineKind.I386: 2}[self._session.machine.kind]
            roots = {vcpu.cr3 & _FRAME for vcpu in self._session.machine.vcpus}
            self._tables = frozenset(address for root in roots for address in self._below(root, levels))
        return self._tables

    def _below(self, table: int, level: int) -> Iterator[int]:
        """A table, and those below it."""
        yield table
        if level == 1 or table + PAGE > self._memory.size:
            return
        wide = 4 if self._session.machine.kind is MachineKind.I386 else 8
        entries = np.frombuffer(self._memory.read(table, PAGE), f"<u{wide}")
        for entry in entries[entries & PRESENT != 0].tolist():
            if level > 2 or not entry & _LARGE:
                yield from self._below(entry & _FRAME, level - 1)

"""What the laws stand on: the guest's structures, its page tables, and words for looking at them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

import attrs
import pytest

from pvops_core.machine.cpu.registers import GENERAL
from pvops_core.testing.call import Caller, CallError

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.machine import Vcpu
    from pvops_core.ops import Layout
    from pvops_core.session.callee import Callee
    from pvops_core.testing.effect import Effect
    from pvops_core.testing.fixtures.keptmachine import KeptMachine

KERNEL: Final = 0x63
"""Present, writable, accessed, dirty."""
TABLE: Final = 0x67
FRAME: Final = 0x000F_FFFF_FFFF_F000
AREA: Final = 0x2004_0000
"""Above the kernel's base: pages of the guest's that it maps when it wants to, their table always there."""
SETTABLE: Final = 0x3200
"""The flags that ops are about: IF and IOPL."""
TLS: Final = {32: 6, 64: 12}


@attrs.frozen(slots=False)
class Keeping(Caller):
    """Calls ops and functions; one that changes a register or flag that its calling convention keeps has failed.

    Attributes:
        made: what each call did, in order.
    """

    made: list[Effect] = attrs.field(factory=list, repr=False)

    def measure(self, callee: Callee) -> Effect:
        """Make a call; AssertionError names what it changed."""
        done, op = super().measure(callee), callee.what
        self.made.append(done)
        changed = done.changes.registers
        lost = {name for name in GENERAL[self.session.guest.kind.bits] if name in changed}
        if op != "restore_fl" and "rflags" in changed and (changed["rflags"].old ^ changed["rflags"].new) & ~SETTABLE:
            lost.add("rflags")
        assert not lost, f"{op} changed what its caller keeps: {done.changes}"
        return done


@attrs.frozen(slots=False)
class Fixture:
    """A machine and its guest's structures.

    Attributes:
        kept: its machine, kept from test to test.
        backend: the backend that is tested.
        has: its capabilities.
    """

    kept: KeptMachine
    backend: Backend
    has: frozenset[str]

    @cached_property
    def call(self) -> Keeping:
        """Calls ops, and looks each time whether registers are kept."""
        return Keeping(self.kept.session)

    @property
    def bare(self) -> bool:
        """Ops reach the processor itself: no hypervisor stands for it."""
        return not self.has & {"hypercalls", "cpu.ring1"}

    @property
    def cpu(self) -> Vcpu:
        """The vCPU that calls."""
        return self.kept.call.cpu

    @property
    def layout(self) -> Layout:
        """The guest's table."""
        return self.kept.session.layout

    @property
    def bits(self) -> int:
        """32 or 64."""
        return self.kept.session.guest.kind.bits

    @property
    def word(self) -> int:
        """Bytes of a pointer."""
        return self.bits // 8

    def symbol(self, name: str) -> int:
        """Guest-virtual address of a symbol, or the number that an absolute one is."""
        return self.kept.session.guest.symbols[name]

    @cached_property
    def init_mm(self) -> int:
        """The kernel's own address space."""
        return self.symbol("init_mm")

    @property
    def area(self) -> int:
        """A page of the guest's that is not mapped."""
        return self.symbol("kernel_base") + AREA

    def page(self, word: int = 0) -> int:
        """A fresh page, its first word set."""
        page = self.call.page()
        if word:
            self.call.store(page, word)
        return page

    def pfn(self, va: int) -> int:
        """Frame number of a page of the kernel's."""
        return self.call.physical(va) >> 12

    def pte(self, va: int) -> int:
        """Where the leaf entry of a kernel address is."""
        return self.call.function("area_pte", va).result

    def stored(self, place: int) -> int:
        """An entry as it stands in a table."""
        size = self.kept.session.guest.kind.entry_size
        value = self.call.load(place)
        # With PAE an entry is two of the guest's words.
        return value | self.call.load(place + 4) << 32 if size > self.word else value

    def made(self, level: str, va: int, flags: int = KERNEL) -> int:
        """The entry to store for a page and flags."""
        meant = self.call.physical(va) | flags
        return self.call(f"make_{level}", meant).result if f"make_{level}" in self.layout else meant

    def read(self, level: str, entry: int) -> int:
        """What the kernel sees of an entry as stored."""
        return self.call(f"{level}_val", entry).result if f"{level}_val" in self.layout else entry

    def map(self, va: int, page: int, flags: int = KERNEL) -> None:
        """Map a page in the kernel's own address space, by set_pte; nothing is flushed."""
        self.call("set_pte", self.pte(va), self.made("pte", page, flags))

    def bytes(self, va: int, length: int) -> bytes:
        """Memory as the guest's own instructions read it; whole words."""
        words = (self.call.load(va + done) for done in range(0, length, self.word))
        return b"".join(word.to_bytes(self.word, "little") for word in words)

    def flush(self) -> None:
        """Flush everything."""
        self.call("flush_tlb_kernel")

    def writable(self, page: int) -> bool:
        """Whether the kernel's own mapping of a page lets it be written."""
        return bool(self.stored(self.pte(page)) & 2)

    def may_refuse(self, op: str, *arguments: int) -> Effect:
        """Call an op that a platform may answer with a fault; the test is skipped if this one does."""
        try:
            return self.call(op, *arguments)
        except CallError as error:
            if not error.faults:
                raise
            vector = error.faults[-1].vector
            pytest.skip(f"the platform refuses {op} (vector {vector})")

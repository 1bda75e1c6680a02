"""The smallest kernel that can be patched, written in memory: tables of ops, call sites and ALTERNATIVE entries.

How the sites are annotated is the layout's: ``.parainstructions`` where that has records, else direct calls.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.images.elfwriter import ALLOC
from pvops_core.patching.altinstructions.alternatives import ALWAYS
from pvops_core.patching.altinstructions.altrecords import FLAG_DIRECT_CALL
from pvops_core.testing.images import ElfBuilder
from pvops_core.testing.kallsyms import TableShape, tables
from pvops_core.testing.types import template_types

if TYPE_CHECKING:
    from pvops_core.ops import Layout, Slot

STUB: Final = 16
"""Bytes from one function to the next."""

SITE: Final = 8
"""Bytes from one site to the next; each site has six of them."""

SPECIAL_NAMES: Final = {
    "lock.queued_spin_unlock": "__raw_callee_save___native_queued_spin_unlock",
    "lock.vcpu_is_preempted": "__raw_callee_save___native_vcpu_is_preempted",
}
NOTHING: Final = frozenset({"lock.wait", "lock.kick", "mmu.exit_mmap", "cpu.start_context_switch"})
"""Ops whose slot is linked to the function that does nothing."""

FEWEST_SYMBOLS: Final = 1200
"""Symbols that kallsyms needs to be found; no kernel has so few."""


@attrs.frozen
class Alternative:
    """An ALTERNATIVE over a site.

    Attributes:
        site: number of the site.
        feature: number of the CPU feature that decides.
        inverted: replace where the feature is not there.
        code: the replacement.
    """

    site: int
    feature: int
    inverted: bool
    code: bytes


def without_ops(layout: Layout, *paths: str) -> Layout:
    """A layout without some ops, as a later kernel may have it: those behind them move up in their table."""
    slots: list[Slot] = []
    size: Counter[str] = Counter()
    for slot in layout.slots:
        if slot.path not in paths:
            slots.append(attrs.evolve(slot, type=len(slots), offset=layout.pointer_size * size[slot.symbol]))
            size[slot.symbol] += 1
    return attrs.evolve(layout, name=f"less than {layout.name}", slots=tuple(slots))


@attrs.define
class SmallKernel:
    """What to build; every attribute may be changed before :meth:`builder` is called.

    Attributes:
        layout: layout of the table.
        types: type number of each site.
        alternatives: entries over the sites.
        functions: functions that are in the kernel besides those that the table is linked to.
        shape: shape of an ALTERNATIVE record: its bytes, 12, 13 or 14.
        typed: whether it has type information.
        stripped: how its symbols are kept in kallsyms; None for a symbol table.
    """

    layout: Layout
    types: Sequence[int] = ()
    alternatives: Sequence[Alternative] = ()
    functions: Sequence[str] = ()
    shape: int = 12
    typed: bool = False
    stripped: TableShape | None = None

    @property
    def base(self) -> int:
        """Virtual address of the functions."""
        return 0xFFFFFFFF81000000 if self.layout.pointer_size == 8 else 0xC1000000

    @property
    def direct(self) -> bool:
        """Whether its call sites are ALTERNATIVEs."""
        return not self.layout.record_size

    @property
    def nothing(self) -> str:
        """Its function that does nothing."""
        return "nop_func" if self.direct else "_paravirt_nop"

    @property
    def bug(self) -> str:
        """What it calls in place of an empty slot."""
        return "BUG_func" if self.direct else "paravirt_BUG"

    @property
    def names(self) -> list[str]:
        """The functions, each :data:`STUB` bytes behind the last."""
        return [self.nothing, self.bug, *self.linked, *self.functions]

    @property
    def linked(self) -> list[str]:
        """The function that each slot is linked to, by type number."""
        return [
            self.nothing
            if slot.path in NOTHING
            else SPECIAL_NAMES.get(slot.path, f"native_{slot.path.rpartition('.')[2]}")
            for slot in self.layout.slots
        ]

    @property
    def addresses(self) -> Mapping[str, int]:
        """Virtual address of each function."""
        return {name: self.base + STUB * index for index, name in reversed([*enumerate(self.names)])}

    def builder(self) -> ElfBuilder:
        """The kernel, for more sections and symbols to be added."""
        builder = ElfBuilder(8 * self.layout.pointer_size, base=self.base)
        builder.text(".text", b"\xc3".ljust(STUB, b"\xcc") * len(self.names))
        data, places = self._tables()
        start = builder.section(".data", data)
        found = {**self.addresses, **{symbol: start + at for symbol, at in places.items()}}
        slots = [found[slot.symbol] + slot.offset for slot in self.layout.slots]
        if self.types:
            self._sites(builder, start + 0x2000, slots)
        if self.typed:
            builder.section(".BTF", template_types(self.layout))
        self._symbols(builder, found)
        return builder

    def _symbols(self, builder: ElfBuilder, found: Mapping[str, int]) -> None:
        if self.stripped is None:
            for name, at in found.items():
                builder.symbol(name, at)
            return
        fillers = {f"filler_{number}": self.base + number for number in range(1, FEWEST_SYMBOLS)}
        ordered = sorted({**found, **fillers}.items(), key=lambda item: item[1])
        address = builder.section(".rodata", b"")
        data = bytes(64) + tables([(f"T{name}", at) for name, at in ordered], self.stripped, address + 64)
        builder.section(".kallsyms", data, address=address)

    def _tables(self) -> tuple[bytes, Mapping[str, int]]:
        """The tables' bytes, and the place of each among them; between two is a gap."""
        data, places = b"", {}
        size = self.layout.pointer_size
        for slot, name in zip(self.layout.slots, self.linked, strict=True):
            if slot.symbol not in places:
                data += bytes(-len(data) % 64)
                places[slot.symbol] = len(data)
            data += self.addresses[name].to_bytes(size, "little")
        return data, places

    def _sites(self, builder: ElfBuilder, start: int, slots: Sequence[int]) -> None:
        # One page is enough for what lies between: the sites' address must be known before they are written.
        size = self.layout.pointer_size
        text, records = b"", b""
        for index, type_ in enumerate(self.types):
            at, slot = start + SITE * index, slots[type_] if type_ < len(slots) else slots[0] + type_ * size
            # Relative to RIP in 64-bit code, absolute in 32-bit code.
            operand = (slot - at - 6 if size == 8 else slot) & 0xFFFFFFFF
            text += (b"\xff\x15" + struct.pack("<I", operand)).ljust(SITE, b"\xcc")
            records += (at.to_bytes(size, "little") + bytes([type_, 6])).ljust(2 * size, b"\0")
        builder.text(".init.text", text, address=start)
        if not self.direct:
            builder.section(".parainstructions", records)
        if self.alternatives or self.direct:
            self._alternatives(builder, start)

    def _entries(self, code: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Site, feature, flags and replacement of each record, which begin at an address."""
        if not self.direct:
            for entry in self.alternatives:
                yield entry.site, entry.feature, int(entry.inverted), entry.code
            return
        for site in range(len(self.types)):
            # Until it is patched a direct call leads to BUG_func (ALT_CALL_INSTR of asm/alternative.h).
            distance = self.addresses[self.bug] - code - 5
            yield site, ALWAYS, FLAG_DIRECT_CALL, b"\xe8" + struct.pack("<i", distance)
            code += 5
            for entry in self.alternatives:
                if entry.site == site:
                    yield site, entry.feature, int(entry.inverted), entry.code
                    code += len(entry.code)

    def _alternatives(self, builder: ElfBuilder, start: int) -> None:
        code = start + 0x2000
        entries = [*self._entries(code)]
        builder.text(".altinstr_replacement", b"".join(entry[3] for entry in entries) + b"\xcc", address=code)
        here = code + 0x4000
        shape = 14 if self.direct else self.shape
        records = b""
        for site, feature, flags, replacement in entries:
            at = here + len(records)
            # From 6.3 on flags are a member of their own; before, bit 15 of the feature inverts it (ALTINSTR_FLAG_INV).
            word = struct.pack("<HH", feature, flags) if shape == 14 else struct.pack("<H", feature | flags << 15)
            distances = struct.pack("<ii", start + SITE * site - at, code - at - 4)
            records += (distances + word + bytes([6, len(replacement)])).ljust(shape, b"\0")
            code += len(replacement)
        builder.section(".altinstructions", records, flags=ALLOC, address=here)

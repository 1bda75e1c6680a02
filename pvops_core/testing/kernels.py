"""The smallest kernel that can be patched, written in memory: a table of ops, call sites and ALTERNATIVE entries."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.testing.images import ALLOC, ElfBuilder

if TYPE_CHECKING:
    from pvops_core.ops import Layout

STUB: Final = 16
"""Bytes from one function to the next."""

SITE: Final = 8
"""Bytes from one site to the next; each site has six of them."""

SPECIAL_NAMES: Final = {
    "lock.queued_spin_unlock": "__raw_callee_save___native_queued_spin_unlock",
    "lock.vcpu_is_preempted": "__raw_callee_save___native_vcpu_is_preempted",
}
NOTHING: Final = frozenset({"lock.wait", "lock.kick", "mmu.exit_mmap", "cpu.start_context_switch"})
"""Ops whose slot is linked to ``_paravirt_nop``."""


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


@attrs.define
class SmallKernel:
    """What to build; every attribute may be changed before :meth:`builder` is called.

    Attributes:
        layout: layout of the table.
        types: type number of each site.
        alternatives: entries over the sites.
        functions: functions that are in the kernel besides those that the table is linked to.
        shape: shape of an ALTERNATIVE record: its bytes, 12, 13 or 14.
    """

    layout: Layout
    types: Sequence[int] = ()
    alternatives: Sequence[Alternative] = ()
    functions: Sequence[str] = ()
    shape: int = 12

    @property
    def base(self) -> int:
        """Virtual address of the functions."""
        return 0xFFFFFFFF81000000 if self.layout.pointer_size == 8 else 0xC1000000

    @property
    def names(self) -> list[str]:
        """The functions, each :data:`STUB` bytes behind the last."""
        return ["_paravirt_nop", "paravirt_BUG", *self.linked, *self.functions]

    @property
    def linked(self) -> list[str]:
        """The function that each slot is linked to, by type number."""
        return [
            "_paravirt_nop"
            if slot.path in NOTHING
            else SPECIAL_NAMES.get(slot.path, f"native_{slot.path.rpartition('.')[2]}")
            for slot in self.layout.slots
        ]

    def builder(self) -> ElfBuilder:
        """The kernel, for more sections and symbols to be added."""
        size = self.layout.pointer_size
        builder = ElfBuilder(8 * size, base=self.base)
        builder.text(".text", b"\xc3".ljust(STUB, b"\xcc") * len(self.names))
        address = {name: self.base + STUB * index for index, name in reversed([*enumerate(self.names)])}
        for name, at in address.items():
            builder.symbol(name, at)
        table = builder.section(".data", b"".join(address[name].to_bytes(size, "little") for name in self.linked))
        builder.symbol("pv_ops", table)
        self._sites(builder, table)
        return builder

    def _sites(self, builder: ElfBuilder, table: int) -> None:
        size = self.layout.pointer_size
        # One page is enough for what lies between: the sites' address must be known before they are written.
        start = table + 0x2000
        text, records = b"", b""
        for index, type_ in enumerate(self.types):
            at, slot = start + SITE * index, table + type_ * size
            operand = (slot - at - 6 if size == 8 else slot) & 0xFFFFFFFF
            text += (b"\xff\x15" + struct.pack("<I", operand)).ljust(SITE, b"\xcc")
            records += (at.to_bytes(size, "little") + bytes([type_, 6])).ljust(2 * size, b"\0")
        if not text:
            return
        builder.text(".init.text", text, address=start)
        builder.section(".parainstructions", records)
        if self.alternatives:
            self._alternatives(builder, start)

    def _alternatives(self, builder: ElfBuilder, start: int) -> None:
        code = builder.text(".altinstr_replacement", b"".join(entry.code for entry in self.alternatives) + b"\xcc")
        here = code + 0x2000
        records = b""
        for entry in self.alternatives:
            at = here + len(records)
            flags = entry.inverted
            feature = (
                struct.pack("<HH", entry.feature, flags)
                if self.shape == 14
                else struct.pack("<H", entry.feature | flags << 15)
            )
            distances = struct.pack("<ii", start + SITE * entry.site - at, code - at - 4)
            records += (distances + feature + bytes([6, len(entry.code)])).ljust(self.shape, b"\0")
            code += len(entry.code)
        builder.section(".altinstructions", records, flags=ALLOC, address=here)

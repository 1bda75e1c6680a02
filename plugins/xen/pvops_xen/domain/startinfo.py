"""start_info: the page by which a guest learns where everything is (xen.h, ``struct start_info``)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.guest.cmdline import command_line
from pvops_xen.hypervisor.abi import PAGE_SHIFT, PAGE_SIZE
from pvops_xen.hypervisor.layout import CMD_LINE_SIZE, START_INFO32, START_INFO64

if TYPE_CHECKING:
    from pvops_core.guests import Kernel
    from pvops_xen.domain.notes import XenNotes
    from pvops_xen.domain.space import Plan
    from pvops_xen.hypervisor.core import Hypervisor

SIF_MOD_START_PFN: Final = 8


@attrs.frozen
class StartOfDay:
    """What start_info is made of."""

    hv: Hypervisor
    notes: XenNotes
    layout: Plan
    kernel: Kernel

    def pack(self) -> bytes:
        """The page.

        Raises:
            UsageError: the command line is too long for it.
        """
        bits = self.hv.abi.bits
        where = START_INFO64 if bits == 64 else START_INFO32
        page = bytearray(PAGE_SIZE)
        magic = f"xen-3.0-x86_{'64' if bits == 64 else '32p'}".encode()
        page[: len(magic)] = magic
        word = "<Q" if bits == 64 else "<I"
        for field, value in self._words().items():
            struct.pack_into(word, page, getattr(where, field), value)
        for field, value in self._numbers().items():
            struct.pack_into("<I", page, getattr(where, field), value)
        text = command_line(self.kernel.cmdline, CMD_LINE_SIZE - 1)
        page[where.cmd_line : where.cmd_line + len(text)] = text
        return bytes(page)

    def _words(self) -> dict[str, int]:
        """Fields of an unsigned long."""
        domain, layout = self.hv.domain, self.layout
        own_p2m = bool(layout.p2m_frames)
        words = {
            "nr_pages": domain.nr_pages,
            "shared_info": domain.shared_info,
            "store_mfn": domain.p2m[layout.xenstore],
            "console_mfn": domain.p2m[layout.console] if self.hv.console.ring else 0,
            "pt_base": self._va(layout.tables),
            "nr_pt_frames": layout.table_count,
            "mfn_list": (self.notes.init_p2m or 0) if own_p2m else self._va(layout.p2m),
        }
        if self.kernel.initrd:
            words["mod_start"] = layout.initrd if self.notes.unmapped_initrd else self._va(layout.initrd)
            words["mod_len"] = len(self.kernel.initrd)
        if own_p2m:
            words |= {"first_p2m_pfn": layout.p2m, "nr_p2m_frames": layout.p2m_frames}
        return words

    def _numbers(self) -> dict[str, int]:
        """Fields of 32 bits."""
        flags = SIF_MOD_START_PFN if self.kernel.initrd and self.notes.unmapped_initrd else 0
        return {"flags": flags, "store_evtchn": self.hv.store.port, "console_evtchn": self.hv.console.port}

    def _va(self, pfn: int) -> int:
        return self.notes.virt_base + (pfn << PAGE_SHIFT)

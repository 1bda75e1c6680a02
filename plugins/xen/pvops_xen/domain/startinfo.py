"""start_info: the page by which a guest learns where everything is (xen.h, ``struct start_info``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_xen.hypervisor.abi import PAGE_SHIFT
from pvops_xen.hypervisor.builder import start_info_page

if TYPE_CHECKING:
    from pvops_core.guests import Kernel
    from pvops_xen.domain.notes import XenNotes
    from pvops_xen.domain.space import Plan
    from pvops_xen.hypervisor.core import Hypervisor

SIF_MOD_START_PFN: Final = 8  # public/xen.h: 1 << 3


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
        domain, layout = self.hv.domain, self.layout
        own_p2m = bool(layout.p2m_frames)
        fields = {
            "store_mfn": domain.p2m[layout.xenstore],
            "store_evtchn": self.hv.store.port,
            "console.domU.mfn": domain.p2m[layout.console] if self.hv.console.ring else 0,
            "console.domU.evtchn": self.hv.console.port,
            "pt_base": self._va(layout.tables),
            "nr_pt_frames": layout.table_count,
            "mfn_list": (self.notes.init_p2m or 0) if own_p2m else self._va(layout.p2m),
        }
        if self.kernel.initrd:
            unmapped = self.notes.unmapped_initrd
            fields["flags"] = SIF_MOD_START_PFN if unmapped else 0
            fields["mod_start"] = layout.initrd if unmapped else self._va(layout.initrd)
            fields["mod_len"] = len(self.kernel.initrd)
        if own_p2m:
            fields |= {"first_p2m_pfn": layout.p2m, "nr_p2m_frames": layout.p2m_frames}
        return start_info_page(self.hv, fields, self.kernel.cmdline)

    def _va(self, pfn: int) -> int:
        return self.notes.virt_base + (pfn << PAGE_SHIFT)

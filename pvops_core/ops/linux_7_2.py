"""The table of Linux 7.2: what differs from 6.12's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.ops import linux_6_12
from pvops_core.ops.declare import changed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.ops.model import Convention, Op

_HEADER: Final = "arch/x86/include/asm/paravirt_types.h (7.2)"

_CHANGES: Final[Mapping[str, tuple[str, ...]]] = {
    "io_delay": (),
    "wbinvd": (),
    "tlb_remove_table": (),
    "mmu_lazy_mode_enter": (),
    "mmu_lazy_mode_leave": (),
    # A value of an MSR is one u64 since 6.16.
    "read_msr": ("u64 read_msr(u32 msr)",),
    "write_msr": ("void write_msr(u32 msr, u64 val)",),
    "read_msr_safe": ("int read_msr_safe(u32 msr, u64 *val)",),
    "write_msr_safe": ("int write_msr_safe(u32 msr, u64 val)",),
}


def ops(convention: Convention) -> Mapping[str, Op]:
    """The ops in the table's order, with the C calling convention of the machine: SYSV or REGPARM3."""
    return changed(linux_6_12.ops(convention), _HEADER, convention, _CHANGES)

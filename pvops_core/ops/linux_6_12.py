"""The table of Linux 6.12: what differs from 6.1's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.ops import linux_6_1
from pvops_core.ops.declare import changed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.ops.model import Convention, Op

_HEADER: Final = "arch/x86/include/asm/paravirt_types.h (6.12)"

_CHANGES: Final[Mapping[str, tuple[str, ...]]] = {
    "activate_mm": ("void enter_mmap(struct mm_struct *mm)",),
    "dup_mmap": (),
}


def ops(convention: Convention) -> Mapping[str, Op]:
    """The ops in the table's order, with the C calling convention of the machine: SYSV or REGPARM3."""
    return changed(linux_6_1.ops(convention), _HEADER, convention, _CHANGES)

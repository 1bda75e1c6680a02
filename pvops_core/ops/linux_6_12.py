"""The ops of Linux 6.12 that 6.1 has not got, 64-bit and 32-bit: see ``linux_6_1`` for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.ops import linux_6_1
from pvops_core.ops.declare import declare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.ops.model import Convention, Op


def ops(convention: Convention) -> Mapping[str, Op]:
    """The ops with the C calling convention of the machine: SYSV or REGPARM3."""
    enter_mmap = declare(
        "mmu",
        "arch/x86/include/asm/paravirt_types.h (6.12)",
        "void enter_mmap(struct mm_struct *mm)",
        convention,
    )
    return {**linux_6_1.ops(convention), enter_mmap.name: enter_mmap}

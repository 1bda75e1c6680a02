"""The ops of Linux 7.2 whose prototypes are not those of 6.12: MSRs travel as one u64 (since 6.16)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.ops import linux_6_12
from pvops_core.ops.declare import declare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.ops.model import Convention, Op

_HEADER: Final = "arch/x86/include/asm/paravirt_types.h (7.2)"

_CPU: Final = (
    "u64 read_msr(u32 msr)",
    "void write_msr(u32 msr, u64 val)",
    "int read_msr_safe(u32 msr, u64 *val)",
    "int write_msr_safe(u32 msr, u64 val)",
)


def ops(convention: Convention) -> Mapping[str, Op]:
    """The ops with the C calling convention of the machine: SYSV or REGPARM3."""
    changed = (declare("cpu", _HEADER, text, convention) for text in _CPU)
    return {**linux_6_12.ops(convention), **{op.name: op for op in changed}}

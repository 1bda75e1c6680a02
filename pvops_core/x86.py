"""The architecture's numbers that more than one room needs, each once. SDM: the Intel manual, by volume and section."""

from __future__ import annotations

from typing import Final

PAGE_SHIFT: Final = 12
PAGE: Final = 1 << PAGE_SHIFT
"""Bytes of the smallest page (SDM 3, 4.2)."""
CANONICAL_TOPS: Final = frozenset({0, 0x1FFFF})
"""Bits 47 to 63 of a canonical address: all alike (SDM 1, 3.3.7.1)."""

DE, DB, NMI, BP, OF, BR, UD, NM, DF = range(9)
TS, NP, SS, GP, PF = range(10, 15)
MF, AC, MC, XM = range(16, 20)
"""Vectors of exceptions (SDM 3, table 6-1); 9 and 15 are not used."""

FLAG_CF, FLAG_TF, FLAG_IF, FLAG_DF, FLAG_NT, FLAG_RF, FLAG_VM, FLAG_AC = (
    1 << bit for bit in (0, 8, 9, 10, 14, 16, 17, 18)
)
FLAG_IOPL: Final = 3 << 12
"""Bits of EFLAGS and RFLAGS (SDM 1, 3.4.3)."""
ARITHMETIC: Final = 0x8D5
"""CF, PF, AF, ZF, SF, OF: lost in every call."""

CR0_PE, CR0_TS, CR0_WP, CR0_PG = 1, 1 << 3, 1 << 16, 1 << 31
CR4_TSD, CR4_PSE, CR4_PAE, CR4_PGE, CR4_SMEP, CR4_SMAP = 1 << 2, 1 << 4, 1 << 5, 1 << 7, 1 << 20, 1 << 21
CR4_LA57: Final = 1 << 12
"""Bits of the control registers (SDM 3, 2.5)."""

DR6_RESET, DR7_RESET = 0xFFFF0FF0, 0x400
"""Debug registers after a reset (SDM 3, table 9-1): what is 1 is reserved and stays so."""

EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE = 1, 1 << 8, 1 << 10, 1 << 11
"""Bits of IA32_EFER (SDM 3, 2.2.1)."""
MSR_EFER: Final = 0xC0000080
MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE, MSR_TSC_AUX = 0xC0000100, 0xC0000101, 0xC0000102, 0xC0000103
"""Numbers of model-specific registers (SDM 4, table 2-2)."""

PRESENT, WRITABLE, USER = 1, 2, 4
ACCESSED, DIRTY, LARGE, GLOBAL = 1 << 5, 1 << 6, 1 << 7, 1 << 8
NO_EXECUTE: Final = 1 << 63
ADDRESS: Final = 0x000FFFFFFFFFF000
"""Bits of a page-table entry, and those that hold an address (SDM 3, tables 4-14 to 4-20)."""

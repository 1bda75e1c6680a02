"""The three kinds of machine, told apart by word size and page-table format."""

from __future__ import annotations

import enum


class MachineKind(enum.Enum):
    """What sort of x86 a machine is."""

    I386 = "i386"
    """32-bit, two-level page tables with 32-bit entries."""

    PAE = "pae"
    """32-bit, three-level page tables with 64-bit entries (and NX)."""

    X86_64 = "x86_64"
    """64-bit, four-level page tables."""

    @property
    def bits(self) -> int:
        """Width of a general register: 32 or 64."""
        return 64 if self is MachineKind.X86_64 else 32

    @property
    def pointer_size(self) -> int:
        """Bytes of a pointer: 4 or 8."""
        return self.bits // 8

    @property
    def mask(self) -> int:
        """All bits of a general register."""
        return (1 << self.bits) - 1

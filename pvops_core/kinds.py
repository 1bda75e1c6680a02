"""The kinds of machine that a guest can be built for; the one fact that every room shares."""

from __future__ import annotations

import enum


class MachineKind(enum.Enum):
    """A processor mode with its page-table format."""

    I386 = "i386"
    """32-bit, two-level page tables, 4-byte entries."""
    PAE = "pae"
    """32-bit, three-level page tables, 8-byte entries."""
    X86_64 = "x86_64"
    """64-bit, four-level page tables, 8-byte entries."""

    @property
    def bits(self) -> int:
        """Width of a general register and of a pointer, in bits."""
        return 64 if self is MachineKind.X86_64 else 32

    @property
    def pointer_size(self) -> int:
        """Width of a pointer in bytes."""
        return self.bits // 8

    @property
    def entry_size(self) -> int:
        """Width of a page-table entry in bytes."""
        return 4 if self is MachineKind.I386 else 8

    @property
    def mask(self) -> int:
        """All bits of a general register."""
        return (1 << self.bits) - 1


def kind_of(machine: str) -> MachineKind:
    """The kind of machine that a kernel for "x86_64" or "i386" is best run on.

    A processor with PAE also runs the 32-bit kernels that do not use it.
    """
    return MachineKind.X86_64 if machine == "x86_64" else MachineKind.PAE


def will_do(kind: MachineKind) -> tuple[MachineKind, ...]:
    """The kinds of machine that a kernel may run on as well as far as its file's header says, the best one first."""
    return (kind, MachineKind.I386) if kind is MachineKind.PAE else (kind,)

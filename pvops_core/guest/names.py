"""What a backend's ops ask of their guest, by the kernel's own names: where it keeps what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from pvops_core.errors import StructureError, UsageError
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.machine import Vcpu

_PER_CPU: Final = {"cpu_tss_rw": "tss_pages", "gdt_page": "gdt_pages"}
"""The built-in guest's arrays of a page a processor."""
_MEMBERS: Final = {
    ("mm_struct", "pgd"): "mm_pgd_offset",
    ("mmu_gather", "nr"): "gather_nr_offset",
    ("mmu_gather", "tables"): "gather_tables_offset",
    ("flush_tlb_info", "start"): "flush_start_offset",
    ("flush_tlb_info", "end"): "flush_end_offset",
    ("thread_struct", "tls_array"): "thread_tls_array_offset",
}
"""Its absolute symbols that say where members are."""


class Names(Protocol):
    """A guest's variables and structures. Addresses are guest-virtual."""

    @property
    def own_functions(self) -> bool:
        """Whether the guest has functions of its own for its ops, to which an op may leave a call (``OwnFunction``)."""

    def __contains__(self, symbol: object) -> bool:
        """Whether there is a variable or function of a name."""

    def address(self, symbol: str) -> int:
        """Where a variable or function is; UsageError if there is none."""

    def end(self, symbol: str) -> int:
        """Where the next variable or function begins; UsageError if there is none."""

    def per_cpu(self, symbol: str, cpu: Vcpu) -> int:
        """Where a processor's own of a per-CPU variable is; UsageError if there is none."""

    def member(self, type: str, path: str) -> int:
        """Bytes from the beginning of a structure to a member, ``x86_tss.sp0`` of ``tss_struct``.

        Raises:
            StructureError: the guest does not say.
        """

    def size(self, type: str) -> int:
        """Bytes of a type; StructureError if the guest does not say."""

    def enumerator(self, enumeration: str, name: str) -> int:
        """The number of an enumerator, ``PG_pinned`` of ``pageflags``; StructureError if the guest does not say."""

    def has(self, feature: str) -> bool:
        """Whether the kernel goes by a feature of its processors, by its name of /proc/cpuinfo (``pti``)."""

    def knows(self, feature: str) -> bool:
        """Whether there is a feature of that name for the kernel, be it there or not."""

    def place(self, va: int) -> int:
        """Machine-physical address of a byte of the guest's kernel, whatever address space a vCPU is in.

        Raises:
            GuestFault: it has no memory there.
        """

    def function(self, op: str) -> str:
        """The name of the guest's own function for an op, as it is at this time of its boot; empty for none."""


class SymbolNames:
    """Those of a guest whose symbols say everything, the built-in one: its ops are all its backend's.

    Args:
        symbols: guest-virtual addresses and absolute values.
    """

    own_functions = False

    def __init__(self, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols

    def __contains__(self, symbol: object) -> bool:
        """Whether the guest has a symbol."""
        return symbol in self._symbols

    def address(self, symbol: str) -> int:
        """Address of a symbol; UsageError if there is none."""
        try:
            return self._symbols[symbol]
        except KeyError:
            raise UsageError(f"the guest has no symbol {symbol!r}") from None

    def end(self, symbol: str) -> int:
        """It does not say."""
        raise UsageError(f"the guest does not say where {symbol!r} ends")

    def per_cpu(self, symbol: str, cpu: Vcpu) -> int:
        """A processor's page of the arrays that it has for Linux's per-CPU variables."""
        if symbol not in _PER_CPU:
            raise UsageError(f"the guest has no per-CPU variable {symbol!r}")
        # A page each, so that a processor's may be mapped read-only.
        return self.address(_PER_CPU[symbol]) + cpu.index * PAGE

    def member(self, type: str, path: str) -> int:
        """What its absolute symbol says; StructureError if there is none."""
        try:
            return self._symbols[_MEMBERS[type, path]]
        except KeyError:
            raise StructureError("the guest does not say where it is", type=type, member=path) from None

    def size(self, type: str) -> int:
        """It does not say."""
        raise StructureError("the guest does not say how large it is", type=type)

    def enumerator(self, enumeration: str, name: str) -> int:
        """It does not say."""
        raise StructureError("the guest does not say what it is", type=enumeration, member=name)

    def has(self, feature: str) -> bool:
        """It goes by none."""
        del feature
        return False

    def knows(self, feature: str) -> bool:
        """It knows none."""
        del feature
        return False

    def place(self, va: int) -> int:
        """It does not say either, for its ops need not ask."""
        raise UsageError(f"the guest does not say where {va:#x} is")

    def function(self, op: str) -> str:
        """It has none."""
        del op
        return ""

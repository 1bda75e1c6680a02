"""A kernel's own address space, seen from outside while its vCPUs may be in any other.

Linux keeps its page tables' root under one symbol for good; where a kernel has none, the spaces that its vCPUs are in
just now are looked through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.errors import MemoryAccessError
from pvops_core.machine import GuestFault
from pvops_core.machine.cpu.memory.paging import Access
from pvops_core.x86 import PAGE, PF

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pvops_core.guest.text import GuestText
    from pvops_core.machine import Machine, Walk
    from pvops_core.machine.cpu.memory.paging import Paging

ROOTS: Final = ("init_top_pgt", "init_level4_pgt", "swapper_pg_dir")
"""Symbols of the root of Linux's page tables: 64 bits wide since 4.13 and before, and 32 bits."""
_KERNEL: Final = Access()


class KernelSpace:
    """The address space of a kernel that runs."""

    def __init__(self, machine: Machine, text: GuestText, symbols: Mapping[str, int]) -> None:
        self._machine = machine
        self._text = text
        self._root = next((symbols[name] for name in ROOTS if name in symbols), None)

    def roots(self) -> Iterator[Paging]:
        """The ways in which addresses are translated, the kernel's own first."""
        # A vCPU's own control registers say how many levels there are.
        found = [vcpu.virtual.paging()[0] for vcpu in self._machine.vcpus]
        if self._root is not None:
            # The kernel's own root at any time: a process's may lack what is mapped later.
            root = self._text.machine_address(self._root)
            yield from (paging._replace(cr3=root) for paging in found[:1])
        yield from found

    def walk(self, va: int) -> Walk:
        """Translate an address of the kernel's.

        Raises:
            GuestFault: no address space has it.
        """
        fault: GuestFault | None = None
        # The first fault is the kernel's own table's, which is the one worth telling.
        for paging in self.roots():
            try:
                return paging.walk(self._machine.memory, va, _KERNEL)
            except GuestFault as missing:
                fault = fault or missing
        assert fault is not None, "a machine has a vCPU"
        raise fault

    def read(self, va: int, length: int) -> bytes:
        """Bytes of the kernel's memory; GuestFault where it has none."""
        found = bytearray()
        while len(found) < length:
            at = va + len(found)
            # Page by page: neighbours in virtual memory need not be so in the machine's.
            size = min(length - len(found), PAGE - at % PAGE)
            try:
                found += self._machine.memory.read(self.walk(at).pa, size)
            except MemoryAccessError as error:  # tables that are not made yet
                raise GuestFault(f"{at:#x} is mapped to no memory", vector=PF, address=at) from error
        return bytes(found)

    def word(self, va: int) -> int:
        """A pointer."""
        return int.from_bytes(self.read(va, self._machine.kind.pointer_size), "little")

"""Boot: banner, memory map and the early page tables.

Source: arch/i386/kernel/paravirt.c, default_banner, and mm/init.c, native_pagetable_setup_start and _done (2.6.23,
2.6.24); arch/x86/mm/init.c, native_pagetable_reserve (2.6.39).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_core.images.bootparams import one_region
from pvops_core.kinds import MachineKind
from pvops_core.machine.run.eventkinds import event_kind
from pvops_core.x86 import PRESENT
from pvops_native.ops.base import NativeGroup

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_core.machine import Vcpu

_RESERVE: Final = event_kind(
    "memblock-reserve",
    "The hook reserved memory in place of the kernel.",
    start="int: physical address",
    end="int: behind it",
)

USER_PGDS: Final = 3
"""PAE, PAGE_OFFSET 0xc0000000: top-level entries of user space; the fourth is the kernel's."""
# A guard: the slot may point anywhere.
LONGEST_NAME: Final = 64
PAGE_MASK: Final = ~0xFFF


class NativeInitOps(NativeGroup):
    """init.* and x86_init.* (the nops aside).

    Attributes:
        reserved: ranges of guest-physical memory [start, end) that pagetable_reserve kept, as memblock would.
    """

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.reserved: list[tuple[int, int]] = []

    @hookimpl
    def banner(self, cpu: Vcpu) -> None:
        """default_banner: one line to the kernel's log, naming what the table's name slot points to."""
        name = self._name(cpu)
        self.env.platform.console += b"Booting paravirtualized kernel on " + name + b"\n"

    def _name(self, cpu: Vcpu) -> bytes:
        """The string that the table's name slot points to; bare metal's own where there is none (2.6.24: pv_info)."""
        layout = self.env.layout
        pointer = 0
        # 2.6.24 moved the name from the table into pv_info.
        if "name" in layout:
            pointer = cpu.word(layout.slot_address(self.env.symbols, layout.by_op("name").type))
        if not pointer:
            return b"bare hardware"
        text = bytearray()
        while len(text) < LONGEST_NAME and (byte := cpu.u8(pointer + len(text))):
            text.append(byte)
        return bytes(text)

    @hookimpl
    def memory_setup(self, cpu: Vcpu) -> int:
        """machine_specific_memory_setup: the firmware's map into the kernel's e820, where the guest has one.

        struct e820map is int nr_map and entries of u64 address, u64 size, u32 type. The machine's memory has no
        hole. Returns char *, 0: a name of the map's source would have to lie in guest memory.
        """
        e820 = self.env.symbols.get("e820")
        if e820 is not None:
            cpu.write_virtual(e820, one_region(self.env.machine.memory.size))
        return 0

    @hookimpl
    def pagetable_setup_start(self, cpu: Vcpu, pgd_base: int) -> None:
        """native_pagetable_setup_start: under PAE every user entry of a table not yet in force gets the zero page.

        The kernel's own entry is emptied so that a fresh page directory is made. A table that the CPU already walks,
        because the guest was entered with PAE on, keeps what it has. Without PAE the table needs no preparation.
        """
        # A table in force must keep its user entries; only a fresh one is prepared.
        if self.env.layout.kind is not MachineKind.PAE or self._in_force(cpu, pgd_base):
            return
        zero_page = self.env.symbols.get("empty_zero_page")
        # PAE's top entries are read when CR3 is loaded, so none may be absent and filled in later.
        entry = cpu.walk(zero_page).pa & PAGE_MASK | PRESENT if zero_page else 0
        for index in range(USER_PGDS):
            cpu.set_u64(pgd_base + 8 * index, entry)
        # The kernel's is set anew behind this.
        cpu.set_u64(pgd_base + 8 * USER_PGDS, 0)

    @hookimpl
    def pagetable_setup_done(self, cpu: Vcpu, pgd_base: int) -> None:
        """native_pagetable_setup_done: under PAE low memory gets the kernel's entry, for secondaries in real mode."""
        if self.env.layout.kind is MachineKind.PAE:
            cpu.set_u64(pgd_base, cpu.u64(pgd_base + 8 * USER_PGDS))

    def _in_force(self, cpu: Vcpu, pgd_base: int) -> bool:
        # CR3's low five bits are flags with PAE (SDM volume 3, 4.4.1).
        return cpu.walk(pgd_base).pa == cpu.insn.mov_from_cr(3) & ~0x1F

    @hookimpl
    def pagetable_reserve(self, cpu: Vcpu, start: int, end: int) -> None:
        """native_pagetable_reserve: memblock_x86_reserve_range(start, end, "PGTABLE"), u64 guest-physical bytes."""
        self.reserved.append((start, end))
        self.env.machine.log.record(_RESERVE, vcpu=cpu.index, start=start, end=end)

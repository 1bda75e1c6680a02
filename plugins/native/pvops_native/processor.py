"""Bringing a processor from reset into the kernel's state: descriptor tables, paging, level 0.

Source: Intel SDM volume 3, 9.8 (switching to protected, PAE and IA-32e mode); selectors as Linux places them
(asm/segment.h), so that those of the guest's own GDT are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.kinds import MachineKind
from pvops_core.x86 import CR4_PGE

if TYPE_CHECKING:
    from pvops_core.machine import PhysicalMemory, Vcpu

CR0: Final = 0x8001_0033
"""PG, WP, NE, ET, MP, PE."""
CR4_PAE: Final = 1 << 5
MSR_EFER: Final = 0xC000_0080
EFER_LME: Final = 1 << 8
EFER: Final = {MachineKind.I386: 0, MachineKind.PAE: 0x800, MachineKind.X86_64: 0x900}
"""NXE where entries have the bit; LME where it belongs."""
# __KERNEL_CS.
CODE_SELECTOR: Final = {32: 0x60, 64: 0x10}
_FLAT: Final = {
    32: {0x60: 0x00CF_9B00_0000_FFFF, 0x68: 0x00CF_9300_0000_FFFF},
    64: {0x10: 0x00AF_9B00_0000_FFFF, 0x18: 0x00CF_9300_0000_FFFF},
}


def flat_gdt(memory: PhysicalMemory, pa: int, bits: int) -> int:
    """Writes a GDT with the kernel's flat code and data segments at ``pa``; returns its limit."""
    for selector, descriptor in _FLAT[bits].items():
        memory.set_u64(pa + selector, descriptor)
    # lgdt's limit is the last valid byte.
    return max(_FLAT[bits]) + 7


@attrs.frozen
class StartState:
    """What a processor finds when it starts.

    Attributes:
        root: physical address of the top-level page table.
        gdt: virtual address of the flat GDT.
        gdt_limit: its limit.
        cr4: the control register's value.
    """

    root: int
    gdt: int
    gdt_limit: int
    cr4: int


def first_state(kind: MachineKind, root: int, gdt: int, gdt_limit: int) -> StartState:
    """The state of the first processor."""
    return StartState(root, gdt, gdt_limit, CR4_PGE | (0 if kind is MachineKind.I386 else CR4_PAE))


def enter(vcpu: Vcpu, state: StartState, entry: int) -> None:
    """Puts a vCPU at ``entry``, level 0, flat segments, paging on, interrupts off (SDM volume 3, 9.8)."""
    kind = vcpu.machine.kind
    # CR4.PAE before EFER.LME and CR0.PG, or the processor would be in no mode that exists (SDM volume 3, 9.8.5).
    vcpu.insn.mov_to_cr(4, state.cr4)
    if EFER[kind]:
        vcpu.insn.wrmsr(MSR_EFER, EFER[kind])
    # CR3 before PG, which makes the processor walk it with the next fetch.
    vcpu.insn.mov_to_cr(3, state.root)
    vcpu.insn.mov_to_cr(0, CR0)
    vcpu.insn.lgdt(state.gdt, state.gdt_limit)
    code = CODE_SELECTOR[kind.bits]
    # The code segment's L bit takes effect when it is loaded.
    vcpu.set_segments(0, code, code + 8)
    for name in ("ds", "es"):
        vcpu.load_segment(name, code + 8)
    vcpu.rip = entry

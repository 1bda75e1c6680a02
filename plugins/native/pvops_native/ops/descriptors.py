"""Descriptor tables and the task state: asm/desc.h, native_load_tls, native_set_ldt and their neighbours.

Table indices are those of asm/segment.h (GDT_ENTRY_TSS, GDT_ENTRY_LDT, GDT_ENTRY_TLS_MIN); offsets those of struct
thread_struct and the hardware's TSS (Intel SDM volume 3, 7.2.1 and 7.7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_core.machine import GuestFault
from pvops_native.iobitmap import TaskBitmaps
from pvops_native.ops.base import NativeGroup

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

# GDT_ENTRY_ numbers of asm/segment.h: 32-bit kernels have 32 entries, 64-bit ones 16.
ENTRY_TSS: Final = {32: 16, 64: 8}
ENTRY_LDT: Final = {32: 17, 64: 10}
ENTRY_TLS_MIN: Final = {32: 6, 64: 12}
TLS_ENTRIES: Final = 3
# Present, type 2 (SDM volume 3, 3.5).
LDT_TYPE: Final = 0x82
MSR_SYSENTER_CS: Final = 0x174
THREAD_ESP0, THREAD_SYSENTER_CS = 24, 28
TSS_SP0: Final = 4
TSS_SS1: Final = 16
TSS_IO_BITMAP_BASE: Final = 102
# Bit 9 of the high word: the type's busy bit (SDM volume 3, 7.2.2).
TSS_BUSY: Final = 1 << 41


def system_descriptor(base: int, limit: int, type_: int) -> int:
    """A present system descriptor of DPL 0, byte limit, as 128 bits; a 32-bit GDT takes the low 64 (SDM 3, 7.2.3)."""
    # Limit and base are split three ways (SDM volume 3, 3.4.5 and 7.2.3).
    low = limit & 0xFFFF | (base & 0xFFFFFF) << 16 | type_ << 40 | (limit >> 16 & 0xF) << 48 | (base >> 24 & 0xFF) << 56
    return low | base >> 32 << 64


class NativeDescriptorOps(NativeGroup):
    """GDT, IDT, LDT, TLS and TSS (``native_*`` of asm/desc.h)."""

    def _bits(self) -> int:
        return self.env.layout.kind.bits

    def _descriptor_base(self, cpu: Vcpu, selector: int) -> tuple[int, int]:
        """Base and limit that the GDT holds for a system descriptor (limit in bytes, granularity applied)."""
        address = cpu.insn.sgdt()[0] + (selector & 0xFFF8)
        low = cpu.u64(address)
        base = low >> 16 & 0xFFFFFF | low >> 56 << 24
        if self.wide:
            base |= cpu.u32(address + 8) << 32
        limit = low & 0xFFFF | low >> 32 & 0xF0000
        # Bit 55 is granularity: the limit counts pages.
        return base, limit << 12 | 0xFFF if low >> 55 & 1 else limit

    @hookimpl
    def load_tr_desc(self, cpu: Vcpu) -> None:
        """native_load_tr_desc: ltr with the kernel's TSS selector.

        It writes the busy bit into the GDT: where the one in force is not the writable one, that is used meanwhile.
        """
        base, limit = cpu.insn.sgdt()
        writable = self.guest.per_cpu("gdt_page", cpu)
        # ltr marks the descriptor busy, so the GDT must be the one that may be written to (6.1 maps it read-only).
        if base != writable:
            cpu.insn.lgdt(writable, limit)
        cpu.insn.ltr(ENTRY_TSS[self._bits()] * 8)
        if base != writable:
            cpu.insn.lgdt(base, limit)

    @hookimpl
    def store_tr(self, cpu: Vcpu) -> int:
        """native_store_tr: str."""
        return cpu.insn.str()

    @hookimpl
    def load_gdt(self, cpu: Vcpu, dtr: int) -> None:
        """native_load_gdt: lgdt of a struct of u16 limit and pointer base."""
        cpu.insn.lgdt(cpu.word(dtr + 2), cpu.u16(dtr))

    @hookimpl
    def load_idt(self, cpu: Vcpu, dtr: int) -> None:
        """native_load_idt: lidt."""
        cpu.insn.lidt(cpu.word(dtr + 2), cpu.u16(dtr))

    @hookimpl
    def store_gdt(self, cpu: Vcpu, dtr: int) -> None:
        """native_store_gdt: sgdt."""
        self._store_table(cpu, dtr, *cpu.insn.sgdt())

    @hookimpl
    def store_idt(self, cpu: Vcpu, dtr: int) -> None:
        """native_store_idt: sidt."""
        self._store_table(cpu, dtr, *cpu.insn.sidt())

    def _store_table(self, cpu: Vcpu, dtr: int, base: int, limit: int) -> None:
        cpu.set_u16(dtr, limit)
        cpu.set_word(dtr + 2, base)

    @hookimpl
    def set_ldt(self, cpu: Vcpu, desc: int, entries: int) -> None:
        """native_set_ldt: a descriptor of the ``entries`` entries at ``desc`` into the GDT, then lldt; none loads 0."""
        if not entries:
            # The null selector, so that no stale table stays in the register.
            cpu.insn.lldt(0)
            return
        index = ENTRY_LDT[self._bits()]
        value = system_descriptor(desc, entries * 8 - 1, LDT_TYPE)
        slot = self.guest.per_cpu("gdt_page", cpu) + index * 8
        # A long-mode descriptor has 16 bytes (SDM volume 3, 7.2.3).
        cpu.write_virtual(slot, value.to_bytes(16, "little")[: 16 if self.wide else 8])
        cpu.insn.lldt(index * 8)

    @hookimpl
    def load_tls(self, cpu: Vcpu, t: int, cpu_nr: int) -> None:
        """native_load_tls: thread->tls_array (three descriptors) into the GDT of CPU cpu_nr."""
        gdt = self.guest.per_cpu("gdt_page", self.env.machine.vcpus[cpu_nr]) + ENTRY_TLS_MIN[self._bits()] * 8
        entries = t + self.guest.member("thread_struct", "tls_array")
        for offset in range(0, TLS_ENTRIES * 8, 8):
            cpu.set_u64(gdt + offset, cpu.u64(entries + offset))

    @hookimpl
    def load_gs_index(self, cpu: Vcpu, idx: int) -> None:
        """native_load_gs_index: swapgs; mov to gs; swapgs: only the user's GS base changes; a bad selector loads 0."""
        try:
            cpu.insn.load_gs(idx & 0xFFFF)
        except GuestFault:  # the kernel's fixup, bad_gs, loads the null selector
            cpu.insn.load_gs(0)

    @hookimpl
    def write_ldt_entry(self, cpu: Vcpu, dt: int, entrynum: int, low: int, high: int, desc: int) -> None:
        """native_write_ldt_entry: 8 bytes, by value (low, high) or from ``desc``."""
        self._write_entry(cpu, dt + entrynum * 8, low, high, desc, 8)

    @hookimpl
    def write_gdt_entry(self, cpu: Vcpu, dt: int, entrynum: int, low: int, high: int, desc: int, size: int) -> None:
        """native_write_gdt_entry: ``size`` is a type; TSS and LDT descriptors take 16 bytes in a 64-bit GDT."""
        wide = self.wide and size in {0x9, 0x2}  # DESC_TSS, DESC_LDT
        self._write_entry(cpu, dt + entrynum * 8, low, high, desc, 16 if wide else 8)

    @hookimpl
    def write_idt_entry(self, cpu: Vcpu, dt: int, entrynum: int, low: int, high: int, gate: int) -> None:
        """native_write_idt_entry: a gate of 8 bytes, 16 on x86_64."""
        length = 16 if self.wide else 8
        self._write_entry(cpu, dt + entrynum * length, low, high, gate, length)

    def _write_entry(self, cpu: Vcpu, place: int, low: int, high: int, source: int, length: int) -> None:
        # A pointer of 0: 2.6.23 passed the two words by value.
        if source:
            cpu.write_virtual(place, cpu.read_virtual(source, length))
        else:
            cpu.set_u32(place, low)
            cpu.set_u32(place + 4, high)

    @hookimpl
    def load_esp0(self, cpu: Vcpu, tss: int, thread: int) -> None:
        """native_load_esp0: the ring 0 stack into the TSS; a changed sysenter_cs also into ss1 and the MSR."""
        # The processor reads it from memory at each trap, so nothing has to be loaded.
        cpu.set_u32(tss + TSS_SP0, cpu.u32(thread + THREAD_ESP0))
        sysenter_cs = cpu.u32(thread + THREAD_SYSENTER_CS)
        # The MSR is slow to write, and changes only for tasks in vm86 mode.
        if cpu.u16(tss + TSS_SS1) != sysenter_cs:
            cpu.set_u16(tss + TSS_SS1, sysenter_cs & 0xFFFF)
            cpu.insn.wrmsr(MSR_SYSENTER_CS, sysenter_cs)

    @hookimpl
    def load_sp0(self, cpu: Vcpu, sp0: int) -> None:
        """native_load_sp0: the ring 0 stack into this CPU's TSS."""
        cpu.set_word(self.guest.per_cpu("cpu_tss_rw", cpu) + TSS_SP0, sp0)

    @hookimpl
    def invalidate_io_bitmap(self, cpu: Vcpu) -> None:
        """native_tss_invalidate_io_bitmap: the bitmap's offset points beyond the TSS's limit."""
        # Beyond the limit there is no bitmap, and every port faults (SDM volume 1, 19.5.2).
        limit = self._descriptor_base(cpu, ENTRY_TSS[self._bits()] * 8)[1]
        cpu.set_u16(self.guest.per_cpu("cpu_tss_rw", cpu) + TSS_IO_BITMAP_BASE, limit + 1 & 0xFFFF)

    @hookimpl
    def update_io_bitmap(self, cpu: Vcpu) -> None:
        """native_tss_update_io_bitmap: the ports of the task; the built-in guest's tasks have none."""
        # It has no tasks with ports: the slot is called for its effect on the TSS alone.
        if not self.guest.own_functions:
            self.invalidate_io_bitmap(cpu)
            return
        tss = TaskBitmaps(self.guest, cpu)
        # Both: a limit that was shortened matters only if there are ports to allow.
        if tss.open() and tss.limit_is_stale():
            self._reload_tr(cpu)

    def _reload_tr(self, cpu: Vcpu) -> None:
        """force_reload_TR: ltr takes a TSS that is not busy, and makes it so."""
        place = self.guest.per_cpu("gdt_page", cpu) + ENTRY_TSS[self._bits()] * 8
        # ltr of a busy TSS is a general protection fault.
        cpu.set_u64(place, cpu.u64(place) & ~TSS_BUSY)
        self.load_tr_desc(cpu)

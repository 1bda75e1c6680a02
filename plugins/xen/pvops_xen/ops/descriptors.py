"""pv_cpu_ops: descriptor tables (arch/x86/xen/enlighten_pv.c): GDT and LDT by hypercall, the IDT as a trap table."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_xen.hypervisor.abi import PAGE_SHIFT, PAGE_SIZE, Hypercall, MmuExt
from pvops_xen.hypervisor.processor.callbacks import TRAP_INFO
from pvops_xen.ops.base import XenGroup
from pvops_xen.ops.multicalls import Lazy

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.ops.kept.linuxtables import LinuxTables

_INTERRUPT_GATE: Final = 0xE
_TRAP_GATE: Final = 0xF
_MASK_EVENTS: Final = 4  # of trap_info.flags, beside the DPL: clear event enable (public/arch-x86/xen.h)
_DESC_LDT: Final = 0x2
_DESC_TSS: Final = 0x9
_TLS_ENTRIES: Final = 3
_TLS_MIN: Final = {64: 12, 32: 6}  # GDT_ENTRY_TLS_MIN (asm/segment.h)
_KERNEL_DS: Final = {64: 0x18, 32: 0x68}  # __KERNEL_DS (asm/segment.h)
_TSS_SP0: Final = 4  # offset of ESP0 and RSP0 (Intel SDM volume 3, figures 7-2 and 7-11)
_SYSTEM_TYPES: Final = frozenset({_DESC_LDT, _DESC_TSS})


class XenDescriptorOps(XenGroup):
    """Tables that Xen reads are mapped read-only; every store to them is a hypercall."""

    # --- GDT and LDT -----------------------------------------------------------------------------------------------

    @hookimpl
    def load_gdt(self, cpu: Vcpu, dtr: int) -> None:
        """set_gdt with the frames of the table, each made read-only first."""
        size, base = self._table_register(cpu, dtr)
        # A kernel that has its own tables maps them itself; the built-in guest's are the builder's.
        if self.mappings is not None:
            self._load_gdt(cpu, self.mappings, base, size)
            return
        word = self.platform.hv.abi.word
        frames = b""
        for va in range(base & ~(PAGE_SIZE - 1), base + size, PAGE_SIZE):
            pfn = self.frames.pfn(self.tables.machine_of(cpu, va) >> PAGE_SHIFT)
            # Read-only before Xen is told: a table that may be written would be refused.
            if pfn not in self.kept.protected:
                self.tables.protect(cpu, pfn, writable=False)
            frames += self.frames.mfn(pfn).to_bytes(word, "little")
        address = self.argument(cpu, frames)
        if self.platform.hypercall(cpu, Hypercall.SET_GDT, address, size // 8):
            self.bug(f"the GDT at {base:#x} was refused")
        self.kept.gdt[cpu.index] = base

    def _load_gdt(self, cpu: Vcpu, mappings: LinuxTables, base: int, size: int) -> None:
        """A kernel's table is in one page, which early in boot is mapped once and later in the direct map too."""
        # Early in boot the table is mapped once; later the direct map has it as well.
        if self.early("load_gdt") is not None:
            pfn = self.tables.pfn_of(base)
            mappings.map(cpu, base, mappings.protected(pfn, writable=False))
        else:
            pfn = mappings.frame(cpu, base)
            for va in (base, self.tables.va(pfn)):
                mappings.remap(cpu, va, writable=False)
        address = self.argument(cpu, self.frames.mfn(pfn).to_bytes(8, "little"))
        if self.platform.hypercall(cpu, Hypercall.SET_GDT, address, size // 8):
            self.bug(f"the GDT at {base:#x} was refused")

    def _table_register(self, cpu: Vcpu, dtr: int) -> tuple[int, int]:
        """Size in bytes and address out of a struct desc_ptr."""
        # A desc_ptr's limit is the last byte, so the size is one more (SDM volume 3, 3.5.1).
        return cpu.u16(dtr) + 1, cpu.word(dtr + 2)

    @hookimpl
    def store_gdt(self, cpu: Vcpu, dtr: int) -> None:
        """Sgdt itself; it does not trap."""
        base, limit = cpu.insn.sgdt()
        cpu.set_u16(dtr, limit)
        cpu.set_word(dtr + 2, base)

    @hookimpl
    def store_idt(self, cpu: Vcpu, dtr: int) -> None:
        """Sidt itself."""
        base, limit = cpu.insn.sidt()
        cpu.set_u16(dtr, limit)
        cpu.set_word(dtr + 2, base)

    def _update_descriptor(self, cpu: Vcpu, va: int, descriptor: int, *, early: bool = False) -> None:
        # What waits may concern this very page, and Xen does things in order.
        self.mc(cpu).flush()
        machine = self.tables.machine_of(cpu, va)
        halves = (machine & 0xFFFF_FFFF, machine >> 32, descriptor & 0xFFFF_FFFF, descriptor >> 32)
        arguments = (machine, descriptor) if self.bits == 64 else halves
        if self.platform.hypercall(cpu, Hypercall.UPDATE_DESCRIPTOR, *arguments):
            # The table is still ordinary memory, and is written plainly (``xen_write_gdt_entry_boot``).
            if early:  # xen_write_gdt_entry_boot: the table is still the kernel's to write
                cpu.set_u64(va, descriptor)
                return
            self.bug(f"the descriptor {descriptor:016x} was refused")

    @hookimpl
    def write_gdt_entry(self, cpu: Vcpu, dt: int, entrynum: int, low: int, high: int, desc: int, size: int) -> None:
        """update_descriptor; a TSS or LDT descriptor would be refused and is of no use to Xen."""
        descriptor = cpu.u64(desc) if desc else low | high << 32
        kind = descriptor >> 40 & 0x1F
        # A TSS or an LDT belongs to the processor, and Xen keeps its own: the kernel's is not told.
        if size in _SYSTEM_TYPES or (not desc and kind & ~2 in _SYSTEM_TYPES):
            return
        early = self.early("write_gdt_entry") is not None
        self._update_descriptor(cpu, dt + 8 * entrynum, descriptor, early=early)

    @hookimpl
    def write_ldt_entry(self, cpu: Vcpu, dt: int, entrynum: int, low: int, high: int, desc: int) -> None:
        """update_descriptor."""
        self._update_descriptor(cpu, dt + 8 * entrynum, cpu.u64(desc) if desc else low | high << 32)

    @hookimpl
    def set_ldt(self, cpu: Vcpu, desc: int, entries: int) -> None:
        """MMUEXT_SET_LDT, with the batch of a context switch."""
        batch = self.mc(cpu)
        # With the batch of a context switch, which set_ldt always is.
        batch.extended(MmuExt.SET_LDT, desc, entries)
        batch.issue(Lazy.CPU)

    def _ldt_pages(self, cpu: Vcpu, ldt: int, entries: int) -> Iterator[int]:
        for va in range(ldt & ~(PAGE_SIZE - 1), ldt + 8 * entries, PAGE_SIZE):
            yield self.frames.pfn(self.tables.machine_of(cpu, va) >> PAGE_SHIFT)

    def _set_aliases(self, cpu: Vcpu, ldt: int, entries: int, *, writable: bool) -> bool:
        """A kernel's table is mapped elsewhere too; whether it is a kernel's."""
        if self.mappings is None:
            return False
        for va in range(ldt, ldt + 8 * entries, PAGE_SIZE):
            self.mappings.set_aliases(cpu, va, writable=writable)
        return True

    @hookimpl
    def alloc_ldt(self, cpu: Vcpu, ldt: int, entries: int) -> None:
        """Its pages become read-only."""
        if self._set_aliases(cpu, ldt, entries, writable=False):
            return
        for pfn in self._ldt_pages(cpu, ldt, entries):
            self.tables.protect(cpu, pfn, writable=False)

    @hookimpl
    def free_ldt(self, cpu: Vcpu, ldt: int, entries: int) -> None:
        """Its pages become read-write."""
        if self._set_aliases(cpu, ldt, entries, writable=True):
            return
        for pfn in self._ldt_pages(cpu, ldt, entries):
            self.tables.protect(cpu, pfn, writable=True)

    @hookimpl
    def load_tls(self, cpu: Vcpu, t: int, cpu_nr: int) -> None:
        """update_descriptor for each entry that differs from what the GDT holds.

        In a context switch the segment that user code addresses its thread by is null from here on: it is loaded anew
        with the batch still waiting, and must not name a descriptor that the batch changes.
        """
        gdt = self.kept.gdt.get(cpu_nr)
        if gdt is None:
            return
        offset = self.guest.member("thread_struct", "tls_array")
        batch = self.mc(cpu)
        # GS must not name a descriptor that is being changed under it.
        if batch.waits(Lazy.CPU):
            cpu.load_segment("fs" if self.bits == 64 else "gs", 0)
        for index in range(_TLS_ENTRIES):
            place = gdt + 8 * (_TLS_MIN[self.bits] + index)
            descriptor = cpu.u64(t + offset + 8 * index)
            # Only what differs: Xen is told of a change, not of a value.
            if self.kept.tls.get((cpu_nr, index)) != descriptor:
                self.kept.tls[cpu_nr, index] = descriptor
                batch.update_descriptor(self.tables.machine_of(cpu, place), descriptor)
        batch.issue(Lazy.CPU)

    @hookimpl
    def load_gs_index(self, cpu: Vcpu, idx: int) -> None:
        """SEGBASE_GS_USER_SEL."""
        if self.platform.hypercall(cpu, Hypercall.SET_SEGMENT_BASE, 3, idx):
            self.bug(f"load_gs_index({idx:#x})")

    # --- the kernel's stack ----------------------------------------------------------------------------------------

    @hookimpl
    def load_sp0(self, cpu: Vcpu, sp0: int) -> None:
        """stack_switch; a kernel's TSS is kept in step."""
        self._stack(cpu, sp0)
        if self.linux is not None:
            cpu.set_word(self.guest.per_cpu("cpu_tss_rw", cpu) + _TSS_SP0, sp0)

    @hookimpl
    def load_esp0(self, cpu: Vcpu, tss: int, thread: int) -> None:
        """stack_switch; the TSS is kept in step for the code that reads it."""
        # A frame of the kernel's stack: Xen puts it into its own TSS.
        sp0 = cpu.u32(thread + self.env.symbols.get("thread_sp0_offset", 24))
        cpu.set_u32(tss + self.env.symbols.get("tss_sp0_offset", 4), sp0)
        self._stack(cpu, sp0)

    def _stack(self, cpu: Vcpu, sp0: int) -> None:
        batch = self.mc(cpu)
        batch.add(Hypercall.STACK_SWITCH, _KERNEL_DS[self.bits], sp0)
        batch.issue(Lazy.CPU)

    # --- traps -----------------------------------------------------------------------------------------------------

    @cached_property
    def _xen_entries(self) -> dict[int, int]:
        """Address of each entry point to that of its Xen form: the pairs NAME and xen_NAME."""
        symbols = self.env.symbols
        return {address: symbols[f"xen_{name}"] for name, address in symbols.items() if f"xen_{name}" in symbols}

    def _trap_info(self, vector: int, gate: bytes) -> bytes:
        """``cvt_gate_to_trap``: a gate as Xen takes it; empty for what is no interrupt or trap gate."""
        low, high = struct.unpack_from("<II", gate)
        kind = high >> 8 & 0x1F
        # A gate that is not present, and anything but an interrupt or a trap, is none of a guest's own.
        if not high & 1 << 15 or kind not in {_INTERRUPT_GATE, _TRAP_GATE}:
            return b""
        address = low & 0xFFFF | high & 0xFFFF_0000
        if self.bits == 64:
            address |= struct.unpack_from("<I", gate, 8)[0] << 32
        # A kernel has its own entry points for Xen, under the same names with xen_ before.
        if self.linux is not None:
            entry = self.linux.traps.entry(address, ist=bool(high & 7))
            if not entry:
                return b""
            address = entry
        else:
            address = self._xen_entries.get(address, address)
        # An interrupt gate masks upcalls, a trap gate does not (``cvt_gate_to_trap``).
        flags = high >> 13 & 3 | (_MASK_EVENTS if kind == _INTERRUPT_GATE else 0)
        return TRAP_INFO.at(self.bits).form.pack(vector, flags, low >> 16, address)

    def _set_traps(self, cpu: Vcpu, table: bytes) -> None:
        """set_trap_table, in pieces that fit the stack; each ends with an empty entry."""
        size = self.platform.hv.abi.trap_info_size
        # In pieces, since the stack below is a page: each piece ends with an entry of address 0.
        for start in range(0, len(table), 32 * size):
            piece = table[start : start + 32 * size] + bytes(size)
            address = self.argument(cpu, piece, 128 + len(piece))
            if self.platform.hypercall(cpu, Hypercall.SET_TRAP_TABLE, address):
                self.bug("set_trap_table was refused")

    @hookimpl
    def load_idt(self, cpu: Vcpu, dtr: int) -> None:
        """set_trap_table with every gate of the table."""
        size, base = self._table_register(cpu, dtr)
        self.kept.idt[cpu.index] = (base, size)
        gate = 16 if self.bits == 64 else 8
        raw = cpu.read_virtual(base, size)
        gates = (raw[at : at + gate] for at in range(0, size - gate + 1, gate))
        self._set_traps(cpu, b"".join(self._trap_info(vector, piece) for vector, piece in enumerate(gates)))

    @hookimpl
    def write_idt_entry(self, cpu: Vcpu, dt: int, entrynum: int, low: int, high: int, gate: int) -> None:
        """A plain store; if the table is in use the trap table follows."""
        size = 16 if self.bits == 64 else 8
        data = cpu.read_virtual(gate, size) if gate else struct.pack("<II", low, high)
        place = dt + size * entrynum
        cpu.write_virtual(place, data)
        base, length = self.kept.idt.get(cpu.index) or (0, 0)
        if base <= place < base + length:
            info = self._trap_info(entrynum, data)
            if info:
                self._set_traps(cpu, info)

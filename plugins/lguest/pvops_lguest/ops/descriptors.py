"""Descriptor tables: the host keeps its own copies and is told of every change.

Source: drivers/lguest/lguest.c (2.6.23), arch/x86/lguest/boot.c (2.6.24, 2.6.35).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvops_core.hookspecs import hookimpl
from pvops_core.machine import GuestFault
from pvops_lguest.host.abi import Call
from pvops_lguest.host.memory import PAGE_SIZE
from pvops_lguest.host.segments import GDT_ENTRIES, KERNEL_DS, TLS_ENTRIES, TLS_MIN
from pvops_lguest.ops.guest import GuestSide

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

_TABLE = struct.Struct("<HI")  # struct Xgt_desc_struct: limit, linear address
_ENTRY = struct.Struct("<II")
_STACK_BYTES = 2 * PAGE_SIZE
_INVALID_OPCODE = 6


class DescriptorOps(GuestSide):
    """GDT, IDT, TLS and the kernel stack."""

    def _table(self, cpu: Vcpu, pointer: int) -> tuple[int, int]:
        limit, address = _TABLE.unpack(self.read(cpu, pointer, _TABLE.size))
        # A limit is the last valid byte, not a size.
        return address, (limit + 1) // 8

    def _write_entry(self, cpu: Vcpu, table: int, index: int, low: int, high: int, pointer: int) -> tuple[int, int]:
        """Write a descriptor into the guest's own table; by value, or from where ``pointer`` says if that is not 0."""
        if pointer:
            low, high = _ENTRY.unpack(self.read(cpu, pointer, 8))
        # The guest's own table too: its kernel reads descriptors back.
        self.touching(lambda: cpu.write_virtual(table + index * 8, _ENTRY.pack(low, high)))
        return low, high

    @hookimpl
    def load_gdt(self, cpu: Vcpu, dtr: int) -> None:
        """LOAD_GDT of the whole table, or entry by entry where the ABI has no such call.

        A table that has not the kernel's 32 entries is a bug of the kernel: BUG_ON, an invalid opcode.
        """
        address, entries = self._table(cpu, dtr)
        # BUG_ON() of lguest_load_gdt() in 2.6.24: every GDT of Linux has as many.
        if entries != GDT_ENTRIES:
            raise GuestFault(f"a GDT of {entries} entries", cpu.index, cpu.rip, "load_gdt", vector=_INVALID_OPCODE)
        if self._abi.has(Call.LOAD_GDT):
            self.hcall(cpu, Call.LOAD_GDT, self.pa(address), GDT_ENTRIES)
            return
        for index, words in enumerate(_ENTRY.iter_unpack(self.read(cpu, address, entries * 8))):
            self.hcall(cpu, Call.LOAD_GDT_ENTRY, index, *words)

    @hookimpl
    def load_idt(self, cpu: Vcpu, dtr: int) -> None:
        """LOAD_IDT_ENTRY for every gate of the table."""
        address, entries = self._table(cpu, dtr)
        for vector, words in enumerate(_ENTRY.iter_unpack(self.read(cpu, address, entries * 8))):
            self.hcall(cpu, Call.LOAD_IDT_ENTRY, vector, *words)

    @hookimpl
    def write_gdt_entry(self, cpu: Vcpu, dt: int, entrynum: int, low: int, high: int, desc: int) -> None:
        """Write the guest's table and have the host copy it."""
        low, high = self._write_entry(cpu, dt, entrynum, low, high, desc)
        if self._abi.has(Call.LOAD_GDT):
            self.hcall(cpu, Call.LOAD_GDT, self.pa(dt), GDT_ENTRIES)
        else:
            self.hcall(cpu, Call.LOAD_GDT_ENTRY, entrynum & 0xFFFFFFFF, low, high)

    @hookimpl
    def write_idt_entry(self, cpu: Vcpu, dt: int, entrynum: int, low: int, high: int, gate: int) -> None:
        """Write the guest's table and tell the host the gate."""
        low, high = self._write_entry(cpu, dt, entrynum, low, high, gate)
        self.hcall(cpu, Call.LOAD_IDT_ENTRY, entrynum & 0xFFFFFFFF, low, high)

    @hookimpl
    def load_tls(self, cpu: Vcpu, t: int, cpu_nr: int) -> None:
        """LOAD_TLS: the host copies the thread's three descriptors; part of a context switch, so it may wait."""
        tls_array = t + self.offset("thread.tls_array")
        if self._abi.has(Call.LOAD_TLS):
            self.lazy_hcall(cpu, Call.LOAD_TLS, self.pa(tls_array), cpu_nr)
            return
        for index, words in enumerate(_ENTRY.iter_unpack(self.read(cpu, tls_array, TLS_ENTRIES * 8)), TLS_MIN):
            self.lazy_hcall(cpu, Call.LOAD_GDT_ENTRY, index, *words)

    @hookimpl
    def load_esp0(self, cpu: Vcpu, tss: int, thread: int) -> None:
        """SET_STACK: where traps from user mode start; the TSS itself is the host's."""
        del tss
        esp0 = self.u32(cpu, thread + self.offset("thread.sp0"))
        # THREAD_SIZE / PAGE_SIZE of a kernel without 4 KiB stacks.
        self.lazy_hcall(cpu, Call.SET_STACK, KERNEL_DS, esp0, _STACK_BYTES // PAGE_SIZE)

    @hookimpl
    def set_ldt(self, cpu: Vcpu, desc: int, entries: int) -> None:
        """Nothing: lguest guests have no LDT."""

    @hookimpl
    def load_tr_desc(self, cpu: Vcpu) -> None:
        """Nothing: the task register is the host's."""

"""Control and debug registers, cpuid, caches, ports: asm/system.h (2.6), asm/special_insns.h, asm/processor.h (6.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_core.x86 import CR0_WP
from pvops_native.ops.base import NativeGroup

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

EFLAGS_IOPL: Final = 0x3000
CR4_PINNED: Final = 1 << 11 | 1 << 16 | 1 << 20 | 1 << 21 | 1 << 23
"""Of what cr4_pinned_mask may be made: UMIP, FSGSBASE, SMEP, SMAP, CET."""
# IO_DELAY_TYPE_0X80 and IO_DELAY_TYPE_0XED; type 3 does nothing.
IO_DELAY_PORTS: Final = {0: 0x80, 1: 0xED}
IO_DELAY_UDELAY: Final = 2


class NativeCpuOps(NativeGroup):
    """cpu.* that is one instruction, or nearly so."""

    @hookimpl
    def cpuid(self, cpu: Vcpu, eax: int, ebx: int, ecx: int, edx: int) -> None:
        """native_cpuid: the arguments are four unsigned int pointers; *eax and *ecx go in, all four come out."""
        answer = cpu.insn.cpuid(cpu.u32(eax), cpu.u32(ecx))
        for pointer, value in zip((eax, ebx, ecx, edx), answer, strict=True):
            cpu.set_u32(pointer, value)

    @hookimpl
    def get_debugreg(self, cpu: Vcpu, regno: int) -> int:
        """native_get_debugreg: mov from a debug register."""
        return cpu.insn.mov_from_dr(regno)

    @hookimpl
    def set_debugreg(self, cpu: Vcpu, regno: int, value: int) -> None:
        """native_set_debugreg: mov to a debug register."""
        cpu.insn.mov_to_dr(regno, value)

    @hookimpl
    def clts(self, cpu: Vcpu) -> None:
        """native_clts: clts."""
        cpu.insn.clts()

    @hookimpl
    def read_cr0(self, cpu: Vcpu) -> int:
        """native_read_cr0."""
        return cpu.insn.mov_from_cr(0)

    @hookimpl
    def write_cr0(self, cpu: Vcpu, cr0: int) -> None:
        """native_write_cr0."""
        # Since 5.3 a cleared WP is put back (native_write_cr0()).
        self._pinned(cpu, cr0, CR0_WP, CR0_WP)
        cpu.insn.mov_to_cr(0, cr0)

    @hookimpl
    def read_cr4(self, cpu: Vcpu) -> int:
        """native_read_cr4."""
        return cpu.insn.mov_from_cr(4)

    @hookimpl
    def read_cr4_safe(self, cpu: Vcpu) -> int:
        """native_read_cr4_safe: a processor without CR4 faults and the fixup gives 0; all of ours have it."""
        return cpu.insn.mov_from_cr(4)

    @hookimpl
    def write_cr4(self, cpu: Vcpu, cr4: int) -> None:
        """native_write_cr4."""
        if "cr4_pinned_bits" in self.guest:
            # Only bits that were set at the end of start-up are pinned, so the kernel's own variable says which.
            self._pinned(cpu, cr4, CR4_PINNED, cpu.word(self.guest.address("cr4_pinned_bits")))
        cpu.insn.mov_to_cr(4, cr4)

    def _pinned(self, cpu: Vcpu, value: int, mask: int, bits: int) -> None:
        """Once the key cr_pinning is on, a kernel puts pinned bits back, with a warning."""
        # A static key: its first word counts who has enabled it.
        if "cr_pinning" in self.guest and cpu.u32(self.guest.address("cr_pinning")) and value & mask != bits:
            self.leave("pinned bits of control registers")

    @hookimpl
    def wbinvd(self, cpu: Vcpu) -> None:
        """native_wbinvd."""
        cpu.insn.wbinvd()

    @hookimpl
    def read_tsc(self, cpu: Vcpu) -> int:
        """native_read_tsc: rdtsc, 64 bits."""
        return cpu.insn.rdtsc()

    @hookimpl
    def read_pmc(self, cpu: Vcpu, counter: int) -> int:
        """native_read_pmc: rdpmc, 64 bits."""
        return cpu.insn.rdpmc(counter)

    @hookimpl
    def set_iopl_mask(self, cpu: Vcpu, mask: int) -> None:
        """native_set_iopl_mask: replaces the IOPL bits of EFLAGS by those in mask."""
        # popf changes IOPL in ring 0 only.
        cpu.insn.popf(cpu.insn.pushf() & ~EFLAGS_IOPL | mask)

    @hookimpl
    def io_delay(self, cpu: Vcpu) -> None:
        """native_io_delay: outb %al to port 0x80, or what io_delay= has put into io_delay_type in place of that."""
        way = cpu.u32(self.guest.address("io_delay_type")) if "io_delay_type" in self.guest else 0
        if way in IO_DELAY_PORTS:
            # The value does not matter, so what is in al goes out.
            cpu.insn.out(IO_DELAY_PORTS[way], cpu.get("eax") & 0xFF, 1)
        elif way == IO_DELAY_UDELAY:
            self.leave("udelay()")

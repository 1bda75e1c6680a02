"""Control registers, cpuid and what a guest has no use for.

Source: drivers/lguest/lguest.c (2.6.23), arch/x86/lguest/boot.c (2.6.24).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs import hookimpl
from pvops_lguest.host.abi import Call
from pvops_lguest.ops.guest import GuestSide

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

CR0_TS = 0x8

# Leaf 1: of the features only those that need nothing of the kernel or host, as lguest_cpuid has them
_ECX_SSE3_SSSE3_CX16 = 0x00002201
_EDX_FPU_CX8_CMOV_MMX_FXSR_SSE_SSE2 = 0x07808101
_EDX_PGE = 0x00002000
_HIGHEST_EXTENDED_LEAF = 0x80000008


class CpuOps(GuestSide):
    """Ops that stand for privileged instructions."""

    @hookimpl
    def cpuid(self, cpu: Vcpu, eax: int, ebx: int, ecx: int, edx: int) -> None:
        """The processor's answer, less the features that an lguest guest cannot use.

        PGE is claimed whatever the processor says: so that the guest tells kernel flushes from user ones.
        """
        leaf = self.u32(cpu, eax)
        words = list(cpu.insn.cpuid(leaf, self.u32(cpu, ecx)))
        if leaf == 1:
            words[2] &= _ECX_SSE3_SSSE3_CX16
            # PGE, though the host drops GLOBAL: it makes the kernel flush its own mappings by a call of their own.
            words[3] = words[3] & _EDX_FPU_CX8_CMOV_MMX_FXSR_SSE_SSE2 | _EDX_PGE
        elif leaf == 0x80000000:
            # lguest_cpuid(): only leaves that were known when it was written, for later ones may need the host's
            # help.
            words[0] = min(words[0], _HIGHEST_EXTENDED_LEAF)
        for pointer, word in zip((eax, ebx, ecx, edx), words, strict=True):
            self.set_u32(cpu, pointer, word)

    @hookimpl
    def clts(self, cpu: Vcpu) -> None:
        """TS(0): the FPU may be used."""
        self.lazy_hcall(cpu, Call.TS, 0)
        self._variables.cr0 &= ~CR0_TS

    @hookimpl
    def read_cr0(self, cpu: Vcpu) -> int:
        """What was written last: the host does not show its own."""
        del cpu
        return self._variables.cr0

    @hookimpl
    def write_cr0(self, cpu: Vcpu, cr0: int) -> None:
        """TS alone means anything to the host."""
        self.lazy_hcall(cpu, Call.TS, cr0 & CR0_TS)
        self._variables.cr0 = cr0

    @hookimpl
    def read_cr2(self, cpu: Vcpu) -> int:
        """The host writes the address of a page fault into the shared page."""
        del cpu
        return self._memory.u32(self.data(self._abi.data.cr2))

    @hookimpl
    def read_cr4(self, cpu: Vcpu) -> int:
        """Nothing: the one bit of interest is PGE, which is assumed."""
        del cpu
        return 0

    @hookimpl
    def read_cr4_safe(self, cpu: Vcpu) -> int:
        """As read_cr4: the instruction faults in ring 1, which the kernel's safe read turns into 0."""
        del cpu
        return 0

    @hookimpl
    def write_cr4(self, cpu: Vcpu, cr4: int) -> None:
        """Ignored."""

    @hookimpl
    def set_debugreg(self, cpu: Vcpu, regno: int, value: int) -> None:
        """Ignored: lguest never had hardware breakpoints."""

    @hookimpl
    def wbinvd(self, cpu: Vcpu) -> None:
        """Nothing: caches are the host's business."""

"""pv_cpu_ops: control and model-specific registers, cpuid, context switches (arch/x86/xen/enlighten_pv.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_native.iobitmap import PORTS, TaskBitmaps

from pvops_core.hookspecs import hookimpl
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.x86 import CR0_TS
from pvops_xen.hypervisor.abi import Hypercall, PhysdevOp, Segbase
from pvops_xen.ops.base import XenGroup
from pvops_xen.ops.multicalls import Lazy
from pvops_xen.public import PHYSDEV

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.ops.kept.linux import Linux

_CR4_HIDDEN: Final = 1 << 4 | 1 << 7 | 1 << 8  # PSE PGE PCE: Xen's to decide
_CR4_PINNED: Final = 1 << 11 | 1 << 16 | 1 << 20 | 1 << 21 | 1 << 23  # UMIP FSGSBASE SMEP SMAP CET
_IOPL: Final = PHYSDEV["physdev_set_iopl"].whole("iopl")
_IOBITMAP: Final = PHYSDEV["physdev_set_iobitmap"].whole("bitmap", "nr_ports")
_EIO: Final = 5
_EFAULT: Final = 14
_APIC_BASE: Final = 0x1B  # IA32_APIC_BASE; its bit 10 enables x2APIC (Intel SDM volume 3, 10.12.1)
_X2APIC_ENABLE: Final = 1 << 10
_BASES: Final = {0xC000_0100: Segbase.FS, 0xC000_0102: Segbase.GS_USER, 0xC000_0101: Segbase.GS_KERNEL}
# STAR LSTAR CSTAR SYSCALL_MASK, SYSENTER_CS ESP EIP: fast system calls are told by callbacks instead.
_FILTERED: Final = frozenset({0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0x174, 0x175, 0x176})
_SEP: Final = 1 << 11
_MWAIT: Final = 5
_TOPOLOGY: Final = 0xB
# Leaf 1: what the guest's kernel must not use even if the processor has it.
_LEAF1_EDX_HIDDEN: Final = 1 << 7 | 1 << 9 | 1 << 12 | 1 << 14 | 1 << 22  # MCE APIC MTRR MCA ACPI
_LEAF1_ECX_HIDDEN: Final = 1 << 3 | 1 << 17 | 1 << 21 | 1 << 26  # MWAIT PCID X2APIC XSAVE


_UNCHECKED: Final = "the warning about a register that is not there"
_LEAF5: Final = ("cpuid_leaf5_ecx_val", "cpuid_leaf5_edx_val")


class XenCpuOps(XenGroup):
    """Instructions that would trap are hypercalls; those that trap rarely are left to Xen's emulation."""

    # --- registers -------------------------------------------------------------------------------------------------

    @hookimpl
    def read_cr0(self, cpu: Vcpu) -> int:
        """The value is remembered: only TS ever changes, and only here."""
        value = self.kept.cr0.get(cpu.index)
        # TS is all that a PV guest may change, so the value is known from the first read on.
        if value is None:
            value = self.kept.cr0[cpu.index] = cpu.insn.mov_from_cr(0)
        return value

    @hookimpl
    def write_cr0(self, cpu: Vcpu, cr0: int) -> None:
        """Only TS counts; it goes with the batch."""
        self.kept.cr0[cpu.index] = cr0
        # TS goes with the batch of a context switch, which is where it is set.
        self._task_switched(cpu, on=bool(cr0 & CR0_TS))

    @hookimpl
    def clts(self, cpu: Vcpu) -> None:
        """fpu_taskswitch(0)."""
        if (known := self.kept.cr0.get(cpu.index)) is not None:
            self.kept.cr0[cpu.index] = known & ~CR0_TS
        self._task_switched(cpu, on=False)

    def _task_switched(self, cpu: Vcpu, *, on: bool) -> None:
        batch = self.mc(cpu)
        batch.add(Hypercall.FPU_TASKSWITCH, int(on))
        batch.issue(Lazy.CPU)

    @hookimpl
    def write_cr4(self, cpu: Vcpu, cr4: int) -> None:
        """Emulated by Xen, without the bits that are Xen's; a kernel puts pinned bits back, with a warning."""
        value = cr4 & ~_CR4_HIDDEN
        linux = self.linux
        # A kernel that pins bits puts them back itself, and warns: its own code must do it.
        if linux and linux.u32("cr_pinning") and value & _CR4_PINNED != linux.variable("cr4_pinned_bits"):
            self.leave("pinned bits of control registers")
        cpu.insn.mov_to_cr(4, value)

    @hookimpl
    def get_debugreg(self, cpu: Vcpu, regno: int) -> int:
        """get_debugreg."""
        # -ENODEV for a register that is not there; the caller gets 0, as the kernel's own does.
        return max(self.platform.hypercall(cpu, Hypercall.GET_DEBUGREG, regno), 0)

    @hookimpl
    def set_debugreg(self, cpu: Vcpu, regno: int, value: int) -> None:
        """set_debugreg; a refusal is not told, as in the kernel."""
        self.platform.hypercall(cpu, Hypercall.SET_DEBUGREG, regno, value)

    # --- model-specific registers ----------------------------------------------------------------------------------

    def _read(self, cpu: Vcpu, msr: int) -> int:
        value = cpu.insn.rdmsr(msr)
        # Linux takes the x2APIC bit for its own, and Xen shows it although it has none.
        return value & ~_X2APIC_ENABLE if msr == _APIC_BASE else value

    def _write(self, cpu: Vcpu, msr: int, value: int) -> int:
        """0, or the result of the hypercall; GuestFault where the instruction faults."""
        # FS and GS bases are hypercalls: a wrmsr of them would trap.
        if self.bits == 64 and msr in _BASES:
            return self.platform.hypercall(cpu, Hypercall.SET_SEGMENT_BASE, _BASES[msr], value)
        if msr not in _FILTERED:
            cpu.insn.wrmsr(msr, value)
        return 0

    @hookimpl
    def read_msr(self, cpu: Vcpu, msr: int, err: int) -> int:
        """Rdmsr by Xen's emulation; ``err`` receives the outcome where the op has it."""
        try:
            value = self._read(cpu, msr)
        except GuestFault:
            self.leave(_UNCHECKED)
            if not err:
                raise
            # Where the op has an outcome, the fault is a number and no exception (``read_msr_safe``).
            cpu.set_u32(err, -_EFAULT)
            return 0
        if err:
            cpu.set_u32(err, 0)
        return value

    @hookimpl
    def read_msr_safe(self, cpu: Vcpu, msr: int, err: int, val: int) -> int:
        """As read_msr, -EIO for a register that is not there; where ``val`` receives the value, the outcome returns."""
        try:
            value, outcome = self._read(cpu, msr), 0
        except GuestFault:
            value, outcome = 0, -_EIO
        if val:
            cpu.set_u64(val, value)
            return outcome
        cpu.set_u32(err, outcome)
        return value

    @hookimpl
    def write_msr(self, cpu: Vcpu, msr: int, low: int, high: int) -> int:
        """Segment bases by hypercall, system-call entries not at all, the rest by Xen's emulation."""
        try:
            return -_EFAULT if self._write(cpu, msr, low | high << 32) else 0
        except GuestFault:
            self.leave(_UNCHECKED)
            if self.bits == 64:
                raise
            return -_EFAULT

    @hookimpl
    def write_msr_safe(self, cpu: Vcpu, msr: int, low: int, high: int) -> int:
        """As write_msr, -EIO for a refusal."""
        try:
            return -_EIO if self._write(cpu, msr, low | high << 32) else 0
        except GuestFault:
            return -_EIO

    @hookimpl
    def cpuid(self, cpu: Vcpu, eax: int, ebx: int, ecx: int, edx: int) -> None:
        """The forced-emulation cpuid, with what a PV kernel must not use masked out of leaf 1."""
        leaf, sub = cpu.u32(eax), cpu.u32(ecx)
        answer = list(self.platform.cpuid(cpu, leaf, sub))
        if self.linux is not None:
            answer = self._for_linux(cpu, self.linux, leaf, answer)
            # A kernel hides what it must not use elsewhere, by feature words that it clears.
            leaf = 0
        if leaf == 1:
            answer[2] &= ~_LEAF1_ECX_HIDDEN
            answer[3] &= ~_LEAF1_EDX_HIDDEN
            # Without an entry that Xen could be told of, a process must not use sysenter.
            if self.bits == 32 and "xen_sysenter_target" not in self.env.symbols:
                answer[3] &= ~_SEP  # there is no entry that Xen could be told of
        # In the order of the arguments: the op writes through four pointers.
        for address, value in zip((eax, ebx, ecx, edx), answer, strict=True):
            cpu.set_u32(address, value)

    @staticmethod
    def _for_linux(cpu: Vcpu, linux: Linux, leaf: int, answer: list[int]) -> list[int]:
        """``xen_cpuid`` of 64-bit kernels: features are cleared elsewhere; the APIC's number is the processor's own."""
        if leaf == 1:
            # The initial APIC ID is EBX's top byte (Intel SDM volume 2, CPUID, leaf 01H).
            # The initial APIC ID is the vCPU's number: Xen's own is no processor's.
            answer[1] = answer[1] & 0x00FF_FFFF | cpu.index << 24
        elif leaf == _MWAIT:
            return [0, 0, *(linux.u32(name) if name in linux.names else 0 for name in _LEAF5)]
        elif leaf == _TOPOLOGY:
            answer[1] = 0
        return answer

    # --- context switches ------------------------------------------------------------------------------------------

    @hookimpl
    def start_context_switch(self, cpu: Vcpu, prev: int) -> None:
        """``paravirt_start_context_switch``: an MMU batch is ended and will be resumed; CPU mode begins."""
        self.mc(cpu).start_switch(prev)

    @hookimpl
    def end_context_switch(self, cpu: Vcpu, next: int) -> None:
        """Everything batched takes effect."""
        self.mc(cpu).end_switch(next)

    @hookimpl
    def cpu_lazy_mode_enter(self, cpu: Vcpu) -> None:
        """2.6.24: CPU mode begins."""
        self.mc(cpu).enter(Lazy.CPU)

    @hookimpl
    def cpu_lazy_mode_leave(self, cpu: Vcpu) -> None:
        """2.6.24: everything batched takes effect."""
        self.mc(cpu).leave()

    # --- I/O rights ------------------------------------------------------------------------------------------------

    def _physdev(self, cpu: Vcpu, command: int, argument: bytes) -> None:
        address = self.argument(cpu, argument)
        self.platform.hypercall(cpu, Hypercall.PHYSDEV_OP, command, address)

    @hookimpl
    def set_iopl_mask(self, cpu: Vcpu, mask: int) -> None:
        """The kernel itself always has level 1, so 0 means 1."""
        # The kernel runs at ring 1, which is its own level 0 (``xen_set_iopl_mask``).
        level = mask >> 12 & 3 if mask else 1
        self._physdev(cpu, PhysdevOp.SET_IOPL, _IOPL.at(self.bits).form.pack(level))

    @hookimpl
    def invalidate_io_bitmap(self, cpu: Vcpu) -> None:
        """No port is open any more; a kernel's TSS says so too."""
        if self.linux is not None:
            TaskBitmaps(self.guest, cpu).close()
        # The bitmap in the TSS is closed too: a process that had ports has none now.
        self._physdev(cpu, PhysdevOp.SET_IOBITMAP, _IOBITMAP.at(self.bits).form.pack(0, 0))

    @hookimpl
    def update_io_bitmap(self, cpu: Vcpu) -> None:
        """Tell Xen the task's bitmap in the TSS; the built-in guest's tasks have none."""
        place = ports = 0
        if self.linux is not None:
            tss = TaskBitmaps(self.guest, cpu)
            if tss.open():
                # Without a TSS of the guest's there is nothing for Xen to load again.
                tss.limit_is_stale()  # Xen has no TSS of the guest's to load again
                ports = PORTS
            place = tss.start + tss.base
        self._physdev(cpu, PhysdevOp.SET_IOBITMAP, _IOBITMAP.at(self.bits).form.pack(place, ports))

    @hookimpl
    def io_delay(self, cpu: Vcpu) -> None:
        """Nothing: no port is slow here."""
        del cpu

    @hookimpl
    def iret(self, cpu: Vcpu) -> None:
        """The iret hypercall (32-bit): its frame begins with eax."""
        # The iret hypercall of 32-bit guests takes eax from the stack, above the frame.
        cpu.push(cpu.get("rax"))
        self.platform.hypercall(cpu, Hypercall.IRET)
        self.platform.deliver_pending(cpu)

    @hookimpl
    def store_tr(self, cpu: Vcpu) -> int:
        """A guest has no task register."""
        del cpu
        return 0

"""pv_irq_ops: the interrupt flag is a byte that the guest shares with Xen (arch/x86/xen/irq.c, xen-asm.S)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs import hookimpl
from pvops_core.x86 import FLAG_IF
from pvops_xen.hypervisor.abi import EvtchnOp, Hypercall, SchedOp, VcpuOp
from pvops_xen.ops.base import XenGroup

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


class XenIrqOps(XenGroup):
    """Upcalls masked means interrupts disabled. Nothing here touches the CPU's own flag, which stays set.

    As long as a kernel has no vcpu_info of Xen's they are disabled (``xen_irq_ops``).
    """

    def _masked(self, cpu: Vcpu) -> bool:
        info = self.info(cpu)
        masked = self.env.machine.memory.u8(info + self.platform.hv.abi.upcall_mask)
        # Until the kernel has Xen's area no event can come, and its own byte says nothing.
        return bool(masked) or (self.linux is not None and info == self.linux.no_events)

    def _mask(self, cpu: Vcpu, *, masked: bool) -> None:
        info = self.info(cpu)
        if self.linux is None or info != self.linux.no_events:
            self.env.machine.memory.set_u8(info + self.platform.hv.abi.upcall_mask, int(masked))

    def _check_events(self, cpu: Vcpu) -> None:
        """``check_events``: an upcall that became pending while masked comes now, on the way back to the caller."""
        # The event is taken on the way back, so that the caller finds itself interrupted (``check_events``).
        if self.env.machine.memory.u8(self.info(cpu)):
            self.platform.hypercall(cpu, Hypercall.XEN_VERSION, 0, 0)
            cpu.ret()
            self.platform.deliver_pending(cpu)

    @hookimpl
    def save_fl(self, cpu: Vcpu) -> int:
        """X86_EFLAGS_IF if upcalls are not masked, else 0.

        Once vcpu_info is the guest's own, a 32-bit kernel has ``xen_save_fl_direct`` here, which leaves the rest of
        eax outside of ah as it was; its callers look at FLAG_IF only.
        """
        flags = 0 if self._masked(cpu) else FLAG_IF
        # 2.6's save_fl keeps the rest of AX, since its site says that only EAX is destroyed.
        if self.bits == 32 and self.platform.hv.domain.vcpus[cpu.index].info_registered:
            flags |= cpu.get("rax") & ~0xFF00
        return flags

    @hookimpl
    def restore_fl(self, cpu: Vcpu, flags: int) -> None:
        """Mask upcalls if FLAG_IF is clear; unmask them, and take what is pending, if it is set."""
        self._mask(cpu, masked=not flags & FLAG_IF)
        # Unmasking takes what came meanwhile, or it would wait for the next event.
        if flags & FLAG_IF:
            self._check_events(cpu)

    @hookimpl
    def irq_disable(self, cpu: Vcpu) -> None:
        """Mask upcalls."""
        self._mask(cpu, masked=True)

    @hookimpl
    def irq_enable(self, cpu: Vcpu) -> None:
        """Unmask upcalls and take what is pending."""
        self._mask(cpu, masked=False)
        self._check_events(cpu)

    @hookimpl
    def safe_halt(self, cpu: Vcpu) -> None:
        """SCHEDOP_block: unmask and sleep in one step. The vCPU has returned to its caller when an upcall wakes it."""
        # Returned before it sleeps: the caller must not be interrupted in the middle of the op.
        cpu.ret()
        if self.platform.hypercall(cpu, Hypercall.SCHED_OP, SchedOp.BLOCK, 0):
            self.bug("SCHEDOP_block failed")
        self.platform.deliver_pending(cpu)

    @hookimpl
    def halt(self, cpu: Vcpu) -> None:
        """With interrupts off the vCPU goes down for good; else as safe_halt."""
        if self._masked(cpu):
            cpu.ret()
            self.platform.hypercall(cpu, Hypercall.VCPU_OP, VcpuOp.DOWN, cpu.index, 0)
        else:
            self.safe_halt(cpu)

    @hookimpl
    def init_IRQ(self, cpu: Vcpu) -> None:  # noqa: N802 - the kernel's name
        """Ask for the FIFO event channels; any refusal means the two-level ones, whose ports all start masked."""
        address = self.argument(cpu, bytes(32))
        # -ENOSYS, or a refusal, means the two-level interface (``xen_init_IRQ``).
        self.platform.hypercall(cpu, Hypercall.EVENT_CHANNEL_OP, EvtchnOp.INIT_CONTROL, address)
        hv = self.platform.hv
        mask = hv.domain.shared_info + hv.abi.evtchn_mask
        # All masked, as the boot leaves them: ports are opened one by one.
        hv.memory.write(mask, b"\xff" * (hv.abi.channels // 8))

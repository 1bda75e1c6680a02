"""Where a guest of Xen's can be stopped for live patching, and how its kernel is entered from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pvops_core.errors import MachineError
from pvops_xen.hypervisor.abi import FLAT_KERNEL_CS64, FLAT_KERNEL_SS64, FLAT_RING1_CS32, PAGE_SHIFT
from pvops_xen.hypervisor.memory.frames import FREE, GUEST
from pvops_xen.hypervisor.memory.update import write_word
from pvops_xen.hypervisor.processor.bounce import in_guest_kernel, toggle_mode

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor


class XenCallsIn:
    """What live patching asks a platform that is a Xen host: the CPU's own flags say nothing of a PV guest."""

    hv: Hypervisor

    def interruptible(self, vcpu: Vcpu) -> bool:
        """Upcalls are not masked."""
        # The processor's IF is Xen's and always set; the guest's own is this byte.
        return not self.hv.memory.u8(self._mask_of(vcpu))

    def in_user_mode(self, vcpu: Vcpu) -> bool:
        """By Xen's own flag, or by ring."""
        return not in_guest_kernel(self.hv, vcpu)

    @contextmanager
    def kernel_mode(self, vcpu: Vcpu) -> Iterator[int]:
        """As a bounce would enter it, but without a frame; upcalls masked."""
        hv, state, mask = self.hv, self.hv.state(vcpu), self._mask_of(vcpu)
        before, user = hv.memory.u8(mask), self.in_user_mode(vcpu)
        # Masked as Xen's own entry would, so that no upcall is taken while the payload runs.
        hv.memory.set_u8(mask, 1)
        if user and hv.abi.bits == 64:
            toggle_mode(hv, vcpu)
            vcpu.set_segments(3, FLAT_KERNEL_CS64, FLAT_KERNEL_SS64)
        elif user:
            vcpu.set_segments(1, FLAT_RING1_CS32, state.kernel_ss)
        try:
            # A kernel stack of its own for what is called in user mode; else below what the kernel was using.
            yield state.kernel_sp if user else vcpu.rsp
        finally:
            if user and hv.abi.bits == 64:
                toggle_mode(hv, vcpu)
            hv.memory.set_u8(mask, before)

    def spare_frames(self, count: int) -> list[int]:
        """Frames that nobody has become the domain's, without an entry in its list of frames."""
        frames = self.hv.frames
        # Frames that Xen has not given to anybody: the domain's own list is not touched.
        free = [mfn for mfn in range(1, len(frames)) if frames.owner[mfn] == FREE][:count]
        if len(free) < count:
            raise MachineError(f"{count} frames are wanted for payloads, {len(free)} are free")
        for mfn in free:
            frames.give(mfn, GUEST)
        return [mfn << PAGE_SHIFT for mfn in free]

    def write_entry(self, address: int, value: int, size: int) -> None:
        """As a privileged domain's ``mmu_update`` on this one: checked, and counted with the guest's own."""
        del size
        # As the toolstack would ask: Xen checks the entry, and counts it with the guest's own.
        if write_word(self.hv.validator, address, value):
            raise MachineError(f"Xen does not take {value:#x} as a page-table entry at {address:#x}")

    def _mask_of(self, vcpu: Vcpu) -> int:
        return self.hv.state(vcpu).info + self.hv.abi.upcall_mask

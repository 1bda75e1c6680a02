"""The first run of a vCPU that VCPUOP_initialise has prepared (``load_segments`` of xen/arch/x86/domain.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.x86 import MSR_FS_BASE, MSR_GS_BASE
from pvops_xen.hypervisor.abi import (
    FLAT_KERNEL_CS64,
    FLAT_KERNEL_SS64,
    FLAT_RING1_CS32,
    FLAT_RING1_DS32,
)
from pvops_xen.hypervisor.processor.bounce import enter
from pvops_xen.hypervisor.processor.bounce64 import go_back
from pvops_xen.hypervisor.processor.iret import leave
from pvops_xen.hypervisor.processor.ldt import data_descriptor
from pvops_xen.hypervisor.state import EntryPoint

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.hypervisor.state import ResumePoint

_SEGMENTS: Final = ("ds", "es", "fs", "gs")


def arrive(hv: Hypervisor, cpu: Vcpu, place: ResumePoint) -> None:
    """Begin there. A data segment that cannot be loaded is null, and then the failsafe callback is told."""
    state, wide = hv.state(cpu), hv.abi.bits == 64
    state.arrival, state.stale_user = None, True
    if wide:
        cpu.set_segments(3, FLAT_KERNEL_CS64, FLAT_KERNEL_SS64)
    else:
        cpu.set_segments(1, FLAT_RING1_CS32, FLAT_RING1_DS32)
    level = 3 if wide else place.cs & 3
    loaded = [_load(hv, cpu, name, selector, level) for name, selector in zip(_SEGMENTS, place.data, strict=True)]
    # Bases come after selectors: a load of FS or GS would change them.
    if wide:
        cpu.set_msr(MSR_FS_BASE, state.fs_base)
        cpu.set_msr(MSR_GS_BASE, state.gs_base_kernel if state.in_kernel else state.gs_base_user)
    if not all(loaded):
        hv.log(f"vCPU {cpu.index} has data segments {place.data} that cannot be loaded")
        # The failsafe callback gets the frame of the place that was meant, with the data segments on top.
        cpu.rsp, cpu.rflags, cpu.rip = place.rsp, place.flags, place.rip
        callback = EntryPoint(FLAT_RING1_CS32, state.failsafe.address, state.failsafe.mask_events)
        enter(hv, cpu, callback, selectors=(place.cs, place.ss), data=place.data)
        return
    registers = cpu.get("rax"), cpu.get("rcx"), cpu.get("r11") if wide else 0
    frame = place.rip, place.cs, place.flags, place.rsp, place.ss
    # The short way is by what the guest's kernel begins with nearly always; anything else is checked word by word.
    if not (wide and state.in_kernel and go_back(hv, cpu, frame, registers, to_user=False)):
        leave(hv, cpu, place)


def _load(hv: Hypervisor, cpu: Vcpu, name: str, selector: int, level: int) -> bool:
    """Xen loads it at its own level; going to an outer one then empties what is not for that."""
    descriptor = data_descriptor(hv, cpu, selector) if selector & 0xFFFC else None
    fits = descriptor is not None and (descriptor.conforming or descriptor.dpl >= level)
    cpu.load_segment(name, selector if fits else 0)
    return descriptor is not None or not selector & 0xFFFC

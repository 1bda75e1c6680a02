"""VCPUOP_initialise: a vCPU's first registers, out of vcpu_guest_context (``arch_set_info_guest`` of xen/arch/x86)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.headers import StructView
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.cpu.fpu import FXSAVE_SIZE
from pvops_core.x86 import CR0_TS, DR6_RESET, DR7_RESET
from pvops_xen.hypervisor.abi import (
    EINVAL,
    FIRST_RESERVED_GDT_PAGE,
    FLAT_KERNEL_CS64,
    FLAT_KERNEL_SS64,
    FLAT_USER_CS32,
    PAGE_MASK,
    TRAP_SYSCALL,
    VGCF_FAILSAFE_DISABLES_EVENTS,
    VGCF_I387_VALID,
    VGCF_IN_KERNEL,
    VGCF_ONLINE,
    VGCF_SYSCALL_DISABLES_EVENTS,
)
from pvops_xen.hypervisor.access import addr_ok, canonical
from pvops_xen.hypervisor.layout import GUEST_CONTEXT
from pvops_xen.hypervisor.memory.frames import FrameType
from pvops_xen.hypervisor.processor.bounce64 import IF, IOPL, VM
from pvops_xen.hypervisor.processor.callbacks import TRAP_INFO, guest_selector, trap_entry
from pvops_xen.hypervisor.processor.debugreg import set_debugreg
from pvops_xen.hypervisor.processor.ldt import load_ldt_register
from pvops_xen.hypervisor.processor.tables import load_cr4, load_gdt, load_task_switched
from pvops_xen.hypervisor.state import EntryPoint, ResumePoint, XenVcpuState
from pvops_xen.public import XEN

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.hypervisor.layout import Abi

_MOST_LDT_ENTRIES: Final = 8192  # what a selector can name: its index has 13 bits (Intel SDM volume 3, 3.4.2)
_GDT_PAGE_ENTRIES: Final = 512
_SEGMENTS: Final = ("ds", "es", "fs", "gs")
_ADDRESSES: Final = (
    *("kernel_sp", "fs_base", "gs_base_kernel", "gs_base_user"),
    *("event_callback_eip", "failsafe_callback_eip", "syscall_callback_eip"),
)


_USER_REGS: Final = XEN["cpu_user_regs"]
_NO_REGISTERS: Final = ("error_code", "entry_vector", "saved_upcall_mask", "pad")


class GivenContext(StructView):
    """``struct vcpu_guest_context``: what a guest wants a vCPU to begin with, in its width."""

    def __init__(self, raw: bytes, abi: Abi) -> None:
        super().__init__(GUEST_CONTEXT, raw, abi.bits)
        self.abi = abi

    def registers(self) -> dict[str, int]:
        """``user_regs``, by name."""
        names = _USER_REGS.names(self.bits)
        return {name: self[f"user_regs.{name}"] for name in names if not name.startswith(_NO_REGISTERS)}

    def traps(self) -> list[EntryPoint]:
        """The trap table."""
        offset, kind = self.structure.place("trap_ctxt", self.bits)
        table = TRAP_INFO.at(self.bits).form.iter_unpack(self.raw[offset : offset + len(kind)])
        return [trap_entry(self.bits, *fields) for _vector, *fields in table]

    def callback(self, name: str, *, masks: bool) -> EntryPoint:
        """An address, of a 32-bit guest behind a selector."""
        address = self[f"{name}_callback_eip"]
        if self.bits == 64:
            return EntryPoint(0, address, masks)
        return EntryPoint(guest_selector(32, self[f"{name}_callback_cs"] & 0xFFFF), address, masks)


def initialise(hv: Hypervisor, state: XenVcpuState, raw: bytes) -> int:
    """arch_set_info_guest(): 0, or an error and it may be tried again. It does not run before VCPUOP_up."""
    context = GivenContext(raw, hv.abi)
    if not _is_sound(context):
        return -EINVAL
    cpu, entries = hv.machine.vcpus[state.index], context["gdt_ents"] & 0xFFFF_FFFF
    # As many frames as the entries take; what is behind them in the array is not looked at.
    frames = list(context.row("gdt_frames")[: min(_pages(entries), FIRST_RESERVED_GDT_PAGE)])
    error = load_gdt(hv, cpu, frames, entries)
    if error:
        return error
    error = _load_roots(hv, state, context)
    if error:
        # Nothing is left of a refusal: the guest may try again with another context.
        load_gdt(hv, cpu, [], 0)
        return error
    _load_entries(state, context)
    _load_registers(hv, cpu, state, context)
    # VGCF_online: it runs as soon as it is initialised.
    state.initialised, state.up = True, bool(context["flags"] & VGCF_ONLINE)
    return 0


def _pages(entries: int) -> int:
    return (entries + _GDT_PAGE_ENTRIES - 1) // _GDT_PAGE_ENTRIES


def _is_sound(context: GivenContext) -> bool:
    """What is looked at before anything is taken. Selectors are not: they fault when the vCPU first runs."""
    abi = context.abi
    base, count = context["ldt_base"], context["ldt_ents"]
    # The processor needs whole pages for an LDT, and a selector can name 8192 entries.
    if base & PAGE_MASK or count > _MOST_LDT_ENTRIES:
        return False
    if _pages(context["gdt_ents"]) & 0xFFFF_FFFF > FIRST_RESERVED_GDT_PAGE:
        return False
    # Addresses of 32-bit guests are checked when they are used, by segments.
    if abi.bits == 32:
        return True
    # In user mode without a user root there would be nothing to run on.
    has_root = context["flags"] & VGCF_IN_KERNEL or context["ctrlreg[1]"]
    if not has_root or not addr_ok(abi, base):
        return False
    registers = context.registers()
    addresses = [registers["rip"], registers["rsp"], *(context[name] for name in _ADDRESSES)]
    addresses += [entry.address for entry in context.traps()]
    return all(canonical(abi, address) for address in addresses)


def _load_roots(hv: Hypervisor, state: XenVcpuState, context: GivenContext) -> int:
    """The root of the kernel, and of a 64-bit guest's processes where one is given."""
    wide, control = hv.abi.bits == 64, context.row("ctrlreg")
    kind, cr3 = FrameType.L4 if wide else FrameType.L3, control[3]
    root = cr3 >> 12 if wide else (cr3 >> 12 | cr3 << 20) & 0xFFFF_FFFF  # rotated, so that frames above 4 GiB fit
    error = hv.validator.get_page_and_type(root, kind)
    if error:
        return error
    user = control[1] if wide else 0
    if user:
        error = hv.validator.get_page_and_type(user >> 12, FrameType.L4)
        # The kernel's root was taken already.
        if error:
            hv.validator.put_page_and_type(root)
            return error
    state.guest_table, state.guest_table_user = root, user >> 12
    return 0


def _load_entries(state: XenVcpuState, context: GivenContext) -> None:
    bits, flags = context.bits, context["flags"]
    state.traps = context.traps()
    state.kernel_ss = guest_selector(bits, context["kernel_ss"] & 0xFFFF)
    state.kernel_sp = context["kernel_sp"]
    state.event = context.callback("event", masks=True)
    masks = bool(flags & VGCF_FAILSAFE_DISABLES_EVENTS)
    state.failsafe = context.callback("failsafe", masks=masks)
    if bits == 64:
        masks = bool(flags & VGCF_SYSCALL_DISABLES_EVENTS)
        state.syscall = context.callback("syscall", masks=masks)
        state.fs_base = context["fs_base"]
        state.gs_base_kernel = context["gs_base_kernel"]
        state.gs_base_user = context["gs_base_user"]


def _load_registers(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, context: GivenContext) -> None:
    wide, control, debug = hv.abi.bits == 64, context.row("ctrlreg"), context.row("debugreg")
    state.in_kernel = not wide or bool(context["flags"] & VGCF_IN_KERNEL)
    hv.load_cr3(cpu)
    state.ldt_ents = context["ldt_ents"]
    state.ldt_base = context["ldt_base"] if state.ldt_ents else 0
    load_ldt_register(hv, cpu)
    load_task_switched(hv, cpu, set_ts=bool(control[0] & CR0_TS))
    state.cr2 = control[2]
    load_cr4(hv, cpu, control[4])
    # As the processor's registers stand after a reset, but for what the context says.
    state.debugreg, state.dr7_emul = [0] * 6 + [DR6_RESET, DR7_RESET], 0
    for number in (0, 1, 2, 3, 6, 7):
        set_debugreg(hv, cpu, number, debug[number])
    if context["flags"] & VGCF_I387_VALID:
        _load_fpu(cpu, bytes(context.raw[:FXSAVE_SIZE]))
    registers = context.registers()
    flags = registers.pop("rflags" if wide else "eflags")
    state.iopl = flags >> 12 & 3  # Xen keeps it apart; the processor's own stays 0
    vector = context["user_regs.entry_vector"]
    # Taken when the vCPU first runs: what faults then is an exception of the guest's own.
    state.arrival = _place(registers, vector, flags & ~(IOPL | VM) | IF, hv.abi.bits)
    for name, value in registers.items():
        cpu.set(name, value)


def _load_fpu(cpu: Vcpu, image: bytes) -> None:
    """Load ``fpu_ctxt``; one that fxrstor refuses counts as zeros (``fpu_fxrstor`` of xen/arch/x86/i387.c)."""
    try:
        cpu.load_fpu(image)
    except GuestFault:
        cpu.load_fpu(bytes(FXSAVE_SIZE))


def _place(registers: dict[str, int], vector: int, flags: int, bits: int) -> ResumePoint:
    """Take where to begin out of the registers; all that is left there are general ones."""
    rip, rsp = (registers.pop(name) for name in (("rip", "rsp") if bits == 64 else ("eip", "esp")))
    # A selector at a ring that the kernel may not enter is brought to its own ring.
    cs, ss = (guest_selector(bits, registers.pop(name)) for name in ("cs", "ss"))
    data = tuple(registers.pop(name) for name in _SEGMENTS)
    if bits == 64 and vector & TRAP_SYSCALL:  # Xen leaves by sysret, for which only these are
        cs, ss = FLAT_USER_CS32 if cs == FLAT_USER_CS32 else FLAT_KERNEL_CS64, FLAT_KERNEL_SS64
        registers["rcx"], registers["r11"] = rip, flags
    return ResumePoint(cs, ss, rip, rsp, flags, data)

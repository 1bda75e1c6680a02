"""The hypercall table: number to handler for both widths, counting, and the one place where faults become errors."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from operator import and_
from typing import TYPE_CHECKING, Final

from pvops_core.backends import HypercallMade
from pvops_core.machine.cpu.faults import GuestFault
from pvops_xen.hypervisor import access, control, information, physdev
from pvops_xen.hypervisor.abi import EFAULT, EINVAL, ENOSYS, ERESTART, Hypercall
from pvops_xen.hypervisor.events.ops import event_channel_op, event_channel_op_compat
from pvops_xen.hypervisor.grants.ops import grant_table_op
from pvops_xen.hypervisor.memory import memory_op as memory
from pvops_xen.hypervisor.memory import mmu
from pvops_xen.hypervisor.memory.mmuext import mmuext_op
from pvops_xen.hypervisor.operations import operations
from pvops_xen.hypervisor.processor import callbacks, debugreg, tables
from pvops_xen.hypervisor.processor.iret import iret
from pvops_xen.hypervisor.scheduling import sched, vcpus
from pvops_xen.public import XEN

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

Handler = Callable[..., int]
_ENTRY: Final = XEN["multicall_entry"].whole("op", "result", "args")
_RESULT: Final = XEN["multicall_entry"].part("result")
_ARGUMENTS: Final = XEN["multicall_entry"].part("args")
_STRETCH: Final = 4096
"""Entries of a multicall after which it is preempted."""


def _update_descriptor32(hv: Hypervisor, cpu: Vcpu, ma_low: int, ma_high: int, low: int, high: int) -> int:
    return tables.update_descriptor(hv, cpu, ma_low | ma_high << 32, low | high << 32)


def _update_va_mapping32(hv: Hypervisor, cpu: Vcpu, va: int, low: int, high: int, flags: int) -> int:
    return mmu.update_va_mapping(hv, cpu, va, low | high << 32, flags)


def _update_otherdomain32(hv: Hypervisor, cpu: Vcpu, va: int, low: int, high: int, flags: int, domid: int) -> int:
    return mmu.update_va_mapping_otherdomain(hv, cpu, va, low | high << 32, flags, domid)


def _set_timer32(hv: Hypervisor, cpu: Vcpu, low: int, high: int) -> int:
    return sched.set_timer_op(hv, cpu, low | high << 32)


def _iret(hv: Hypervisor, cpu: Vcpu) -> int:
    iret(hv, cpu)
    # What the guest finds in its accumulator is what iret put there.
    return cpu.get("rax")


def _words(hv: Hypervisor, values: tuple[int, ...]) -> bytes:
    return struct.pack(f"<{len(values)}{'Q' if hv.abi.bits == 64 else 'I'}", *values)


def _multicall(hv: Hypervisor, cpu: Vcpu, calls: int, count: int) -> int:
    """``multicall(calls, nr)``: each entry's result is stored in it; an iret among them ends the list."""
    # A multicall within one would never end in a bounded time; Xen refuses it.
    if hv.in_multicall:
        hv.log("Multicall reentry is disallowed.")
        return -EINVAL
    form, result_at = _ENTRY.at(hv.abi.bits).form, _RESULT.at(hv.abi.bits).offset
    access.check(hv.abi, calls, count * form.size)
    hv.in_multicall = True
    try:
        for index in range(count):
            entry = calls + index * form.size
            # A long list is preempted: the guest's registers then point at what is left of it.
            if index == _STRETCH:
                hv.continuation = (entry, count - index)
                return -ERESTART
            op, _result, *args = form.unpack(access.read(hv, cpu, entry, form.size))
            ns = hv.machine.clock.ns
            result = dispatch(hv, cpu, op, arguments := tuple(args))
            if hv.stats.observers:
                hv.stats.tell(made(hv, cpu, op, arguments, result, ns, inner=True))
            # The guest went elsewhere: its memory may be another's, and then nothing is stored.
            if op == Hypercall.IRET:  # its result is stored where the guest can still be reached there
                with contextlib.suppress(access.BadHandleError, GuestFault):
                    access.write_word(hv, cpu, entry + result_at, result)
                return result
            # The operation is to be gone on with, not the list: its arguments stand in the entry.
            if result == -ERESTART:
                access.write(hv, cpu, entry + _ARGUMENTS.at(hv.abi.bits).offset, _words(hv, hv.continuation))
                hv.continuation = (entry, count - index)
                return result
            access.write_word(hv, cpu, entry + result_at, result)
            # Nothing more happens to a domain that is crashed.
            if hv.domain.crashed:
                break
    finally:
        hv.in_multicall = False
    return 0


# Handler and number of arguments. A 32-bit guest passes 64-bit arguments in two registers.
_COMMON: Final[dict[int, tuple[Handler, int]]] = {
    Hypercall.SET_TRAP_TABLE: (callbacks.set_trap_table, 1),
    Hypercall.MMU_UPDATE: (mmu.mmu_update, 4),
    Hypercall.SET_GDT: (tables.set_gdt, 2),
    Hypercall.STACK_SWITCH: (tables.stack_switch, 2),
    Hypercall.SET_CALLBACKS: (callbacks.set_callbacks, 4),
    Hypercall.FPU_TASKSWITCH: (tables.fpu_taskswitch, 1),
    Hypercall.SCHED_OP_COMPAT: (sched.sched_op_compat, 2),
    Hypercall.PLATFORM_OP: (control.platform_op, 1),
    Hypercall.SET_DEBUGREG: (debugreg.set_debugreg, 2),
    Hypercall.GET_DEBUGREG: (debugreg.get_debugreg, 1),
    Hypercall.UPDATE_DESCRIPTOR: (tables.update_descriptor, 2),
    Hypercall.MEMORY_OP: (memory.memory_op, 2),
    Hypercall.MULTICALL: (_multicall, 2),
    Hypercall.UPDATE_VA_MAPPING: (mmu.update_va_mapping, 3),
    Hypercall.SET_TIMER_OP: (sched.set_timer_op, 1),
    Hypercall.EVENT_CHANNEL_OP_COMPAT: (event_channel_op_compat, 1),
    Hypercall.XEN_VERSION: (information.xen_version, 2),
    Hypercall.CONSOLE_IO: (information.console_io, 3),
    Hypercall.PHYSDEV_OP_COMPAT: (physdev.physdev_op_compat, 1),
    Hypercall.GRANT_TABLE_OP: (grant_table_op, 3),
    Hypercall.VM_ASSIST: (information.vm_assist, 2),
    Hypercall.UPDATE_VA_MAPPING_OTHERDOMAIN: (mmu.update_va_mapping_otherdomain, 4),
    Hypercall.IRET: (_iret, 0),
    Hypercall.VCPU_OP: (vcpus.vcpu_op, 3),
    Hypercall.SET_SEGMENT_BASE: (tables.set_segment_base, 2),
    Hypercall.MMUEXT_OP: (mmuext_op, 4),
    Hypercall.NMI_OP: (callbacks.nmi_op, 2),
    Hypercall.SCHED_OP: (sched.sched_op, 2),
    Hypercall.CALLBACK_OP: (callbacks.callback_op, 2),
    Hypercall.XENOPROF_OP: (control.xenoprof_op, 2),
    Hypercall.EVENT_CHANNEL_OP: (event_channel_op, 2),
    Hypercall.PHYSDEV_OP: (physdev.physdev_op, 2),
    Hypercall.HVM_OP: (control.hvm_op, 2),
    Hypercall.SYSCTL: (control.sysctl, 1),
    Hypercall.DOMCTL: (control.domctl, 1),
    Hypercall.KEXEC_OP: (control.denied, 2),
    Hypercall.XENPMU_OP: (control.xenpmu_op, 2),
    Hypercall.DM_OP: (control.dm_op, 3),
    Hypercall.HYPFS_OP: (control.denied, 5),
    Hypercall.MCA: (control.denied, 1),
    Hypercall.PAGING_DOMCTL_CONT: (control.paging_domctl_cont, 1),
}
HYPERCALLS: Final[dict[int, dict[int, tuple[Handler, int]]]] = {
    64: _COMMON,
    32: _COMMON
    | {
        Hypercall.UPDATE_DESCRIPTOR: (_update_descriptor32, 4),
        Hypercall.UPDATE_VA_MAPPING: (_update_va_mapping32, 4),
        Hypercall.SET_TIMER_OP: (_set_timer32, 2),
        Hypercall.UPDATE_VA_MAPPING_OTHERDOMAIN: (_update_otherdomain32, 5),
    },
}
# Arguments that C declares as unsigned int: a 64-bit guest's upper register half does not count.
_INT_ARGUMENTS: Final[dict[int, tuple[int, ...]]] = {
    # Declared as unsigned int in Xen's prototypes (include/xen/hypercall.h): the upper half of the register is not
    # looked at.
    Hypercall.SCHED_OP_COMPAT: (0,),
    Hypercall.MULTICALL: (1,),
    Hypercall.XEN_VERSION: (0,),
    Hypercall.VCPU_OP: (0, 1),
    Hypercall.SCHED_OP: (0,),
    Hypercall.EVENT_CHANNEL_OP: (0,),
    Hypercall.HYPFS_OP: (0,),
    Hypercall.MMU_UPDATE: (1, 3),
    Hypercall.MMUEXT_OP: (1, 3),
    Hypercall.SET_GDT: (1,),
    Hypercall.FPU_TASKSWITCH: (0,),
    Hypercall.SET_DEBUGREG: (0,),
    Hypercall.GET_DEBUGREG: (0,),
    Hypercall.VM_ASSIST: (0, 1),
    Hypercall.GRANT_TABLE_OP: (0, 2),
    Hypercall.SET_SEGMENT_BASE: (0,),
    Hypercall.PHYSDEV_OP: (0,),
    Hypercall.CALLBACK_OP: (0,),
    Hypercall.NMI_OP: (0,),
    Hypercall.XENOPROF_OP: (0,),
    Hypercall.XENPMU_OP: (0,),
    Hypercall.DM_OP: (0, 1),
    Hypercall.CONSOLE_IO: (0, 1),
}


_NAMES: Final = {int(call): call.name.lower() for call in Hypercall}


def arity(number: int) -> int:
    """How many arguments a hypercall of a 64-bit guest has."""
    return HYPERCALLS[64][number][1] if number in HYPERCALLS[64] else len(_NO_ARGUMENTS)


def name_of(number: int) -> str:
    """Name of a hypercall, for counts."""
    return _NAMES.get(number) or f"hypercall_{number}"


def _masks(number: int, count: int, bits: int) -> tuple[int, ...]:
    """What counts of each argument."""
    narrow = _INT_ARGUMENTS.get(number, ())
    return tuple((1 << (32 if index in narrow else bits)) - 1 for index in range(count))


# What a call of each number takes: its name for the counts, the handler, and the masks of its arguments.
_CALLS: Final = {
    bits: {
        number: (name_of(number), handler, _masks(number, count, bits)) for number, (handler, count) in table.items()
    }
    for bits, table in HYPERCALLS.items()
}
_NO_ARGUMENTS: Final = (0,) * 6


def dispatch(hv: Hypervisor, cpu: Vcpu, number: int, arguments: tuple[int, ...]) -> int:
    """Make a hypercall: 0 or more, or a negative errno. Surplus arguments are ignored, missing ones are 0."""
    # Unknown numbers are told apart from refused ones: guests ask what there is by calling it.
    found = _CALLS[hv.domain.abi.bits].get(number)
    if found is None:
        hv.stats.hypercalls[name_of(number)] += 1
        return -ENOSYS
    name, handler, masks = found
    hv.stats.hypercalls[name] += 1
    # A guest may pass fewer than there are; Xen reads all six registers.
    if len(arguments) < len(masks):
        arguments += _NO_ARGUMENTS
    try:
        return handler(hv, cpu, *map(and_, arguments, masks))
    except (access.BadHandleError, GuestFault):
        return -EFAULT


def made(
    hv: Hypervisor, cpu: Vcpu, number: int, arguments: tuple[int, ...], result: int, ns: int, *, inner: bool = False
) -> HypercallMade:
    """What to tell those who look of a hypercall that was made at virtual time ``ns``."""
    _name, _handler, masks = _CALLS[hv.domain.abi.bits].get(number, ("", None, ()))
    taken = tuple(value & mask for value, mask in zip(arguments, masks, strict=False))
    return HypercallMade(cpu.index, name_of(number), taken, result, ns, inner, operations(hv, cpu, number, taken))

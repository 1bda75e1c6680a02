"""Where a guest wants to be entered: its trap table and its callbacks (xen/arch/x86/pv/callback.c, both widths)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.x86 import NMI
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    CALLBACKF_MASK_EVENTS,
    EINVAL,
    ENOSYS,
    ERESTART,
    FLAT_KERNEL_CS64,
    FLAT_RING1_CS32,
    Callback,
)
from pvops_xen.hypervisor.state import NO_ENTRY, EntryPoint
from pvops_xen.public import CALLBACK, XEN

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_STRETCH: Final = 4096
"""Entries of a trap table after which the call is preempted."""
_REGISTER, _UNREGISTER = 0, 1  # CALLBACKOP_register and _unregister (public/callback.h)
TRAP_INFO: Final = XEN["trap_info"].whole("vector", "flags", "cs", "address")
REGISTERED: Final = {
    64: CALLBACK["callback_register"].whole("type", "flags", "address"),
    32: CALLBACK["callback_register"].whole("type", "flags", "address.cs", "address.eip"),
}
_UNREGISTERED: Final = CALLBACK["callback_unregister"].whole("type")
_NMI: Final = CALLBACK["xennmi_callback"].whole("handler_address")
_COMMON: Final[dict[int, str]] = {
    Callback.EVENT: "event",
    Callback.FAILSAFE: "failsafe",
    Callback.SYSCALL32: "syscall32",
    Callback.SYSENTER: "sysenter",
}
_FIELDS: Final[dict[int, dict[int, str]]] = {32: _COMMON, 64: _COMMON | {Callback.SYSCALL: "syscall"}}
"""The callbacks that a guest of each width may register, beside the NMI's."""
_UNKNOWN_COMMAND: Final = {32: -EINVAL, 64: -ENOSYS}


def guest_selector(bits: int, selector: int) -> int:
    """``fixup_guest_code_selector``: a selector at the guest kernel's own ring at least."""
    ring = 3 if bits == 64 else 1
    # A selector of more privilege than the guest's kernel has is brought down to it, not refused.
    return selector if selector & 3 >= ring else selector & ~3 | ring


def set_trap_table(hv: Hypervisor, cpu: Vcpu, traps: int) -> int:
    """``set_trap_table(traps)``: an array that ends with address 0; a null pointer clears the table."""
    state, abi = hv.state(cpu), hv.abi
    if traps == 0:
        state.traps = [NO_ENTRY] * len(state.traps)
        return 0
    # The table ends with address 0; a guest that forgets it is stopped after so many entries.
    for at in range(traps, traps + _STRETCH * abi.trap_info_size, abi.trap_info_size):
        vector, flags, selector, address = access.fetch(hv, cpu, at, TRAP_INFO)
        if address == 0:
            return 0
        if not access.canonical(abi, address):
            return -EINVAL
        state.traps[vector] = trap_entry(abi.bits, flags, selector, address)
    # The rest of the table is read by the call that follows: the registers point behind what was read.
    hv.continuation = (at + abi.trap_info_size,)
    return -ERESTART


def trap_entry(bits: int, flags: int, selector: int, address: int) -> EntryPoint:
    """What a ``trap_info`` says of a guest's width."""
    # TI_GET_IF and TI_GET_DPL (public/arch-x86/xen.h)
    return EntryPoint(guest_selector(bits, selector), address, bool(flags & 4), flags & 3)


def set_callbacks(hv: Hypervisor, cpu: Vcpu, *args: int) -> int:
    """``set_callbacks``: (event, failsafe, syscall) addresses, or two (selector, address) pairs for 32-bit guests.

    One that is not canonical stays as it was; the answer is 0 all the same.
    """
    wide = hv.abi.bits == 64
    entries = [(0, address) for address in args[:3]] if wide else [args[:2], args[2:4]]
    # -EINVAL and -ENOSYS of one are not the others': each is registered by itself (``do_set_callbacks``).
    for kind, (selector, address) in zip((Callback.EVENT, Callback.FAILSAFE, Callback.SYSCALL), entries, strict=False):
        _register(hv, cpu, kind, EntryPoint(selector, address))
    return 0


def callback_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``callback_op``: register (0) or unregister (1) one callback."""
    if command == _UNREGISTER:
        return _unregister(hv, cpu, *access.fetch(hv, cpu, argument, _UNREGISTERED))
    if command != _REGISTER:
        return _UNKNOWN_COMMAND[hv.abi.bits]
    kind, flags, *selector, address = access.fetch(hv, cpu, argument, REGISTERED[hv.abi.bits])
    entry = EntryPoint(selector[0] if selector else 0, address, bool(flags & CALLBACKF_MASK_EVENTS))
    return _register(hv, cpu, kind, entry)


def _register(hv: Hypervisor, cpu: Vcpu, kind: int, entry: EntryPoint) -> int:
    """An address is looked at before the kind, and a selector is the guest's whatever it names."""
    bits = hv.abi.bits
    # ``register_guest_callback`` looks at the address before it knows which callback it is.
    if not access.canonical(hv.abi, entry.address):
        return -EINVAL
    if kind == Callback.NMI:
        return _register_nmi(hv, cpu, entry.address)
    field = _FIELDS[bits].get(kind)
    if field is None:
        return -ENOSYS
    selector = guest_selector(bits, entry.cs & 0xFFFF) if bits == 32 else 0
    masks = entry.mask_events or kind == Callback.EVENT  # an upcall always starts masked
    setattr(hv.state(cpu), field, EntryPoint(selector, entry.address, masks))
    return 0


def _unregister(hv: Hypervisor, cpu: Vcpu, kind: int) -> int:
    """Only the NMI's can be taken back."""
    if kind == Callback.NMI:
        hv.state(cpu).traps[NMI] = NO_ENTRY
        return 0
    # Those that a guest may register cannot be taken back; a kind that it may not register is unknown.
    return -EINVAL if kind in _FIELDS[hv.abi.bits] else -ENOSYS


def _register_nmi(hv: Hypervisor, cpu: Vcpu, address: int) -> int:
    """An NMI's callback is its entry in the trap table, always with Xen's flat code segment, and masks upcalls."""
    if not access.canonical(hv.abi, address):
        return -EINVAL
    selector = FLAT_KERNEL_CS64 if hv.abi.bits == 64 else FLAT_RING1_CS32
    hv.state(cpu).traps[NMI] = EntryPoint(selector, address, mask_events=True)
    return 0


def nmi_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``nmi_op(cmd, arg)``: register (0) or unregister (1) the callback for NMIs."""
    if command == _UNREGISTER:
        return _unregister(hv, cpu, Callback.NMI)
    if command != _REGISTER:
        return -ENOSYS
    (address,) = access.fetch(hv, cpu, argument, _NMI)
    return _register_nmi(hv, cpu, address)

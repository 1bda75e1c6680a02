"""Callbacks and the trap table: which kinds a guest of each width may register, and how it is entered at them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import Callback, Hypercall
from pvops_xen.testing.guests import EVENT, KERNEL_SELECTORS, SYSENTER, GuestOutcome
from pvops_xen.testing.rules.case import Collection, Done, Errno, Gives, Trap

if TYPE_CHECKING:
    from pvops_xen.testing.guests import SmallGuest

UD, GP = 6, 13
_NOT_CANONICAL: Final = 1 << 47
_UNMAPPED: Final = 0x2000_0000
case = CASES = Collection()


def _op(g: SmallGuest, command: int, kind: int, *, address: int = 0, flags: int = 0, selector: int = -1) -> int:
    """``callback_op``; unless given, the selector is the kernel's and the address a handler's."""
    address = address or g.labels[f"h{EVENT}"]
    if g.bits == 64:
        data = struct.pack("<HHIQ", kind, flags, 0, address)
    else:
        data = struct.pack("<HHII", kind, flags, KERNEL_SELECTORS[32][0] if selector < 0 else selector, address)
    return g.call(Hypercall.CALLBACK_OP, command, g.put("data", data))


def _forget(g: SmallGuest, kind: int) -> None:
    """Make a callback one that is not there: at address 0, or behind a null selector."""
    g.call(Hypercall.CALLBACK_OP, 0, g.put("data", struct.pack("<HH12x", kind, 0)))


_BOTH, _WIDE = (64, 32), (64,)
_KINDS: Final = (
    (Callback.EVENT, _BOTH),
    (Callback.FAILSAFE, _BOTH),
    (Callback.SYSCALL, _WIDE),
    (Callback.SYSENTER_DEPRECATED, ()),
    (Callback.NMI, _BOTH),
    (Callback.SYSENTER, _BOTH),
    (6, ()),
    (Callback.SYSCALL32, _BOTH),
    (99, ()),
)
for _kind, _known in _KINDS:
    _name = _kind.name.lower() if isinstance(_kind, Callback) else f"callback {_kind}"
    _unknown = tuple(width for width in _BOTH if width not in _known)
    _back = Done() if _kind == Callback.NMI else Errno("EINVAL")
    for _verb, _command, _ends in (("register", 0, Done()), ("unregister", 1, _back)):
        for _end, _widths in ((_ends, _known), (Errno("ENOSYS"), _unknown)):
            if _widths:
                case(f"{_verb} {_name}", f"{_verb}_guest_callback", _end, *_widths)(
                    lambda g, command=_command, kind=_kind: _op(g, command, kind)  # type: ignore[misc]
                )

for _bits, _error, _rule in ((64, "ENOSYS", "do_callback_op"), (32, "EINVAL", "compat_callback_op")):
    case("an unknown command of callback_op", _rule, Errno(_error), _bits)(lambda g: _op(g, 2, Callback.EVENT))

for _command, _verb in ((0, "register"), (1, "unregister")):
    case(f"a callback to {_verb} that is not mapped", "copy_from_guest", Errno("EFAULT"))(
        lambda g, command=_command: g.call(Hypercall.CALLBACK_OP, command, _UNMAPPED)  # type: ignore[misc]
    )

for _kind in (Callback.EVENT, Callback.SYSCALL, Callback.NMI, 99):
    case(f"callback {int(_kind)} at an address that is not canonical", "register_guest_callback", Errno("EINVAL"), 64)(
        lambda g, kind=_kind: _op(g, 0, kind, address=_NOT_CANONICAL)  # type: ignore[misc]
    )


@case("unregister a callback with four bytes of its structure mapped", "copy_from_guest", Errno("EINVAL"))
def _(g: SmallGuest) -> int:
    g.update_va_mapping(g.va(1), 0)
    g.put(0, struct.pack("<HH", Callback.EVENT, 0), 4092)
    return g.call(Hypercall.CALLBACK_OP, 1, g.va(0) + 4092)


@case("callbacks that are not canonical", "do_set_callbacks", Gives("0, and the old ones stay"), 64)
def _(g: SmallGuest) -> bool:
    before = g.hv.domain.vcpus[0].event
    return g.call(Hypercall.SET_CALLBACKS, *[_NOT_CANONICAL] * 3) == 0 and g.hv.domain.vcpus[0].event == before


@case("set_callbacks after a failsafe callback that masks events", "do_set_callbacks", Gives("it masks none any more"))
def _(g: SmallGuest) -> bool:
    state, address = g.hv.domain.vcpus[0], g.labels[f"h{EVENT}"]
    _op(g, 0, Callback.FAILSAFE, flags=1)
    masked = state.failsafe.mask_events
    g.call(Hypercall.SET_CALLBACKS, *((address,) * 3 if g.bits == 64 else (0xE019, address) * 2))
    return masked and state.event.mask_events and not state.failsafe.mask_events


case("a callback in a segment of ring 0", "fixup_guest_code_selector", Gives("taken, in the kernel's ring"), 32)(
    lambda g: _op(g, 0, Callback.EVENT, selector=0xE018) == 0 and g.hv.domain.vcpus[0].event.cs == 0xE019
)


# --- NMIs ------------------------------------------------------------------------------------------------------------


def _nmi(g: SmallGuest, command: int, address: int) -> int:
    return g.call(Hypercall.NMI_OP, command, g.put("data", g.words(address, 0)))


case("register an NMI's handler", "do_nmi_op", Done())(lambda g: _nmi(g, 0, g.labels["h6"]))
case("take an NMI's handler back", "do_nmi_op", Done())(lambda g: g.call(Hypercall.NMI_OP, 1, 0))
case("an unknown command of nmi_op", "do_nmi_op", Errno("ENOSYS"))(lambda g: _nmi(g, 2, 0))
case("an NMI's handler that is not mapped", "copy_from_guest", Errno("EFAULT"))(
    lambda g: g.call(Hypercall.NMI_OP, 0, _UNMAPPED)
)
case("an NMI's handler that is not canonical", "register_guest_nmi_callback", Errno("EINVAL"), 64)(
    lambda g: _nmi(g, 0, _NOT_CANONICAL)
)


# --- the trap table --------------------------------------------------------------------------------------------------


def _trap(g: SmallGuest, vector: int, flags: int = 0, *, selector: int = -1, label: str = "h6") -> int:
    selector = KERNEL_SELECTORS[g.bits][0] if selector < 0 else selector
    entry = struct.pack("<BBH4xQ" if g.bits == 64 else "<BBHI", vector, flags, selector, g.labels[label])
    return g.call(Hypercall.SET_TRAP_TABLE, g.put("data", entry + bytes(16)))


case("a trap table with an address that is not canonical", "do_set_trap_table", Errno("EINVAL"), 64)(
    lambda g: g.call(Hypercall.SET_TRAP_TABLE, g.put("data", struct.pack("<BBHIQ", 6, 0, 0xE033, 0, _NOT_CANONICAL)))
)
case("a trap table in Xen's part", "copy_from_guest", Errno("EFAULT"))(
    lambda g: g.call(Hypercall.SET_TRAP_TABLE, 0xFFFF_8200_0000_1000 if g.bits == 64 else 0xF580_1000)
)
case("a trap table that runs off mapped memory", "copy_from_guest", Errno("EFAULT"))(
    lambda g: g.call(Hypercall.SET_TRAP_TABLE, _UNMAPPED)
)


@case("a trap table of 9 pages", "do_set_trap_table: preemption", Done())
def _(g: SmallGuest) -> int:
    entry = struct.pack("<BBH4xQ" if g.bits == 64 else "<BBHI", 6, 0, KERNEL_SELECTORS[g.bits][0], g.labels["h6"])
    for page in range(9):
        g.put(page, entry * (4096 // len(entry)))
    g.put(9, bytes(16))
    return g.call(Hypercall.SET_TRAP_TABLE, g.va(0))


@case("a handler at address 0", "null_trap_bounce: a selector counts", Trap(6), 32)
def _(g: SmallGuest) -> GuestOutcome:
    g.call(Hypercall.SET_TRAP_TABLE, g.put("data", struct.pack("<BBHI", 6, 0, 0xE019, g.labels["h6"]) + bytes(16)))
    return g.execute("ud2")


# --- software interrupts and fast system calls -----------------------------------------------------------------------


case("int 0x80 by a process, with a handler of DPL 0", "int80_direct_trap", Trap(0x80))(
    lambda g: g.execute_as_user("int 0x80")
)


@case("int 0x80 without a handler", "int80_slow_path", Trap(GP, 0x80 << 3 | 2))
def _(g: SmallGuest) -> GuestOutcome:
    g.call(Hypercall.SET_TRAP_TABLE, 0)
    _trap(g, GP, label="h13")
    return g.execute_as_user("int 0x80")


case("sysenter by a process", "sysenter_entry", Trap(SYSENTER))(lambda g: g.execute_as_user("sysenter"))


@case("sysenter by a process, without a callback", "sysenter_gpf", Trap(GP))
def _(g: SmallGuest) -> GuestOutcome:
    _forget(g, Callback.SYSENTER)
    return g.execute_as_user("sysenter")


@case("the frame of a sysenter", "sysenter_entry", Gives("CS 3, and no RIP and no RSP"))
def _(g: SmallGuest) -> bool:
    got = g.execute_as_user("sysenter")
    stack = got.registers["rsp" if g.bits == 64 else "esp"]
    frame = struct.unpack("<7Q" if g.bits == 64 else "<5I", g.cpu.read_virtual(stack, 56 if g.bits == 64 else 20))[-5:]
    return frame[0] == 0 and frame[1] & 0xFFFF == 3 and frame[3:] == (0, 0xE02B if g.bits == 64 else 0xE033)


case("sysenter in a 32-bit kernel", "compat_sysenter: CS 3 counts as a process", Trap(SYSENTER), 32)(
    lambda g: g.execute("sysenter")
)


@case("syscall by a process, without a callback", "syscall_no_callback", Trap(UD), 64)
def _(g: SmallGuest) -> GuestOutcome:
    _forget(g, Callback.SYSCALL)
    return g.execute_as_user("syscall")


@case("syscall by a process with the direction flag set", "switch_to_kernel", Gives("the kernel has it clear"), 64)
def _(g: SmallGuest) -> bool:
    got = g.execute_as_user("std\n syscall")
    return bool(got.flags & 1 << 10) and not g.cpu.rflags & 1 << 10

"""Ways into the guest's kernel and back: frames, stacks, handlers and callbacks that are none."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import Hypercall
from pvops_xen.testing.guests import EVENT, KERNEL_SELECTORS, GuestOutcome
from pvops_xen.testing.rules.case import Collection, Crash, Gives, Trap

if TYPE_CHECKING:
    from pvops_xen.testing.guests import SmallGuest

_NOT_CANONICAL: Final = 1 << 47
_XENS: Final = {64: 0xFFFF_8200_0000_1000, 32: 0xF580_1000}
case = CASES = Collection()


def _stack(g: SmallGuest) -> str:
    return "rsp" if g.bits == 64 else "esp"


def _on_stack(g: SmallGuest, stack: int) -> GuestOutcome:
    return g.execute(f"mov {_stack(g)}, {stack:#x}\n ud2")


def _cleared(g: SmallGuest) -> None:
    """Forget every handler."""
    g.call(Hypercall.SET_TRAP_TABLE, 0)


@case(
    "an exception without a handler", "pv_inject_event: null_trap_bounce", Crash("Unhandled: vec 6, invalid_op[0000]")
)
def _(g: SmallGuest) -> GuestOutcome:
    _cleared(g)
    return g.execute("ud2")


@case(
    "a page fault without a handler", "pv_inject_event: null_trap_bounce", Crash("Unhandled: vec 14, page_fault[0002]")
)
def _(g: SmallGuest) -> GuestOutcome:
    _cleared(g)
    return g.execute("mov dword ptr [0x1000], 1")


case("a fault on a stack that is not mapped", "create_bounce_frame", Crash("create_bounce_frame"))(
    lambda g: _on_stack(g, 0x2000_0000)
)
case("a fault on a stack in Xen's part", "create_bounce_frame", Crash("create_bounce_frame"))(
    lambda g: _on_stack(g, _XENS[g.bits])
)
case("a fault on a stack at 0", "create_bounce_frame", Crash("create_bounce_frame"))(lambda g: _on_stack(g, 0))


@case("a fault on a stack in a page table", "create_bounce_frame", Crash("create_bounce_frame"))
def _(g: SmallGuest) -> GuestOutcome:
    g.update_va_mapping(g.va(0), g.table(1) << 12 | 1)
    return _on_stack(g, g.va(0) + 0x800)


@case("a handler that faults at its first instruction, for ever", "create_bounce_frame", Crash("no progress"))
def _(g: SmallGuest) -> GuestOutcome:
    table = struct.pack(
        "<BBHIQ" if g.bits == 64 else "<BBHI",
        *((14, 0, 0xE033, 0, 0x5000) if g.bits == 64 else (14, 0, 0xE019, 0x5000)),
    )
    g.call(Hypercall.SET_TRAP_TABLE, g.put("data", table + bytes(16)))
    return g.execute("mov eax, [0x1000]")


@case("an entry from a process on a stack that is not mapped", "create_bounce_frame", Crash("create_bounce_frame"))
def _(g: SmallGuest) -> GuestOutcome:
    g.call(Hypercall.STACK_SWITCH, KERNEL_SELECTORS[g.bits][1], 0x2000_0000)
    return g.execute_as_user("ud2")


case("an iret to a process without a user root", "do_iret", Crash("no user page tables"), 64)(
    lambda g: g.iret(0, 0, 0, 0, g.va("probe"), 0xE033, 0x202, g.va("stack"), 0xE02B)
)
case("an iret to ring 0", "compat_iret: ring_0", Crash("iret to ring 0"), 32)(
    lambda g: g.iret(0, g.va("probe"), 0xE008, 0x202)
)
case("an iret to Xen's code segment", "do_iret: cs | 3; handle_exception", Trap(13, 0xE008), 64)(
    lambda g: g.iret(0, 0, 0, 0, g.va("probe"), 0xE008, 0x202, g.va("stack") + 0x800, 0xE02B)
)
case("an iret to an address that is not canonical", "handle_exception", Trap(13), 64)(
    lambda g: g.iret(0, 0, 0, 0, _NOT_CANONICAL, 0xE030, 0x202, g.va("stack") + 0x800, 0xE02B)
)


@case("an iret to a selector beyond the GDT", "handle_exception", Trap(13, 0x1000))
def _(g: SmallGuest) -> GuestOutcome:
    if g.bits == 64:
        return g.iret(0, 0, 0, 0, g.va("probe"), 0x1000, 0x202, g.va("stack") + 0x800, 0xE02B)
    return g.iret(0, g.va("probe"), 0x1001, 0x202)


@case("an iret to a stack beyond the GDT", "handle_exception", Trap(13, 0x1000))
def _(g: SmallGuest) -> GuestOutcome:
    stack = g.va("stack") + 0x800
    if g.bits == 64:
        return g.iret(0, 0, 0, 0, g.va("probe"), 0xE030, 0x202, stack, 0x1000)
    return g.iret(0, g.va("probe"), 0xE02B, 0x202, stack, 0x1003)


@case("an iret to a code segment that is not present", "handle_exception", Trap(11, 0x8))
def _(g: SmallGuest) -> GuestOutcome:
    g.put(0, (0x00CF_7B00_0000_FFFF if g.bits == 64 else 0x00CF_3B00_0000_FFFF).to_bytes(8, "little"), 8)
    g.protect(0)
    g.set_gdt(g.mfn(0))
    if g.bits == 64:
        return g.iret(0, 0, 0, 0, g.va("probe"), 0x8, 0x202, g.va("stack") + 0x800, 0xE02B)
    return g.iret(0, g.va("probe"), 0x9, 0x202)


@case("an iret to a selector beyond the GDT while an upcall is pending", "test_all_events", Trap(EVENT))
def _(g: SmallGuest) -> GuestOutcome:
    info = g.hv.domain.vcpus[0].info
    g.hv.memory.write(info, b"\1\1")
    if g.bits == 64:
        return g.iret(0, 0, 0, 0, g.va("probe"), 0x1000, 0x202, g.va("stack") + 0x800, 0xE02B)
    return g.iret(0, g.va("probe"), 0x1001, 0x202)


@case("the frame after an iret to a selector beyond the GDT", "handle_exception", Gives("the place it was to go on at"))
def _(g: SmallGuest) -> bool:
    if g.bits == 64:
        got = g.iret(0, 0, 0, 0, g.va("probe"), 0x1000, 0x202, g.va("stack") + 0x800, 0xE02B)
        rsp, ss = struct.unpack("<2Q", g.cpu.read_virtual(got.registers["rsp"] + 48, 16))
    else:
        got = g.iret(0, g.va("probe"), 0x1003, 0x202, g.va("stack") + 0x800, 0xE033)
        rsp, ss = struct.unpack("<2I", g.cpu.read_virtual(got.registers["esp"] + 16, 8))
    where = (got.address, got.selector, rsp, ss)
    expected = (0x1000, 0xE02B) if g.bits == 64 else (0x1003, 0xE033)
    return where == (g.va("probe"), expected[0], g.va("stack") + 0x800, expected[1])


@case("an iret by sysret, whatever its selectors", "restore_all_guest: TRAP_syscall", Gives("Xen's flat segments"), 64)
def _(g: SmallGuest) -> bool:
    g.place("probe:\n mov eax, cs\n mov ebx, ss\n ud2")
    got = g.iret(0, 0, 0, 1 << 8, g.va("probe"), 0x1000, 0x3202, g.va("stack") + 0x800, 0x2000)
    registers = got.registers
    selectors = (registers["rax"], registers["rbx"])
    return selectors == (0xE033, 0xE02B) and (registers["rcx"], registers["r11"] & 0x3200) == (g.va("probe"), 0x200)


case("an iret with a frame in Xen's part", "do_iret", Crash("Fault while reading IRET context"), 64)(
    lambda g: g.execute(
        f"mov {_stack(g)}, {_XENS[g.bits]:#x}\n mov eax, 23\n {'syscall' if g.bits == 64 else 'int 0x82'}"
    )
)
case("an iret with a frame that is not mapped", "do_iret", Crash("Fault while reading IRET context"))(
    lambda g: g.execute(f"mov {_stack(g)}, 0x20000000\n mov eax, 23\n {'syscall' if g.bits == 64 else 'int 0x82'}")
)


@case("I/O privilege by the flags of an iret", "do_iret: IOPL", Trap(13))
def _(g: SmallGuest) -> GuestOutcome:
    code = "cli"
    top = g.va("stack") + 4096
    g.place("probe:\n" + code)
    if g.bits == 64:
        return g.iret(0, 0, 0, 0, g.va("probe"), 0xE030, 0x3202, top, 0xE02B)
    return g.iret(0, g.va("probe"), 0xE019, 0x3202)


@case("virtual-8086 mode by the flags of an iret", "do_iret: ~VM", Trap(6), 64)
def _(g: SmallGuest) -> GuestOutcome:
    g.place("probe:\n ud2")  # the flag is dropped, the code runs
    return g.iret(0, 0, 0, 0, g.va("probe"), 0xE030, 0x20202, g.va("stack") + 4096, 0xE02B)


case("virtual-8086 mode by the flags of an iret", "compat_iret: VM", Trap(13), 32)(
    lambda g: g.iret(0, g.va("probe"), 0xE019, 0x20202)
)


@case("a native iret to Xen's ring", "the processor", Trap(13, 0xE008))
def _(g: SmallGuest) -> GuestOutcome:
    if g.bits == 64:
        return g.execute("push 0xe010\n push rsp\n pushf\n push 0xe008\n push offset probe\n iretq")
    return g.execute("pushf\n push 0xe008\n .byte 0x68\n .long probe\n iretd")

"""vCPUs: what a context may hold, and what happens when a vCPU runs for the first time with it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import (
    PAGE_SHIFT,
    TRAP_SYSCALL,
    VGCF_I387_VALID,
    VGCF_IN_KERNEL,
    VGCF_ONLINE,
    Hypercall,
    VcpuOp,
)
from pvops_xen.hypervisor.layout import GUEST_CONTEXT
from pvops_xen.testing.contexts import guest_context, initialise, start
from pvops_xen.testing.guests import FAILSAFE
from pvops_xen.testing.rules.case import Collection, Crash, Done, Errno, Gives, Trap

if TYPE_CHECKING:
    from pvops_xen.testing.guests import GuestOutcome, SmallGuest

UD, NP, GP = 6, 11, 13
_NOT_CANONICAL: Final = 1 << 60
_BEYOND: Final = 0x1003
_RULE: Final = "arch_set_info_guest"
case = CASES = Collection()


def _tried(g: SmallGuest, **changes: int) -> int:
    """The answer; and a refused vCPU may try again, one that was taken may not."""
    first = initialise(g, guest_context(g, **changes))
    second = initialise(g, guest_context(g))
    assert second == (-17 if first == 0 else 0), f"again: {second}"
    return first


_TAKEN: Final[tuple[tuple[str, dict[str, int]], ...]] = (
    ("", {}),
    ("null selectors", {"cs": 0, "ss": 0}),
    ("a code selector beyond the GDT", {"cs": _BEYOND}),
    ("Xen's own selectors", {"cs": 0xE008, "ss": 0xE010}),
    ("data selectors beyond the GDT", {"ds": _BEYOND, "gs": _BEYOND}),
    ("I/O privilege, VM and no IF in its flags", {"flags_register": 0x23000}),
    ("general detect in its DR7", {"debugreg7": 1 << 13}),
    ("any bits in its CR0 and CR4", {"ctrlreg0": -1, "ctrlreg4": -1}),
)
_REFUSED: Final = (
    ("a GDT of more entries than a number holds", {"gdt_ents": -1}, (64, 32)),
    ("an LDT at an unaligned address", {"ldt_base": 0x123}, (64, 32)),
    ("an LDT of 8193 entries", {"ldt_ents": 8193}, (64, 32)),
    ("a GDT of 15 pages", {"gdt_ents": 15 * 512}, (64, 32)),
    ("a GDT that reaches into Xen's entries", {"gdt_ents": 14 * 512 + 1}, (64, 32)),
    ("a GDT of no frame of its own", {"gdt_ents": 8, "gdt_frames": 0}, (64, 32)),
    ("a root that is no frame of its own", {"ctrlreg3": 0x7FFF_F000}, (64, 32)),
    ("a user root that is no frame of its own", {"ctrlreg1": 0x7FFF_F000}, (64,)),
    ("user mode without a user root", {"flags": 0}, (64,)),
    ("an LDT at an address of Xen's", {"ldt_base": 0xFFFF_8000_0000_0000}, (64,)),
    *(
        (f"{name} that is not canonical", {name: _NOT_CANONICAL}, (64,))
        for name in (
            *("ip", "sp", "kernel_sp", "fs_base", "gs_base_kernel", "gs_base_user"),
            *("event_callback", "failsafe_callback", "syscall_callback", "trap6", "trap255"),
        )
    ),
)
for _name, _changes in _TAKEN:
    case(f"a context with {_name}" if _name else "a context", _RULE, Done())(
        lambda g, changes=_changes: _tried(g, **changes)  # type: ignore[misc]
    )
for _name, _changes, _widths in _REFUSED:
    case(f"a context with {_name}", _RULE, Errno("EINVAL"), *_widths)(
        lambda g, changes=_changes: _tried(g, **changes)  # type: ignore[misc]
    )


@case("a context with a root that is a page which is mapped writable", _RULE, Errno("EINVAL"))
def _(g: SmallGuest) -> int:
    mfn = g.mfn(0)
    return _tried(g, ctrlreg3=mfn << PAGE_SHIFT if g.bits == 64 else mfn << PAGE_SHIFT | mfn >> 20)


case("a context that is not mapped", "default_initialise_vcpu", Errno("EFAULT"))(
    lambda g: g.call(Hypercall.VCPU_OP, VcpuOp.INITIALISE, 1, 0x2000_0000)
)
case("a context for a vCPU that runs", "default_initialise_vcpu", Errno("EEXIST"))(
    lambda g: initialise(g, guest_context(g), 0)
)
case("bring a vCPU up that has no context", "VCPUOP_up", Errno("EINVAL"))(
    lambda g: g.call(Hypercall.VCPU_OP, VcpuOp.UP, 1, 0)
)


@case("a context that says online", _RULE, Gives("the vCPU is up", 1))
def _(g: SmallGuest) -> int:
    initialise(g, guest_context(g, flags=VGCF_IN_KERNEL | VGCF_ONLINE))
    return g.call(Hypercall.VCPU_OP, VcpuOp.IS_UP, 1, 0)


# --- the first run ---------------------------------------------------------------------------------------------------

for _name, _changes, _ends, *_only in (
    ("a code selector beyond the GDT", {"cs": _BEYOND}, Trap(GP, 0x1000)),
    ("a null code selector", {"cs": 0}, Trap(GP)),
    ("Xen's code selector", {"cs": 0xE008}, Trap(GP, 0xE008)),
    ("a stack selector beyond the GDT", {"ss": _BEYOND}, Trap(GP, 0x1000), 64),
    ("a data selector beyond the GDT", {"ds": _BEYOND}, Trap(FAILSAFE)),
    ("code and data selectors beyond the GDT", {"cs": _BEYOND, "fs": _BEYOND}, Trap(FAILSAFE)),
    ("null data selectors", {"ds": 0, "es": 0}, Trap(UD)),
    ("Xen's data selector", {"fs": 0xE010}, Trap(UD)),
    ("a data selector of another ring than its descriptor's", {"es": 0xE013}, Trap(FAILSAFE)),
):
    case(f"the first run with {_name}", "context_switch: load_segments", _ends, *_only)(
        lambda g, changes=_changes: _first_run(g, **changes)  # type: ignore[misc]
    )


def _first_run(g: SmallGuest, **changes: int) -> GuestOutcome:
    address = g.labels[f"h{FAILSAFE}"]
    return start(g, "ud2", failsafe_callback=address, **changes)


case(
    "the first run with a data selector beyond the GDT, without a callback",
    "create_bounce_frame",
    Crash("no handler"),
    64,
)(lambda g: start(g, "ud2", ds=_BEYOND))


@case("the failsafe callback's frame", "context_switch: load_segments", Gives("all selectors as they were asked for"))
def _(g: SmallGuest) -> bool:
    got = _first_run(g, ds=_BEYOND, es=0x1013, fs=0, gs=2)
    words = struct.unpack(
        "<6Q" if g.bits == 64 else "<4I8x", g.cpu.read_virtual(_stack(g, got), 48 if g.bits == 64 else 24)
    )
    return words[-4:] == (_BEYOND, 0x1013, 0, 2) and got.address == g.va("probe")


def _stack(g: SmallGuest, outcome: GuestOutcome) -> int:
    return outcome.registers["rsp" if g.bits == 64 else "esp"]


@case("the flags of a first run", _RULE, Gives("IF set, no I/O privilege"))
def _(g: SmallGuest) -> bool:
    got = start(g, "ud2", flags_register=0x3002)
    return not got.flags & 0x3000 and bool(g.hv.machine.vcpus[1].rflags & 1 << 9)


@case("CR0 and CR4 of a first run", "pv_fixup_guest_cr4", Gives("TS, TSD and DE as asked for, the rest is Xen's"))
def _(g: SmallGuest) -> bool:
    letter = "r" if g.bits == 64 else "e"
    got = start(g, f"mov {letter}ax, cr0\n mov {letter}bx, cr4\n ud2", ctrlreg0=8, ctrlreg4=0x0030_009C)
    return (got.registers[f"{letter}ax"], got.registers[f"{letter}bx"]) == (0x8005_003B, 0x62C)


@case("debug registers of a first run", "set_debugreg", Gives("what Xen takes; the rest is as after a reset"))
def _(g: SmallGuest) -> bool:
    address = g.va("data")
    start(g, "ud2", debugreg0=address, debugreg1=4, debugreg6=0xF, debugreg7=1 << 13)
    return g.hv.domain.vcpus[1].debugreg == [address, 4, 0, 0, 0, 0, 0xFFFF_0FFF, 0x400]


_WIDE_STATUS: Final = 0x3805
"""TOP is 7, and two exceptions have been met."""


def _fpu(g: SmallGuest, **changes: int) -> bytes:
    """What fxsave has of a first run, whose context comes with an image of the FPU."""
    mxcsr = 0x1F80 | changes.pop("mxcsr", 0)
    raw, image = bytearray(guest_context(g, **changes)), bytearray(512)
    struct.pack_into("<HHB", image, 0, 0x027F, _WIDE_STATUS, 0b1000_0001)
    struct.pack_into("<I", image, 24, mxcsr)
    for number in range(8):
        image[32 + 16 * number : 42 + 16 * number] = bytes(range(16 * number + 1, 16 * number + 11))
        image[160 + 16 * number : 176 + 16 * number] = bytes(range(100 + number, 116 + number))
    raw[:512] = image
    assert initialise(g, bytes(raw)) == 0
    g.place(f"probe:\n fxsave [{g.va('data'):#x}]\n ud2")
    assert g.bring_up(1).vector == UD
    return g.cpu.read_virtual(g.va("data"), 288)


@case("a context with an FPU image", "vcpu_setup_fpu", Gives("the vCPU has it"))
def _(g: SmallGuest) -> bool:
    got = _fpu(g, flags=VGCF_IN_KERNEL | VGCF_I387_VALID)
    numbers = struct.unpack_from("<HHB", got), struct.unpack_from("<I", got, 24)
    registers = [(got[32 + 16 * at : 42 + 16 * at], got[160 + 16 * at : 176 + 16 * at]) for at in range(8)]
    wanted = [(bytes(range(16 * at + 1, 16 * at + 11)), bytes(range(100 + at, 116 + at))) for at in range(8)]
    return numbers == ((0x027F, _WIDE_STATUS, 0b1000_0001), (0x1F80,)) and registers == wanted


@case("a context with an FPU image that is not said to be valid", "vcpu_setup_fpu", Gives("as after fninit"))
def _(g: SmallGuest) -> bool:
    got = _fpu(g)
    return (struct.unpack_from("<HHB", got), struct.unpack_from("<I", got, 24)) == ((0x037F, 0, 0), (0x1F80,))


@case("a context with an FPU image that fxrstor refuses", "fpu_fxrstor", Gives("it counts as zeros"))
def _(g: SmallGuest) -> bool:
    got = _fpu(g, flags=VGCF_IN_KERNEL | VGCF_I387_VALID, mxcsr=1 << 16)
    return not any(got[:8]) and not any(got[24:28]) and not any(got[32:])


@case("a first run whose context says syscall", "restore_all_guest: TRAP_syscall", Gives("Xen's flat segments"), 64)
def _(g: SmallGuest) -> bool:
    raw = bytearray(guest_context(g, cs=_BEYOND, ss=_BEYOND))
    GUEST_CONTEXT.over(raw, 64)["user_regs.entry_vector"] = TRAP_SYSCALL
    assert initialise(g, bytes(raw)) == 0
    g.place("probe:\n mov eax, cs\n mov ebx, ss\n ud2")
    got = g.bring_up(1)
    return (got.registers["rax"], got.registers["rbx"], got.registers["rcx"]) == (0xE033, 0xE02B, g.va("probe"))

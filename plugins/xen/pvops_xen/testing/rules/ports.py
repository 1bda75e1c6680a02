"""I/O privilege: levels, the bitmap of ports, and what is behind them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvops_core.x86 import GP
from pvops_xen.hypervisor.abi import Hypercall, PhysdevOp, VmAssist
from pvops_xen.testing.rules.case import Collection, Done, Errno, Gives, Trap

if TYPE_CHECKING:
    from pvops_xen.testing.guests import GuestOutcome, SmallGuest

case = CASES = Collection()
_ALL_FOUR = "cli\n sti\n in al, 0x80\n out 0x80, al"


def _set_iopl(g: SmallGuest, level: int) -> int:
    return g.call(Hypercall.PHYSDEV_OP, PhysdevOp.SET_IOPL, g.put("data", struct.pack("<I", level)))


def _privileged(g: SmallGuest, code: str, *, level: int, architectural: bool, user: bool) -> GuestOutcome:
    _set_iopl(g, level)
    if architectural:
        g.call(Hypercall.VM_ASSIST, 0, VmAssist.ARCHITECTURAL_IOPL)
    # With that assist the level is in the flags that the kernel returns with.
    return g.execute_as_user(code, rflags=0x202 | level << 12) if user else g.execute(code)


def _execute(g: SmallGuest, code: str, *, user: bool) -> GuestOutcome:
    return g.execute_as_user(code) if user else g.execute(code)


for _level in range(4):
    for _user in (False, True):
        for _architectural in (False, True):
            _ring = 3 if _user else 0 if _architectural else 1
            _who = "a process" if _user else "the kernel"
            _how = f"level {_level}{', architectural_iopl' if _architectural else ''}"
            for _code in (_ALL_FOUR,) if _level >= _ring else _ALL_FOUR.split("\n"):
                case(
                    f"{_code.replace(chr(10), ',').strip()} in {_who}, {_how}",
                    "iopl_ok",
                    Done() if _level >= _ring else Trap(GP),
                )(
                    lambda g, code=_code, level=_level, architectural=_architectural, user=_user: _privileged(  # type: ignore[misc]
                        g, code, level=level, architectural=architectural, user=user
                    )
                )


@case("a level by the flags of an iret, with architectural_iopl", "do_iret: IOPL", Done())
def _(g: SmallGuest) -> GuestOutcome:
    g.call(Hypercall.VM_ASSIST, 0, VmAssist.ARCHITECTURAL_IOPL)
    g.place(f"probe:\n cli\n int {0x81}")
    top = g.va("stack") + 4096
    if g.bits == 64:
        g.mmuext((15, g.table(4), 0))
        g.update_va_mapping(g.va("probe"), g.entry("probe") | 4)
        return g.iret(0, 0, 0, 0, g.va("probe"), 0xE033, 0x3202, top, 0xE02B)
    g.update_va_mapping(g.va("probe"), g.entry("probe") | 4)
    return g.iret(0, g.va("probe"), 0xE02B, 0x3202, top, 0xE033)


case("I/O privilege 4", "PHYSDEVOP_set_iopl", Errno("EINVAL"))(lambda g: _set_iopl(g, 4))
case("I/O privilege that is not mapped", "copy_from_guest", Errno("EFAULT"))(
    lambda g: g.call(Hypercall.PHYSDEV_OP, PhysdevOp.SET_IOPL, 0x2000_0000)
)


# --- the bitmap ------------------------------------------------------------------------------------------------------


def _set_bitmap(g: SmallGuest, *, allowed: tuple[int, ...] = (), limit: int = 65536, address: int = 0) -> int:
    """A bitmap that allows some ports, in pages 2 and 3; a process may not see it."""
    bits = bytearray(b"\xff" * 8192)
    for port in allowed:
        bits[port >> 3] &= ~(1 << (port & 7))
    g.put(2, bytes(bits[:4096]))
    g.put(3, bytes(bits[4096:]))
    argument = g.put("data", g.words(address or g.va(2)) + struct.pack("<I4x", limit))
    return g.call(Hypercall.PHYSDEV_OP, PhysdevOp.SET_IOBITMAP, argument)


for _name, _code, _allowed, _limit, _ends in (
    ("a port that the bitmap allows", "in al, 0x71", (0x71,), 65536, Done()),
    ("a port that the bitmap forbids", "in al, 0x72", (0x71,), 65536, Trap(GP)),
    ("out to a port that the bitmap allows", "out 0x71, al", (0x71,), 65536, Done()),
    ("out to a port that the bitmap forbids", "out 0x72, al", (0x71,), 65536, Trap(GP)),
    ("two ports of which the bitmap forbids one", "in ax, 0x71", (0x71,), 65536, Trap(GP)),
    ("two ports that the bitmap allows over the end of a byte", "in ax, 0x77", (0x77, 0x78), 65536, Done()),
    ("four ports that the bitmap allows", "in eax, 0x76", (0x76, 0x77, 0x78, 0x79), 65536, Done()),
    ("the last port that the bitmap has", "in al, 0x71", (0x71,), 0x72, Done()),
    ("a port that the bitmap has not", "in al, 0x71", (0x71,), 0x71, Trap(GP)),
    ("two ports of which the bitmap has one", "in ax, 0x71", (0x71, 0x72), 0x72, Trap(GP)),
    ("cli with a bitmap that allows everything", "cli", tuple(range(65536)), 65536, Trap(GP)),
):
    for _user in (False, True):
        case(f"{_name}, {'a process' if _user else 'the kernel'}", "guest_io_okay", _ends)(
            lambda g, code=_code, allowed=_allowed, limit=_limit, user=_user: (  # type: ignore[misc]
                _set_bitmap(g, allowed=allowed, limit=limit),
                _execute(g, code, user=user),
            )[1]
        )


@case("a bitmap that is not mapped", "guest_io_okay: inaccessible bytes", Trap(GP))
def _(g: SmallGuest) -> GuestOutcome:
    _set_bitmap(g, allowed=(0x71,))
    g.update_va_mapping(g.va(2), 0)
    return g.execute("in al, 0x71")


@case("a bitmap whose second byte is not mapped", "guest_io_okay: inaccessible bytes", Done())
def _(g: SmallGuest) -> GuestOutcome:
    last = 4095 * 8
    _set_bitmap(g, allowed=(last,))
    g.update_va_mapping(g.va(3), 0)
    return g.execute(f"mov edx, {last}\n in al, dx")


case("a port bitmap of 65537 ports", "PHYSDEVOP_set_iobitmap", Errno("EINVAL"))(lambda g: _set_bitmap(g, limit=65537))
case("a port bitmap in Xen's part", "PHYSDEVOP_set_iobitmap", Errno("EINVAL"))(
    lambda g: _set_bitmap(g, address=g.hv.abi.m2p_start)
)


# --- what is behind them ---------------------------------------------------------------------------------------------


def _reads(g: SmallGuest, code: str) -> int:
    _set_iopl(g, 3)
    value = g.execute(f"xor eax, eax\n {code}").registers["rax" if g.bits == 64 else "eax"]
    return value & 0xFFFF_FFFF


for _name, _code, _rule, _text, _value in (
    ("read a port", "in al, 0x61", "guest_io_read", "all ones", 0xFF),
    ("read four ports", "in eax, 0x60", "guest_io_read", "all ones", 0xFFFF_FFFF),
    ("read the clock's index before it is written", "in al, 0x70", "rtc_guest_read", "0", 0),
    (
        "read the clock's index",
        "mov al, 0x8b\n out 0x70, al\n in al, 0x70",
        "rtc_guest_write",
        "what was written",
        0x8B,
    ),
    ("read the clock", "mov al, 0xb\n out 0x70, al\n in al, 0x71", "rtc_guest_read", "all ones", 0xFF),
    ("read the clock's two ports", "mov al, 0xb\n out 0x70, al\n in ax, 0x70", "guest_io_read", "both", 0xFF0B),
    (
        "read the PCI address",
        "mov edx, 0xcf8\n mov eax, 0x80000004\n out dx, eax\n xor eax, eax\n in eax, dx",
        "guest_io_write: pci_cf8",
        "what was written",
        0x8000_0004,
    ),
    ("read a byte of the PCI address", "mov edx, 0xcf8\n in al, dx", "guest_io_read", "all ones", 0xFF),
    ("read PCI configuration", "mov edx, 0xcfc\n in eax, dx", "pci_cfg_ok", "all ones", 0xFFFF_FFFF),
    ("read a port again and again", "mov ecx, 9\n 1: in al, 0x61\n loop 1b", "guest_io_read", "all ones", 0xFF),
):
    case(_name, _rule, Gives(_text, _value))(lambda g, code=_code: _reads(g, code))  # type: ignore[misc]

"""A PV guest's breakpoints: set by hypercall or by mov, hit in the kernel, told in DR6 as Xen keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.abi import Hypercall

from pvops_core.x86 import DR6_RESET

if TYPE_CHECKING:
    from pvops_xen.testing.guests import SmallGuest

DB, TF = 1, 1 << 8
EXECUTE, WRITE, PORT, ACCESS = range(4)
EPERM = 1


def dr7(number: int, kind: int, length: int = 1) -> int:
    return 2 << 2 * number | (kind | {1: 0, 2: 1, 4: 3}[length] << 2) << 16 + 4 * number | 0x600


def arm(g: SmallGuest, number: int, address: int, kind: int, length: int = 1) -> None:
    assert g.call(Hypercall.SET_DEBUGREG, number, address) == 0
    assert g.call(Hypercall.SET_DEBUGREG, 7, dr7(number, kind, length)) == 0


def dr6(g: SmallGuest) -> int:
    return g.call(Hypercall.GET_DEBUGREG, 6) & 0xFFFFFFFF


def register(g: SmallGuest) -> str:
    return "rbx" if g.bits == 64 else "ebx"


@pytest.mark.parametrize("number", range(4))
def test_an_instruction_of_the_kernel(guest: SmallGuest, number: int) -> None:
    at = guest.va("probe")
    arm(guest, number, at + 1, EXECUTE)
    outcome = guest.execute("nop\n nop\n nop")
    assert (outcome.kind, outcome.vector, outcome.address) == ("trap", DB, at + 1)
    assert dr6(guest) == DR6_RESET | 1 << number


@pytest.mark.parametrize(("kind", "code"), [
    (WRITE, "mov dword ptr [{r}], 1"), (ACCESS, "mov eax, [{r}]"), (ACCESS, "inc byte ptr [{r} + 3]"),
])  # fmt: skip
def test_a_word_of_data(guest: SmallGuest, kind: int, code: str) -> None:
    r = register(guest)
    arm(guest, 1, guest.va("data"), kind, 4)
    outcome = guest.execute(f"mov {r}, {guest.va('data'):#x}\n {code.format(r=r)}\n nop")
    assert (outcome.kind, outcome.vector) == ("trap", DB)
    assert dr6(guest) == DR6_RESET | 2


def test_a_process_hits_it_too(guest: SmallGuest) -> None:
    arm(guest, 0, guest.va("probe") + 1, EXECUTE)
    outcome = guest.execute_as_user("nop\n nop")
    assert (outcome.kind, outcome.vector, outcome.address) == ("trap", DB, guest.va("probe") + 1)


def test_moves_of_the_kernel_are_emulated(guest: SmallGuest) -> None:
    r, at = register(guest), guest.va("data")
    code = f"mov {r}, {at:#x}\n mov dr3, {r}\n mov {r}, {dr7(3, WRITE, 4):#x}\n mov dr7, {r}\n mov {r}, {at:#x}"
    outcome = guest.execute(f"{code}\n mov dword ptr [{r}], 5\n nop")
    assert (outcome.kind, outcome.vector) == ("trap", DB)
    assert dr6(guest) == DR6_RESET | 8


def test_xen_adds_to_dr6_and_the_guest_clears_it(guest: SmallGuest) -> None:
    arm(guest, 0, guest.va("probe"), EXECUTE)
    assert guest.execute("nop").vector == DB
    assert guest.execute("nop", flags=0x202 | TF).vector == DB
    assert guest.call(Hypercall.SET_DEBUGREG, 6, 0) == 0
    assert dr6(guest) == DR6_RESET


def test_disarmed_it_is_passed(guest: SmallGuest) -> None:
    arm(guest, 0, guest.va("probe"), EXECUTE)
    assert guest.call(Hypercall.SET_DEBUGREG, 7, 0) == 0
    assert guest.execute("nop").kind == "done"
    assert dr6(guest) == DR6_RESET


def test_a_port_with_de(guest: SmallGuest) -> None:
    r = register(guest)
    assert guest.call(Hypercall.SET_DEBUGREG, 0, 0x80) == 0
    assert guest.call(Hypercall.SET_DEBUGREG, 7, dr7(0, PORT)) & 0xFFFFFFFF == -EPERM & 0xFFFFFFFF
    assert guest.execute(f"mov {r}, cr4\n or {r}, 8\n mov cr4, {r}").kind == "done"
    assert guest.call(Hypercall.SET_DEBUGREG, 7, dr7(0, PORT)) == 0
    assert guest.call(Hypercall.PHYSDEV_OP, 6, guest.put("data", (1).to_bytes(4, "little"))) == 0
    outcome = guest.execute("nop\n out 0x80, al\n nop")
    assert (outcome.kind, outcome.vector, outcome.address) == ("trap", DB, guest.va("probe") + 3)
    assert dr6(guest) == DR6_RESET | 1


def test_icebp(guest: SmallGuest) -> None:
    outcome = guest.execute("nop\n .byte 0xf1\n nop")
    assert (outcome.kind, outcome.vector, outcome.address) == ("trap", DB, guest.va("probe") + 2)
    assert dr6(guest) == DR6_RESET


@pytest.mark.parametrize("entry", ["int3", "ud2"])
def test_what_a_load_of_ss_puts_off_is_xens(guest: SmallGuest, entry: str) -> None:
    """XSA-260 and 265: it comes when Xen has been entered, which ignores it; the next load puts it off as well."""
    r = register(guest)
    selector = guest.cpu.get("ss")
    at = guest.put("data", selector.to_bytes(4, "little"))
    arm(guest, 0, at, ACCESS, 2)
    vector = {"int3": 3, "ud2": 6}[entry]
    for _ in range(2):
        outcome = guest.execute(f"mov {r}, {at:#x}\n mov ss, [{r}]\n {entry}\n nop")
        assert (outcome.kind, outcome.vector) == ("trap", vector)
    assert dr6(guest) == DR6_RESET
    outcome = guest.execute(f"mov {r}, {at:#x}\n mov ss, [{r}]\n nop\n nop")
    assert (outcome.kind, outcome.vector) == ("trap", DB)

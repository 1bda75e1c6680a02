"""Traps on real machine code: who gets them, and with which frame on which stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_lguest.host.abi import Call

from .rig import BASE, DATA, STACK_TOP, Host, Program

if TYPE_CHECKING:
    from .conftest import MakeHost

USER_CODE = 0x08048000
USER_STACK = 0x0804A000
USER_PA = 0x160000
USER_STACK_PA = 0x162000
HANDLER = 0x104000
KERNEL_STACK_TOP = 0x128000
OUT = 0x140000
CS, DS, USER_CS, USER_DS = 0x61, 0x69, 0x73, 0x7B


def user_guest(host: Host, user: Program) -> Host:
    """A guest that goes to ring 3 at once and runs ``user`` there."""
    host.init()
    host.segments()
    host.user_page(USER_CODE, USER_PA)
    host.user_page(USER_STACK - 0x1000, USER_STACK_PA)
    host.call(Call.SET_STACK, DS, BASE + KERNEL_STACK_TOP, 2)
    user.at = USER_PA
    host.machine.memory.write(USER_PA, bytes(user.code))
    kernel = Program()
    # The kernel runs with user data segments, as Linux does.
    kernel.raw("b87b0000008ed88ec0")
    host.to_user(kernel, USER_CODE, USER_STACK)
    return host.program(kernel)


def handler(at: int = HANDLER) -> Program:
    """A handler that stores a mark and stays."""
    return Program(at).store(OUT, 0x600D).hang()


def frame(host: Host, top: int, words: int) -> list[int]:
    return [host.get(top - 4 * n) for n in range(1, words + 1)]


def test_a_system_call_goes_straight_to_the_guest(host: Host) -> None:
    user_guest(host, Program().load(eax=20).int(0x80).hang())
    host.gate(0x80, BASE + HANDLER, type=0xF, dpl=3)
    host.set(host.member("irq_enabled"), 0)
    host.program(handler())
    assert host.ends(300_000)[0] == "timeout"
    assert host.get(OUT) == 0x600D
    # The CPU's own frame: the real flags, in which interrupts are always on.
    assert frame(host, KERNEL_STACK_TOP, 5) == [USER_DS, USER_STACK, 0x202, USER_CS, USER_CODE + 7]
    assert host.vcpu.get("esp") == BASE + KERNEL_STACK_TOP - 20
    assert (host.vcpu.cpl, host.vcpu.get("cs"), host.vcpu.get("ss")) == (1, CS, DS)
    assert host.get(host.member("irq_enabled")) == 0


@pytest.mark.parametrize("irq_enabled", [0, 0x200])
@pytest.mark.parametrize("type", [0xE, 0xF])
def test_a_page_fault_of_user_mode_is_reflected(host: Host, irq_enabled: int, type: int) -> None:
    user_guest(host, Program().op(0xC705, 0x40000000, 5).hang())
    host.gate(14, BASE + HANDLER, type=type)
    host.set(host.member("irq_enabled"), irq_enabled)
    host.program(handler())
    host.ends(300_000)
    assert host.get(OUT) == 0x600D
    flags = 0x2 | irq_enabled
    expected = [USER_DS, USER_STACK, flags, USER_CS, USER_CODE, 6]
    words = frame(host, KERNEL_STACK_TOP, 6)
    words[2] &= 0x202
    assert words == expected
    assert host.get(host.member("cr2")) == 0x40000000
    assert host.get(host.member("irq_enabled")) == (0 if type == 0xE else irq_enabled)


def test_a_trap_of_the_kernel_stays_on_its_stack(host: Host) -> None:
    host.init()
    host.gate(6, BASE + HANDLER)
    host.set(host.member("irq_enabled"), 0x200)
    program = Program().raw("0f0b")
    host.program(program).program(handler())
    host.ends(300_000)
    words = frame(host, STACK_TOP, 3)
    assert [words[0] & 0x202, *words[1:]] == [0x202, CS, program.here - 2]
    assert host.vcpu.get("esp") == BASE + STACK_TOP - 12


def test_the_way_back_works_natively(host: Host) -> None:
    """Trap, handler, real iret: the guest goes on behind what it did."""
    user_guest(host, Program().int(0x80).load(eax=0x77).int(0x81).hang())
    host.gate(0x80, BASE + HANDLER, type=0xF, dpl=3)
    host.gate(13, BASE + HANDLER + 0x100)
    host.program(Program(HANDLER).raw("50").store(OUT, 1).raw("58cf"))
    host.program(Program(HANDLER + 0x100).save_eax(OUT + 4).hang())
    host.ends(500_000)
    assert host.get(OUT) == 1
    assert host.get(OUT + 4) == 0x77
    # int 0x81 is not the guest's to use from ring 3: #GP, error code of the gate, at the instruction.
    assert frame(host, KERNEL_STACK_TOP, 6)[4:] == [USER_CODE + 7, 0x81 * 8 + 2]


@pytest.mark.parametrize(("vector", "level"), [(0x1F, 1), (0x21, 0), (3, 3), (0x30, 0)])
def test_who_may_raise_a_vector(host: Host, vector: int, level: int) -> None:
    host.init()
    host.gate(vector, BASE + HANDLER, type=0xF, dpl=3)
    assert host.state.traps.software_level(vector) == level


def test_user_mode_makes_no_hypercalls(host: Host) -> None:
    user_guest(host, Program().load(eax=2, edx=0x130000).int(0x1F).hang())
    host.gate(13, BASE + HANDLER)
    host.program(handler())
    assert host.ends(300_000)[0] == "timeout"
    assert host.get(OUT) == 0x600D
    assert frame(host, KERNEL_STACK_TOP, 6)[4:] == [USER_CODE + 10, 0x1F * 8 + 2]


def test_int3_faults_at_its_one_byte(host: Host) -> None:
    user_guest(host, Program().raw("cc").hang())
    host.gate(3, BASE + HANDLER, dpl=1)
    host.gate(13, BASE + HANDLER)
    host.program(handler())
    host.ends(300_000)
    assert frame(host, KERNEL_STACK_TOP, 6)[4:] == [USER_CODE, 3 * 8 + 2]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("0f0b", "unhandled trap 6 at 0xc0100000 (0x0)"),
        ("c7050000004005000000", "unhandled trap 14 at 0xc0100000 (0x40000000)"),
        ("fa", "unhandled trap 13 at 0xc0100000 (0x0)"),
        ("0f22d8", "unhandled trap 13 at 0xc0100000 (0x0)"),
        ("f4", "unhandled trap 13 at 0xc0100000 (0x0)"),
        ("31d2f7f2", "unhandled trap 0 at 0xc0100002 (0x0)"),
    ],
)
def test_a_trap_without_handler_kills(host: Host, code: str, reason: str) -> None:
    host.init()
    host.program(Program().raw(code).hang())
    assert host.ends() == ("crash", reason)


def test_traps_that_are_never_the_guests(host: Host) -> None:
    host.init()
    for vector in (2, 8, 15, 0x1F):
        host.gate(vector, BASE + HANDLER)
        assert host.state.traps.gate(vector) is None
    for vector in (7, 13, 14, 0x20):
        host.gate(vector, BASE + HANDLER, type=0xF)
        assert host.state.traps.gate(vector) is not None
        assert host.state.traps.direct(vector) is None


def test_a_gate_that_is_not_present_is_no_gate(host: Host) -> None:
    host.init()
    host.gate(6, BASE + HANDLER)
    host.call(Call.LOAD_IDT_ENTRY, 6, 0x00610000, 0x0E00)
    host.program(Program().raw("0f0b"))
    assert host.ends()[1].startswith("unhandled trap 6")


def test_a_stack_that_is_not_mapped_kills(host: Host) -> None:
    host.init()
    host.gate(6, BASE + HANDLER)
    host.program(Program().load(esp=0x50000000).raw("0f0b"))
    assert host.ends() == ("crash", "Bad address 0x4ffffffc")


def test_a_frame_may_lie_on_two_pages(host: Host) -> None:
    host.init()
    host.user_page(0x10000000, 0x170000)
    host.user_page(0x10001000, 0x172000)
    host.gate(6, BASE + HANDLER)
    host.program(Program().load(esp=0x10001006).raw("0f0b")).program(handler())
    host.ends(300_000)
    assert host.get(OUT) == 0x600D
    frame = host.machine.memory.read(0x170FFA, 6) + host.machine.memory.read(0x172000, 6)
    assert [int.from_bytes(frame[at : at + 4], "little") for at in (0, 4)] == [BASE + 0x100005, CS]


def test_ports_are_empty(host: Host) -> None:
    host.init()
    program = Program().load(eax=0, edx=0x3F8).raw("ec").save_eax(OUT).raw("66ed").save_eax(OUT + 4)
    program.raw("e571").save_eax(OUT + 8).raw("e670").raw("ef").store(OUT + 12, 1).hang()
    host.program(program)
    host.ends(300_000)
    assert [host.get(OUT + at) for at in (0, 4, 8, 12)] == [0xFF, 0xFFFF, 0xFFFFFFFF, 1]
    assert (host.platform.traps["emulated_in"], host.platform.traps["emulated_out"]) == (3, 2)


def test_ports_fault_in_user_mode(host: Host) -> None:
    user_guest(host, Program().raw("e480").hang())
    host.gate(13, BASE + HANDLER)
    host.program(handler())
    host.ends(300_000)
    assert host.get(OUT) == 0x600D


@pytest.mark.parametrize("wanted", [False, True])
def test_the_fpu_traps_only_if_asked(host: Host, wanted: bool) -> None:  # noqa: FBT001 - a parameter
    host.init()
    host.gate(7, BASE + HANDLER)
    host.call(Call.TS, 8)
    if not wanted:
        host.call(Call.TS, 0)
        host.vcpu.cr0 |= 8  # the host's own lazy switching
    host.program(Program().raw("dbe3").store(OUT, 1).hang()).program(handler())
    host.ends(300_000)
    assert host.get(OUT) == (0x600D if wanted else 1)
    assert host.vcpu.cr0 & 8 == (8 if wanted else 0)


def test_sysenter_leads_nowhere(host: Host) -> None:
    user_guest(host, Program().raw("0f34").hang())
    host.gate(13, BASE + HANDLER)
    host.program(handler())
    host.ends(300_000)
    assert host.get(OUT) == 0x600D
    assert frame(host, KERNEL_STACK_TOP, 6)[4:] == [USER_CODE, 0]


@pytest.mark.parametrize("user", [False, True])
def test_the_time_stamp_counter_is_virtual_time(make_host: MakeHost, user: bool) -> None:  # noqa: FBT001 - a parameter
    def times() -> tuple[int, int]:
        host = make_host()
        program = Program().raw("0f31")
        if user:
            user_guest(host, program.raw("0f31").int(0x80))
            host.gate(0x80, BASE + HANDLER, type=0xF, dpl=3)
            host.program(Program(HANDLER).save_eax(OUT).hang())
        else:
            host.init()
            host.program(program.save_eax(OUT).hang())
        host.ends(300_000)
        return host.get(OUT), host.machine.clock.ns

    first, second = times(), times()
    assert first == second
    assert 0 < first[0] < first[1]


def test_reading_only_memory_is_a_fault_only_if_the_guest_says_so(host: Host) -> None:
    """A page that is writable in the guest's tables but clean is first shadowed read-only; no one notices."""
    host.init()
    host.user_page(0x10000000, 0x170000, flags=7)
    host.user_page(0x10001000, 0x171000, flags=5)
    host.gate(14, BASE + HANDLER)
    host.program(Program().op(0xA1, 0x10000000).op(0xC705, 0x10000000, 9).op(0xC705, 0x10001000, 9).hang())
    host.program(handler())
    host.ends(300_000)
    assert host.get(0x170000) == 9
    assert host.get(0x171000) == 0
    assert host.get(host.member("cr2")) == 0x10001000
    table = host.get(host.gpgdir + (0x10000000 >> 22) * 4) & ~0xFFF
    assert host.get(table) & 0x60 == 0x60
    # Every exit to the host counts; all but one of these faults only filled the shadow.
    assert host.platform.traps == {"page_fault": host.platform.shadow_fills + 1}


def test_the_guest_never_walks_its_own_tables(host: Host) -> None:
    host.init()
    host.program(Program().store(OUT, 1).hang())
    host.ends(200_000)
    assert host.vcpu.cr3 == host.state.shadow.cr3
    assert host.vcpu.cr3 >= host.state.memory.limit
    assert host.vcpu.cr3 != host.gpgdir


def test_the_hosts_memory_is_out_of_reach(host: Host) -> None:
    """An entry that maps the host's frames kills, whoever touches it."""
    host.init()
    host.user_page(0x10000000, host.state.memory.limit)
    host.program(Program().op(0xA1, 0x10000000).hang())
    assert host.ends() == ("crash", "bad page table entry")


def test_the_switchers_place_is_out_of_reach(host: Host) -> None:
    host.init()
    program = Program().op(0xC705, 0xFFC00000, 0).hang()
    host.gate(14, BASE + HANDLER)
    host.program(program).program(handler())
    before = host.state.segments.entry(12)
    host.ends(300_000)
    assert host.get(OUT) == 0x600D
    assert host.state.segments.entry(12) == before


def test_data_page_address_is_physical(host: Host) -> None:
    host.init()
    assert host.state.data is not None
    assert host.state.data.pa == DATA

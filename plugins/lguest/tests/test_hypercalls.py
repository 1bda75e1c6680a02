"""Each hypercall, and each way to be killed by one."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from pvops_lguest.host.abi import ABIS, Call

from .rig import BASE, DATA, RAM, Host, Program

if TYPE_CHECKING:
    from .conftest import MakeHost


def reason_of(host: Host, call: Call | int, *args: int) -> tuple[str, str]:
    """Make one call as the guest's code would, and give the end of the run."""
    number = call if isinstance(call, int) else host.platform.number(call)
    registers = dict(zip(host.state.abi.registers, args, strict=False))
    host.program(Program().load(eax=number, **registers).int(0x1F).hang())
    return host.ends(200_000)


@pytest.mark.parametrize("abi", ABIS)
def test_the_first_call_must_be_init(make_host: MakeHost, abi: str) -> None:
    assert reason_of(make_host(abi), Call.FLUSH_ASYNC) == ("crash", "hypercall 0 before INIT")
    assert reason_of(make_host(abi).init(), Call.LGUEST_INIT, DATA) == ("crash", "already have lguest_data")


def test_init_fills_what_the_host_owes(make_host: MakeHost) -> None:
    for abi in ABIS:
        host = make_host(abi, rtc="1000")
        layout = host.state.abi.data
        host.set(host.member("reserve_mem"), 7)
        host.init()
        assert host.get(host.member("reserve_mem")) == 4 << 20
        assert host.get(host.member("tsc_khz")) == host.state.tsc_khz
        assert host.get(host.member("time")) == 1000
        if layout.pgdir is not None:
            assert host.get(host.member("pgdir")) == host.gpgdir
        if layout.guestid is not None:
            assert host.machine.memory.u16(host.member("guestid")) == 0


KILLS = [
    ("2.6.24", 11, (), "Bad hypercall 11"),
    ("2.6.23", 17, (0,), "Bad hypercall 17"),
    ("2.6.24", 13, (0,), "Bad hypercall 13"),
    ("2.6.35", 3, (0,), "Bad hypercall 3"),
    ("2.6.24", 0xFFFFFFFF, (), "Bad hypercall 4294967295"),
    ("2.6.24", Call.LOAD_GDT, (0x1000, 33), "too many gdt entries 33"),
    ("2.6.24", Call.LOAD_GDT, (RAM, 1), f"bad read address {RAM:#x} len 8"),
    ("2.6.35", Call.LOAD_GDT_ENTRY, (32, 0, 0), "too many gdt entries 32"),
    ("2.6.24", Call.LOAD_TLS, (0xFFFFFFF8,), "bad read address 0xfffffff8 len 24"),
    ("2.6.24", Call.LOAD_IDT_ENTRY, (256, 0, 0x8E00), "Setting idt entry 256"),
    ("2.6.24", Call.LOAD_IDT_ENTRY, (3, 0, 0x8500), "bad IDT type 5"),
    ("2.6.24", Call.SET_STACK, (0x68, BASE + 0x2000, 1), "bad stack segment 104"),
    ("2.6.24", Call.SET_STACK, (0x69, BASE + 0x2000, 3), "bad stack pages 3"),
    ("2.6.24", Call.SET_STACK, (0x69, 0x5000, 1), "bad stack page 0x4fff"),
    ("2.6.24", Call.SET_PTE, (0x8000, 0xFFC01000, 0x63), "attempt to access switcher pages"),
    ("2.6.24", Call.SET_PTE, (0x8000, BASE + 0x1000, 0xFFFFF063), "bad page table entry"),
    ("2.6.24", Call.SET_PTE, (0x8000, BASE + 0x1000, 0x10E3), "bad page table entry"),
    ("2.6.24", Call.SET_PTE, (0x8000, BASE + 0x1000, 0x106B), "bad page table entry"),
    ("2.6.24", Call.NOTIFY, (RAM,), f"Bad NOTIFY {RAM:#x}"),
    ("2.6.24", Call.CRASH, (RAM - 8,), f"bad read address {RAM - 8:#x} len 128"),
    ("2.6.23", Call.BIND_DMA, (3, 0, 0x105), "bad dma key 0x3"),
    ("2.6.23", Call.SEND_DMA, (0, RAM), f"bad read address {RAM:#x} len 100"),
]


@pytest.mark.parametrize(("abi", "call", "args", "reason"), KILLS, ids=[f"{kill[0]}-{kill[3]}" for kill in KILLS])
def test_a_grossly_invalid_argument_kills(
    make_host: MakeHost, abi: str, call: Call | int, args: tuple[int, ...], reason: str
) -> None:
    host = make_host(abi).init()
    assert reason_of(host, call, *args) == ("crash", reason)


def test_bad_members_of_the_shared_page_kill(make_host: MakeHost) -> None:
    host = make_host("2.6.24")
    assert reason_of(host, Call.LGUEST_INIT, RAM - 100) == ("crash", f"bad guest page {RAM - 100:#x}")
    host = make_host("2.6.24")
    host.set(host.member("kernel_address"), 0xFFC00000)
    assert reason_of(host, Call.LGUEST_INIT, DATA) == ("crash", "bad kernel address 0xffc00000")
    host = make_host("2.6.35")
    host.set(host.member("syscall_vec"), 0x40)
    assert reason_of(host, Call.LGUEST_INIT, DATA) == ("crash", "bad system call vector 0x40")


def test_pwt_is_refused_only_by_early_hosts(make_host: MakeHost) -> None:
    host = make_host("2.6.35").init()
    assert reason_of(host, Call.SET_PTE, host.gpgdir, BASE + 0x1000, 0x106B)[0] == "timeout"


@pytest.mark.parametrize(
    ("abi", "call", "message", "second", "end"),
    [
        ("2.6.23", Call.CRASH, b"Power down", 0, ("poweroff", "CRASH: Power down")),
        ("2.6.24", Call.CRASH, b"Attempted to kill init!", 0, ("crash", "CRASH: Attempted to kill init!")),
        ("2.6.35", Call.SHUTDOWN, b"Power down", 1, ("poweroff", "CRASH: Power down")),
        ("2.6.35", Call.SHUTDOWN, b"Restarting...", 2, ("reboot", "CRASH: Restarting...")),
        ("2.6.35", Call.SHUTDOWN, b"VFS: no root", 1, ("crash", "CRASH: VFS: no root")),
        ("2.6.24", Call.CRASH, b"x" * 200, 0, ("crash", "CRASH: " + "x" * 127)),
    ],
)
def test_the_guest_ends_itself(
    make_host: MakeHost, abi: str, call: Call, message: bytes, second: int, end: tuple[str, str]
) -> None:
    host = make_host(abi).init()
    host.machine.memory.write(0x130000, message + b"\0")
    assert reason_of(host, call, 0x130000, second) == end


def test_a_call_before_the_first_wrong_one_stands(host: Host) -> None:
    """A killed guest does not run on: nothing after the bad call happens."""
    host.init()
    program = Program()
    host.call_code(program, Call.TS, 8)
    program.load(eax=99).int(0x1F).store(0x140000, 1).hang()
    host.program(program)
    assert host.ends()[1] == "Bad hypercall 99"
    assert host.state.ts
    assert host.get(0x140000) == 0


def test_early_console_text(host: Host) -> None:
    host.init()
    host.machine.memory.write(0x130FF0, b"over a page boundary\n\0not this")
    host.call(Call.NOTIFY, 0x130FF0)
    host.call(Call.NOTIFY, 0x130FF5)
    assert host.platform.console == b"over a page boundary\na page boundary\n"


def test_a_string_without_end_ends_with_memory(host: Host) -> None:
    host.init()
    host.machine.memory.write(RAM - 0x1800, b"A" * 0x1800)
    host.call(Call.NOTIFY, RAM - 0x1800)
    assert bytes(host.platform.console) == b"A" * 0x1800


def dma(*sections: tuple[int, int], used: int = 0) -> bytes:
    padded = [*sections, *[(0, 0)] * (16 - len(sections))]
    return struct.pack("<I16I16H", used, *(at for at, _ in padded), *(length for _, length in padded))


def test_console_text_by_dma(make_host: MakeHost) -> None:
    host = make_host("2.6.23").init()
    host.machine.memory.write(0x130000, b"Linux version")
    host.machine.memory.write(0x131000, b" 2.6.23\n")
    host.machine.memory.write(0x132000, dma((0x130000, 13), (0x131000, 8), (0, 0), (0x130000, 5)))
    host.call(Call.SEND_DMA, 0, 0x132000)
    assert host.platform.console == b"Linux version 2.6.23\n"
    assert host.get(0x132000) == 21
    host.call(Call.SEND_DMA, 0x1000, 0x132000)
    assert len(host.platform.console) == 21


@pytest.mark.parametrize("section", [(0x130FFF, 2), (RAM - 1, 2), (0x130000, 4097)])
def test_a_dma_section_stays_in_one_page(make_host: MakeHost, section: tuple[int, int]) -> None:
    host = make_host("2.6.23").init()
    host.machine.memory.write(0x132000, dma(section))
    assert reason_of(host, Call.SEND_DMA, 0, 0x132000) == ("crash", f"bad DMA entry: {section[1]}@{section[0]:#x}")


def test_binding_dma(make_host: MakeHost) -> None:
    host = make_host("2.6.23").init()
    assert host.call(Call.BIND_DMA, 0x1000, 0x2000, 4 << 8 | 40) == 0
    assert [host.call(Call.BIND_DMA, 0x1000 * n, 0x2000, 4 << 8 | 5) for n in range(11)] == [1] * 10 + [0]
    assert host.call(Call.BIND_DMA, 0x1000, 0x3000, 0) == 0
    assert host.call(Call.BIND_DMA, 0x1000, 0x2000, 0) == 1
    assert host.call(Call.BIND_DMA, 0x1000, 0x2000, 0) == 0


def test_eax_keeps_the_number_where_a_call_gives_nothing(host: Host) -> None:
    host.init()
    assert host.call(Call.FLUSH_TLB, 1) == 5
    program = Program()
    host.call_code(program, Call.TS, 0).save_eax(0x140000).hang()
    host.program(program)
    host.ends(100_000)
    assert host.get(0x140000) == 8


def test_calls_are_counted_and_logged(host: Host) -> None:
    host.init()
    host.call(Call.SET_PMD, host.gpgdir, 5)
    host.call(Call.SET_PTE, host.gpgdir, 0x1000, 0)
    host.call(Call.FLUSH_TLB, 0)
    assert host.platform.hypercalls == {"LGUEST_INIT": 1, "SET_PMD": 1, "SET_PTE": 1, "FLUSH_TLB": 1}
    assert (host.platform.page_table_updates, host.platform.flushes) == (2, 1)
    logged = [dict(event.fields)["name"] for event in host.machine.log.events if event.kind == "hypercall"]
    assert logged == ["LGUEST_INIT", "SET_PMD", "SET_PTE", "FLUSH_TLB"]
    assert host.machine.clock.ns > 0

"""The three ABI generations: numbers, argument registers, ring entries, and how one is recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_lguest.host.abi import ABI_2_6_23, ABI_2_6_24, ABI_2_6_35, ABIS, Abi, Call, abi_by_name, abi_of_data

from pvops_core.errors import UsageError

from .rig import DATA, Program

if TYPE_CHECKING:
    from .conftest import MakeHost

EVERY_ABI = pytest.mark.parametrize("abi", ABIS.values(), ids=list(ABIS))


def test_offsets_as_seen_in_running_guests() -> None:
    seed, middle, late = ABI_2_6_23.data, ABI_2_6_24.data, ABI_2_6_35.data
    assert (seed.hcall_status, seed.hcalls, seed.reserve_mem, seed.guestid, seed.tsc_khz) == (20, 84, 1108, 1112, 1116)
    assert (seed.noirq_start, seed.noirq_end) == (1120, 1124)
    assert (middle.tsc_khz, middle.pgdir, middle.kernel_address, middle.syscall_vec) == (1112, 1116, 1128, 1132)
    assert (late.irq_pending, late.hcall_status, late.hcalls, late.reserve_mem, late.tsc_khz) == (
        20,
        24,
        88,
        1368,
        1372,
    )


def test_calls_that_came_and_went() -> None:
    assert ABI_2_6_23.calls[12] is Call.BIND_DMA
    assert ABI_2_6_23.calls[13] is Call.SEND_DMA
    assert 17 not in ABI_2_6_23.calls
    assert ABI_2_6_24.calls[17] is Call.NOTIFY
    assert {12, 13, 18, 19}.isdisjoint(ABI_2_6_24.calls)
    assert ABI_2_6_35.calls[2] is Call.SHUTDOWN
    assert ABI_2_6_35.calls[18] is Call.LOAD_GDT_ENTRY
    assert ABI_2_6_35.calls[19] is Call.SEND_INTERRUPTS
    assert 3 not in ABI_2_6_35.calls


@pytest.mark.parametrize(
    ("abi", "registers"),
    [("2.6.23", ("edx", "ebx", "ecx")), ("2.6.24", ("edx", "ebx", "ecx")), ("2.6.35", ("ebx", "ecx", "edx"))],
)
def test_arguments_travel_in_these_registers(make_host: MakeHost, abi: str, registers: tuple[str, ...]) -> None:
    host = make_host(abi)
    program = Program()
    host.call_code(program, Call.LGUEST_INIT, DATA)
    program.load(eax=6, **dict(zip(registers, (0x55, 0x00611234, 0xC0008E00), strict=True))).int(0x1F).hang()
    host.program(program)
    assert host.ends(200_000)[0] == "timeout"
    gate = host.state.traps.gate(0x55)
    assert gate is not None
    assert gate.handler == 0xC0001234


@EVERY_ABI
def test_a_ring_entry_is_what_the_generation_lays_out(make_host: MakeHost, abi: Abi) -> None:
    host = make_host(abi.name).init()
    words = {
        "2.6.23": (6, 0x21, 0x00610010, 0xC0008E00),
        "2.6.24": (6, 0x00610010, 0xC0008E00, 0x21),
        "2.6.25": (6, 0x00610010, 0xC0008E00, 0x21),
        "2.6.30": (6, 0x21, 0x00610010, 0xC0008E00),
        "2.6.31": (6, 0x21, 0x00610010, 0xC0008E00, 0),
        "2.6.35": (6, 0x21, 0x00610010, 0xC0008E00, 0),
    }[abi.name]
    for index, word in enumerate(words):
        host.set(host.member("hcalls") + 4 * index, word)
    host.machine.memory.set_u8(host.member("hcall_status"), 0)
    host.call(Call.FLUSH_ASYNC)
    gate = host.state.traps.gate(0x21)
    assert gate is not None
    assert gate.handler == 0xC0000010
    assert host.machine.memory.u8(host.member("hcall_status")) == 0xFF


@EVERY_ABI
def test_a_kernels_own_data_shows_its_generation(abi: Abi) -> None:
    data = bytearray(2048)
    data[abi.data.hcall_status : abi.data.hcalls] = b"\xff" * 64
    if abi.data.syscall_vec is not None:
        data[abi.data.syscall_vec] = 0x80
    found = abi_of_data(bytes(data))
    assert found is not None
    assert found.data == abi.data  # 2.6.25 and 2.6.30 have 2.6.24's, and code tells them apart
    assert abi_of_data(bytes(2048)) is None
    assert abi_of_data(b"") is None


def test_an_unknown_generation_is_a_usage_error(make_host: MakeHost) -> None:
    with pytest.raises(UsageError, match=r"2\.6\.99"):
        abi_by_name("2.6.99")
    with pytest.raises(UsageError, match=r"abi=.4\.13."):
        make_host("4.13")


def test_too_many_arguments_are_a_usage_error(make_host: MakeHost) -> None:
    host = make_host("2.6.24").init()
    with pytest.raises(UsageError, match="3 arguments"):
        host.platform.hypercall(host.vcpu, 0, 1, 2, 3, 4)
    with pytest.raises(UsageError, match="LOAD_GDT_ENTRY"):
        host.platform.number(Call.LOAD_GDT_ENTRY)

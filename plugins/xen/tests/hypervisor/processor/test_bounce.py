"""Frames on the guest's stack, byte for byte, from real machine code."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.events.upcalls import make_upcall_pending
from pvops_xen.hypervisor.memory.walk import told
from pvops_xen.hypervisor.state import EntryPoint

if TYPE_CHECKING:
    from conftest import Bench

STOP64 = "48c7c0000000000fff"  # anything; execution ends at the second #UD
HANDLER = 0x108


def handler(bench: Bench) -> int:
    """A handler that ends the run: it makes a shutdown hypercall (crash) with its frame on the stack."""
    reason = bench.write(0x111, (0).to_bytes(4, "little"))
    if bench.word == 8:
        code = b"\xb8\x1d\x00\x00\x00\xbf\x02\x00\x00\x00\x48\xbe" + reason.to_bytes(8, "little") + b"\x0f\x05\xeb\xfe"
    else:
        code = b"\xb8\x1d\x00\x00\x00\xbb\x02\x00\x00\x00\xb9" + reason.to_bytes(4, "little") + b"\xcd\x82\xeb\xfe"
    return bench.write(HANDLER, code)


def stack(bench: Bench, words: int) -> list[int]:
    raw = bench.cpu.read_virtual(bench.cpu.rsp, words * bench.word)
    return list(struct.unpack(f"<{words}{'Q' if bench.word == 8 else 'I'}", raw))


def test_ud2_in_a_64_bit_kernel(bench64: Bench) -> None:
    bench64.set_trap(6, handler(bench64), flags=4)
    sp = bench64.cpu.rsp = bench64.va(0x120) + 0x7F8
    bench64.cpu.set("rcx", 0x1111)
    bench64.cpu.set("r11", 0x2222)
    bench64.platform.hv.memory.set_u8(bench64.platform.hv.domain.vcpus[0].info + 1, 0)
    assert bench64.run("0f0b").reason == "poweroff"
    assert bench64.cpu.rsp == (sp & ~15) - 7 * 8
    frame = stack(bench64, 7)
    assert frame[:4] == [0x1111, 0x2222, bench64.va(0x100), 0xE030]
    assert frame[4] & 0x3200 == 0x200
    assert frame[5:] == [sp, 0xE02B]
    assert bench64.platform.hv.memory.u8(bench64.platform.hv.domain.vcpus[0].info + 1) == 1


def test_a_fault_has_its_error_code_and_the_mask_rides_in_cs(bench64: Bench) -> None:
    bench64.set_trap(14, handler(bench64))
    assert bench64.run("488b0425" + "00004000").reason == "poweroff"  # mov rax, [0x400000]
    frame = stack(bench64, 8)
    assert frame[2:5] == [0, bench64.va(0x100), 0xE030 | 1 << 32]
    assert frame[5] & 0x200 == 0
    info = bench64.platform.hv.domain.vcpus[0].info
    assert bench64.platform.hv.memory.u64(info + 16) == 0x400000


def test_a_fault_in_a_pae_kernel(bench32: Bench) -> None:
    bench32.set_trap(14, handler(bench32))
    sp = bench32.cpu.rsp
    assert bench32.run("a100004000").reason == "poweroff"
    assert bench32.cpu.rsp == sp - 16
    frame = stack(bench32, 4)
    assert frame[:3] == [0, bench32.va(0x100), 0xE019 | 1 << 16]
    assert frame[3] & 0x3200 == 0


@pytest.mark.parametrize("where", [0, 0xFFFF_8000_0000_1000])
def test_a_stack_that_cannot_be_written_crashes(bench64: Bench, where: int) -> None:
    bench64.set_trap(6, handler(bench64))
    bench64.cpu.rsp = where
    stop = bench64.run("0f0b")
    assert stop.reason == "crash"
    assert "create_bounce_frame" in stop.detail


def test_a_missing_handler_crashes(bench: Bench) -> None:
    stop = bench.run("0f0b")
    assert stop.reason == "crash"
    assert stop.detail.startswith("Unhandled: vec 6, invalid_op[0000]")


def test_a_page_fault_without_a_handler_is_told_with_its_walk(bench64: Bench) -> None:
    bench64.cpu.set("rdi", 0xFFFF_EA00_0000_0028)
    assert bench64.run("488b07").detail.startswith("Unhandled: vec 14, page_fault[0000]")
    assert bench64.platform.messages[:3] == [
        "Unhandled: vec 14, page_fault[0000]",
        "Pagetable walk from ffffea0000000028:",
        " L4[0x1d4] = 0000000000000000 ffffffffffffffff",
    ]


def test_a_walk_is_told_to_its_page(bench: Bench) -> None:
    lines = list(told(bench.platform.hv, 0, bench.va(0x10)))
    assert [line.split("[")[0] for line in lines[1:]] == [f" L{n}" for n in range(4 if bench.word == 8 else 3, 0, -1)]
    entry, frame = (int(text, 16) for text in lines[-1].split("= ")[1].split())
    assert entry >> 12 & 0xFFFFFFFF == bench.mfn(0x10)
    assert frame == bench.platform.hv.pfn_of(bench.mfn(0x10))


def test_software_interrupts_need_the_tables_leave(bench: Bench) -> None:
    target = handler(bench)
    bench.set_trap(13, target)
    bench.set_trap(0x81, target, flags=0)
    assert bench.run("cd81").reason == "poweroff"
    words = stack(bench, 4)
    assert (words[2] if bench.word == 8 else words[0]) == 0x81 << 3 | 2
    assert (words[3] if bench.word == 8 else words[1]) == bench.va(0x100)


def test_an_upcall_comes_when_it_is_unmasked(bench64: Bench) -> None:
    hv = bench64.platform.hv
    state = hv.domain.vcpus[0]
    state.event = EntryPoint(0, handler(bench64), mask_events=True)
    make_upcall_pending(hv, 0)
    # xen_version delivers nothing while masked; then the mask is cleared by an iret to the next instruction.
    frame = bench64.words(
        0x77, 0x11, 0xCC, 0, bench64.va(0x100) + 0x20, 0xE030, 0x202, bench64.va(0x120) + 0x700, 0xE02B
    )
    bench64.cpu.rsp = bench64.write(0x121, frame)
    stop = bench64.run("b8170000000f05")
    assert stop.reason == "poweroff", stop
    assert stack(bench64, 7)[2] == bench64.va(0x100) + 0x20
    assert stack(bench64, 7)[:2] == [0xCC, 0x11]
    assert hv.memory.u8(state.info + 1) == 1


def test_iret_to_user_mode_without_a_user_table_crashes(bench64: Bench) -> None:
    frame = bench64.words(0, 0, 0, 0, 0x400000, 0x33, 0x202, 0x500000, 0x2B)
    bench64.cpu.rsp = bench64.write(0x121, frame)
    assert bench64.run("b8170000000f05").detail == "Guest switching to user mode with no user page tables"

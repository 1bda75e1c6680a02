"""Stores to read-only page tables and privileged instructions, executed by real code."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.memory.frames import FrameType

if TYPE_CHECKING:
    from conftest import Bench

SPARE = 0x300
TARGET = 0x310


def table_in_use(bench: Bench, entry: int) -> int:
    """A pinned L1 table with one entry, mapped read-only; gives its virtual address."""
    va = bench.write(SPARE, struct.pack("<Q", entry))
    assert bench.set_mapping(SPARE, writable=False) == 0
    assert bench.mmuext(0, bench.mfn(SPARE)) == 0
    assert bench.call(21, 0, 2) == 0  # vm_assist: writable page tables
    return va


def stored(bench: Bench) -> int:
    return bench.platform.hv.memory.u64(bench.mfn(SPARE) << 12) & ~(1 << 52)


ENDING = "0f0b"

CASES = [
    ("mov", "488937", lambda _old, new: new, {}),
    ("xchg", "488737", lambda _old, new: new, {"rsi": "old"}),
    ("lock cmpxchg equal", "f0480fb137", lambda _old, new: new, {}),
    ("and byte", "8027fd", lambda old, _new: old & ~2, {}),
    ("lock btr", "f0480fba3701", lambda old, _new: old & ~2, {}),
    ("lock btr register", "f0480fb30f", lambda old, _new: old & ~2, {}),
    ("lock or", "f0480937", lambda old, new: old | new, {}),
]


@pytest.mark.parametrize(("code", "expected", "registers"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_stores_to_a_table_are_carried_out(
    bench64: Bench, code: str, expected: object, registers: dict[str, str]
) -> None:
    old = bench64.mfn(TARGET) << 12 | 0x67
    new = bench64.mfn(TARGET) << 12 | 0x25
    va = table_in_use(bench64, old)
    adjusted = bench64.platform.hv.memory.u64(bench64.mfn(SPARE) << 12)
    cpu = bench64.cpu
    for name, value in (("rdi", va), ("rsi", new), ("rax", adjusted), ("rcx", 1)):
        cpu.set(name, value)
    before = bench64.platform.hv.frames.types[bench64.mfn(TARGET)]
    stop = bench64.run(code + ENDING)
    assert stop.detail.startswith("Unhandled: vec 6")
    want = expected(adjusted, new) | 0x104  # type: ignore[operator]
    assert stored(bench64) == want
    if registers:
        assert cpu.get("rsi") == adjusted
    after = bench64.platform.hv.frames.types[bench64.mfn(TARGET)]
    assert after == before - (0 if want & 2 else 1)
    assert bench64.platform.traps["emulated_pte_write"] == 1


def test_a_store_that_xen_would_refuse_is_the_guests_fault(bench64: Bench) -> None:
    va = table_in_use(bench64, 0)
    bench64.cpu.set("rdi", va)
    bench64.cpu.set("rsi", bench64.platform.hv.m2p | 0x67)
    stop = bench64.run("488937" + ENDING)
    assert stop.detail.startswith("Unhandled: vec 14, page_fault[0003]")
    assert stored(bench64) == 0


def test_without_the_assist_there_is_no_emulation(bench64: Bench) -> None:
    va = table_in_use(bench64, 0)
    bench64.call(21, 1, 2)
    bench64.cpu.set("rdi", va)
    assert bench64.run("488937" + ENDING).detail.startswith("Unhandled: vec 14")


def test_upper_tables_cannot_be_written(bench64: Bench) -> None:
    bench64.call(21, 0, 2)
    bench64.cpu.set("rdi", bench64.va(0x200))
    assert bench64.run("488937" + ENDING).detail.startswith("Unhandled: vec 14")


def test_a_pae_entry_written_in_halves(bench32: Bench) -> None:
    """An upper half that does not go with the lower takes the entry out until the lower half is written."""
    entry = bench32.mfn(TARGET) << 12 | 0x67
    va = table_in_use(bench32, entry)
    for name, value in (("edi", va), ("esi", entry), ("ecx", 1), ("eax", 0)):
        bench32.cpu.set(name, value)
    hv = bench32.platform.hv
    assert bench32.run("894f04" + ENDING).detail.startswith("Unhandled: vec 6")
    assert stored(bench32) == 1 << 32 | entry & ~1
    hv.domain.crashed = ""
    assert bench32.run("894704" + "8937" + ENDING).detail.startswith("Unhandled: vec 6")
    assert stored(bench32) == entry
    assert hv.frames.in_use_as(bench32.mfn(TARGET)) == FrameType.WRITABLE


def test_the_time_stamp_counter_is_the_virtual_clock(bench: Bench) -> None:
    bench.run("0f31" + ENDING)
    cpu = bench.cpu
    value = cpu.get("rax") & 0xFFFFFFFF | (cpu.get("rdx") & 0xFFFFFFFF) << 32
    assert 0 < value <= bench.machine.clock.ns


def test_cpuid_by_the_forced_emulation_prefix(bench: Bench) -> None:
    bench.cpu.set("rax", 0x40000000)
    bench.run("0f0b78656e0fa2" + ENDING)
    cpu = bench.cpu
    text = b"".join((cpu.get(name) & 0xFFFFFFFF).to_bytes(4, "little") for name in ("rbx", "rcx", "rdx"))
    assert text == b"XenVMMXenVMM"


def test_control_registers(bench64: Bench) -> None:
    bench64.run("0f20c0" + "4889c3" + "0f20d9" + ENDING)  # mov rax, cr0; mov rbx, rax; mov rcx, cr3
    assert bench64.cpu.get("rbx") & 0x80000001 == 0x80000001
    assert bench64.cpu.get("rcx") == bench64.platform.hv.domain.vcpus[0].guest_table << 12


@pytest.mark.parametrize("code", ["f4", "0f013f", "0f0117", "0f00d8"])
def test_what_xen_does_not_emulate_is_a_general_protection_fault(bench64: Bench, code: str) -> None:
    bench64.cpu.set("rdi", bench64.va(0x110))
    assert bench64.run(code).detail.startswith("Unhandled: vec 13")


def test_segment_bases_by_wrmsr(bench64: Bench) -> None:
    cpu = bench64.cpu
    for name, value in (("rcx", 0xC0000101), ("rax", 0x1234000), ("rdx", 0)):
        cpu.set(name, value)
    bench64.run("0f30" + ENDING)
    assert cpu.msr(0xC0000101) == 0x1234000
    assert bench64.platform.hv.domain.vcpus[0].gs_base_kernel == 0x1234000


def test_text_that_was_writable_is_translated_anew(bench: Bench) -> None:
    hv, counts = bench.platform.hv, bench.machine.counts
    hv.validator.text = {bench.mfn(TARGET): bench.va(TARGET)}
    dropped = counts["code_ranges_dropped"] + counts["code_flushes"]
    assert bench.set_mapping(SPARE, writable=False) == 0
    assert counts["code_ranges_dropped"] + counts["code_flushes"] == dropped
    assert bench.set_mapping(TARGET, writable=False) == 0
    assert counts["code_ranges_dropped"] + counts["code_flushes"] == dropped + 1
    assert not hv.validator.rewritten


def test_text_that_one_vcpu_pokes_is_translated_anew_by_the_others_in_their_turn(bench64: Bench) -> None:
    hv, address = bench64.platform.hv, bench64.va(TARGET)
    target, validator = bench64.mfn(TARGET), hv.validator
    entry, table, other = target << 12 | 0x63, 1, 2
    validator.text = {target: address}

    def poked(table: int, *, written_by_xen: bool = False) -> dict[int, bool]:
        validator.rewritten.clear()
        assert validator.take(entry, 1, 1, 0) == 0
        if written_by_xen:
            access.write(hv, bench64.cpu, address, b"\x90")
        validator.put_entry(entry, 1, table)
        return validator.rewritten

    assert poked(table) == {address: True}
    assert poked(other) == {address: False}  # which may be older
    assert poked(table, written_by_xen=True) == {address: False}
    validator.rewritten.clear()

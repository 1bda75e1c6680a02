"""32-bit code under a 64-bit kernel: its segments have limits, types and null selectors as on a 32-bit machine."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import MachineKind
from pvops_core.testing.assembly import assemble
from pvops_core.x86 import GP, SS
from tests.machine.conftest import CODE, DATA, KCS, KSS, STACK, USER_CODE, USER_STACK, USS, Rig
from tests.machine.exits.test_segmentlimits import (
    BIG,
    CODE_READABLE,
    DOWN,
    FIRST,
    LIMIT,
    PAGES,
    READ_ONLY,
    descriptor,
    put,
    ready,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CODE32 = FIRST | 3
SEGMENT = (FIRST + 8) | 3


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    rig = ready(make_rig(MachineKind.X86_64))
    put(rig, descriptor(0xFFFFF, CODE_READABLE, base=0, flags=BIG | PAGES))
    return rig


def run(
    rig: Rig, code: str, *, before: str = "", ss: int = USS, again: bool = False, **registers: int
) -> tuple[int, int | None] | None:
    """Run 32-bit code at level 3 after 64-bit code at level 0.

    ``again``: it is there already, and may have been translated. Gives vector and error code of the fault in its last
    instruction, or None if there is none.
    """
    *_, last = code.split(";")
    whole = assemble(code, 32)
    if not again:
        rig.code(whole + b"\x0f\x0b", USER_CODE)
        rig.code(assemble(before, 64) + b"\x48\xcf", CODE)
    rig.cpu.wake()
    rig.cpu.set_segments(0, KCS, KSS)
    for name, value in registers.items():
        rig.cpu.set(name, value)
    frame = (USER_CODE, CODE32, 2, USER_STACK, ss)
    rig.cpu.rsp = STACK - 8 * len(frame)
    rig.memory.write(rig.cpu.rsp, struct.pack("<5Q", *frame))
    rig.cpu.rip = CODE
    rig.platform.seen.clear()
    assert rig.run() == "fault"
    ((vector, error, address, rip),) = rig.platform.seen
    if vector == 6:
        return None
    assert (address, rip) == (None, USER_CODE + len(whole) - len(assemble(last, 32)))
    return vector, error


def test_flat_segments_are_not_looked_at(rig: Rig) -> None:
    assert run(rig, "mov eax, [esi]; mov [esi], eax; push eax", rsi=DATA) is None
    limits = rig.machine._slots[0].callbacks.limits
    assert limits is not None
    assert not limits._hooks


def test_nothing_is_made_for_64_bit_code(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64)
    rig.code("eb0090eb0090f4")
    assert rig.run() == "poweroff"
    assert rig.machine._slots[0].callbacks.limits is None


@pytest.mark.parametrize("place", ["kernel", "first block", "another block"])
@pytest.mark.parametrize("segment", ["ds", "es", "fs", "gs"])
def test_the_limit(rig: Rig, segment: str, place: str) -> None:
    put(rig, descriptor(LIMIT), 1)
    load = f"mov {segment}, ax; "
    before, begin = (load, "") if place == "kernel" else ("", load)
    begin += ".byte 0xeb, 0; nop; " if place == "another block" else ""
    override = f"{segment}:" if segment != "ds" else ""
    for offset, size, fits in ((0, "byte", True), (0x18, "byte", True), (0x19, "byte", False), (0x15, "dword", True),
                               (0x16, "dword", False)):  # fmt: skip
        register = {"byte": "bl", "dword": "ebx"}[size]
        for code in (f"mov {register}, {override}[{offset:#x}]", f"mov {override}[esi], {register}"):
            got = run(rig, begin + code, before=before, rax=SEGMENT, rsi=offset, rcx=0x12345678)
            assert got == (None if fits else (GP, 0)), (code, offset)
            assert rig.cpu.get("rcx") == 0x12345678


def test_a_kernels_load_between_two_runs_of_the_same_code(rig: Rig) -> None:
    """The code was translated while the segment was flat."""
    put(rig, descriptor(LIMIT), 1)
    code = "nop; .byte 0xeb, 0; mov ebx, es:[esi]"
    assert run(rig, code, before="mov es, ax", rax=USS, rsi=DATA) is None
    assert run(rig, code, rax=USS, rsi=DATA, again=True) is None
    assert run(rig, code, rax=USS, rsi=DATA, again=True) is None
    assert run(rig, code, before="mov es, ax", rax=SEGMENT, rsi=0x16, again=True) == (GP, 0)
    assert run(rig, code, before="mov es, ax", rax=USS, rsi=DATA, again=True) is None
    assert run(rig, code, before="mov es, ax", rax=SEGMENT, rsi=0x16, again=True) == (GP, 0)


@pytest.mark.parametrize("segment", ["ds", "es", "fs", "gs"])
@pytest.mark.parametrize("null", [0, 3])
def test_a_null_selector(rig: Rig, segment: str, null: int) -> None:
    override = f"{segment}:" if segment != "ds" else ""
    assert run(rig, f"mov ebx, {override}[esi]", before=f"mov {segment}, ax", rax=null, rsi=DATA) == (GP, 0)
    assert run(rig, f"mov {segment}, ax; mov ebx, {override}[esi]", rax=null, rsi=DATA) == (GP, 0)


def test_a_stack_segment_is_bounded_by_ss(rig: Rig) -> None:
    selector = put(rig, descriptor(0xFFF, DOWN, base=0, flags=BIG), 1) | 3
    assert run(rig, "push eax", ss=selector) is None
    selector = put(rig, descriptor(0xFF, base=0), 1) | 3
    assert run(rig, "push eax", ss=selector) == (SS, 0)


def test_read_only_data_and_data_in_the_code_segment(rig: Rig) -> None:
    put(rig, descriptor(0xFFFFF, READ_ONLY, base=0, flags=BIG | PAGES), 1)
    assert run(rig, "mov ebx, fs:[esi]", before="mov fs, ax", rax=SEGMENT, rsi=DATA) is None
    assert run(rig, "mov fs:[esi], ebx", before="mov fs, ax", rax=SEGMENT, rsi=DATA) == (GP, 0)
    assert run(rig, "mov ebx, cs:[esi]", rsi=DATA) is None
    assert run(rig, "mov cs:[esi], ebx", rsi=DATA) == (GP, 0)


def test_64_bit_code_does_not_look_at_them(rig: Rig) -> None:
    put(rig, descriptor(LIMIT), 1)
    before = "mov ds, ax; mov es, ax; mov rbx, [rsi]; mov [rsi], rbx"
    assert run(rig, "mov ebx, es:[0]", before=before, rax=SEGMENT, rsi=DATA) is None
    assert run(rig, "mov ebx, es:[0x20]", before=before, rax=SEGMENT, rsi=DATA) == (GP, 0)


def test_popa_over_a_missing_page_loads_nothing(rig: Rig) -> None:
    """The last page of the low 640 KiB, behind which nothing is mapped."""
    end = 0xA0000
    rig.code(assemble("mov esp, eax; popal", 32) + b"\x0f\x0b", USER_CODE)
    rig.code(b"\x48\xcf", CODE)
    for inside in (4, 17, 31):
        rig.cpu.wake()
        rig.cpu.set_segments(0, KCS, KSS)
        frame = (USER_CODE, CODE32, 2, USER_STACK, USS)
        rig.cpu.rsp = STACK - 8 * len(frame)
        rig.memory.write(rig.cpu.rsp, struct.pack("<5Q", *frame))
        rig.cpu.set("rax", end - inside)
        rig.cpu.set("rdi", 0x12345678)
        rig.cpu.rip = CODE
        rig.platform.seen.clear()
        assert rig.run() == "fault"
        assert rig.platform.seen == [(14, 4, end, USER_CODE + 2)]
        assert rig.cpu.get("rdi") == 0x12345678
        assert rig.cpu.rsp == end - inside

"""Accesses through segments that are not flat fault as in the manual; others are not looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.machine import MachineKind
from pvops_core.machine.cpu.segmentation.segments import allows
from pvops_core.testing.assembly import assemble
from pvops_core.x86 import GP, SS
from tests.machine.conftest import CODE, DATA, GDT, KSS, STACK, UCS, USER_CODE, USER_STACK, USS, Rig

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST = 0x48
LIMIT = 0x18
READ_ONLY, WRITABLE, DOWN, CODE_ONLY, CODE_READABLE = 0x10, 0x12, 0x16, 0x18, 0x1A
PRESENT = 0x80
BIG, PAGES = 1 << 54, 1 << 55


def descriptor(limit: int, kind: int = WRITABLE, *, base: int = DATA, level: int = 3, flags: int = BIG) -> int:
    low = limit & 0xFFFF | (base & 0xFFFFFF) << 16
    return low | (PRESENT | kind | level << 5) << 40 | (limit >> 16 & 0xF) << 48 | flags | (base >> 24) << 56


@pytest.fixture(params=[MachineKind.I386, MachineKind.PAE], ids=lambda kind: kind.value)
def rig(request: pytest.FixtureRequest, make_rig: Callable[..., Rig]) -> Rig:
    return ready(make_rig(request.param))


def ready(rig: Rig) -> Rig:
    rig.cpu.insn.lgdt(GDT, 0x7F)
    rig.platform.on_exception = lambda *_: rig.machine.stop("fault") or True  # type: ignore[func-returns-value]
    return rig


def put(rig: Rig, raw: int, index: int = 0) -> int:
    """Put a descriptor into the GDT; gives its selector."""
    rig.memory.set_u64(GDT + FIRST + 8 * index, raw)
    return FIRST + 8 * index


def run(rig: Rig, code: str, *, user: bool = False, cs: int = 0, **registers: int) -> tuple[int, int | None] | None:
    """Run code; gives vector and error code of the fault in its last instruction, None if it comes to its end."""
    *_, last = code.split(";")
    at = USER_CODE if user else CODE
    whole = assemble(code, 32)
    rig.code(whole + (b"\x0f\x0b" if user else b"\xf4"), at)
    rig.cpu.wake()
    rig.cpu.rip = CODE
    if user:
        rig.iret_to(USER_CODE, cs or UCS, USER_STACK, USS)
    elif cs:
        rig.cpu.set_segments(0, cs, KSS)
    for name, value in registers.items():
        rig.cpu.set(name, value)
    rig.platform.seen.clear()
    end = rig.run()
    if end == "poweroff" or rig.platform.seen[0][0] == 6:
        return None
    ((vector, error, address, rip),) = rig.platform.seen
    assert (address, rip) == (None, at + len(whole) - len(assemble(last, 32)))
    return vector, error


@pytest.mark.parametrize("user", [False, True], ids=["kernel", "user"])
@pytest.mark.parametrize("place", ["first block", "same block", "another block"])
@pytest.mark.parametrize("segment", ["fs", "gs", "es", "ds"])
def test_the_limit(rig: Rig, segment: str, place: str, *, user: bool) -> None:
    selector = put(rig, descriptor(LIMIT)) | (3 if user else 0)
    load = f"mov {segment}, ax; " + (".byte 0xeb, 0; nop; " if place == "another block" else "nop; ")
    if place == "first block" and not user:
        rig.cpu.load_segment(segment, selector)
        load = ""
    override = f"{segment}:" if segment != "ds" else ""
    for offset, size, fits in ((0, "byte", True), (0x18, "byte", True), (0x19, "byte", False), (0x15, "dword", True),
                               (0x16, "dword", False), (0x17, "word", True), (0x18, "word", False)):  # fmt: skip
        expected = None if fits else (GP, 0)
        register = {"byte": "bl", "word": "bx", "dword": "ebx"}[size]
        for code in (f"mov {register}, {override}[{offset:#x}]", f"mov {override}[esi], {register}"):
            got = run(rig, load + code, user=user, eax=selector, esi=offset, ecx=0x12345678)
            assert got == expected, (code, offset)
            assert rig.cpu.get("ecx") == 0x12345678


@pytest.mark.parametrize(
    ("bit", "fits"), [(0, True), (0xA0, True), (0xBF, True), (0xC0, False), (-1, False), (-32, False)]
)
def test_a_bit_string_reaches_where_its_register_says(rig: Rig, bit: int, fits: bool) -> None:  # noqa: FBT001
    """The access is to the word of 32 bits that has the bit: 24 bytes are whole words, and one is left."""
    selector = put(rig, descriptor(LIMIT))
    for name in ("bt", "bts", "btr", "btc"):
        got = run(rig, f"mov gs, ax; {name} gs:[esi], ebx", eax=selector, esi=0, ebx=bit & 0xFFFFFFFF)
        assert got == (None if fits else (GP, 0)), name
        assert run(rig, f"mov gs, ax; {name} dword ptr gs:[esi], 31", eax=selector, esi=0x15) is None


def test_nothing_of_a_refused_instruction_is_done(rig: Rig) -> None:
    selector = put(rig, descriptor(LIMIT))
    rig.memory.write(DATA, bytes(64))
    assert run(rig, "mov gs, ax; add gs:[esi], ecx", eax=selector, esi=0x16, ecx=5) == (GP, 0)
    assert rig.memory.read(DATA, 64) == bytes(64)
    assert run(rig, "mov gs, ax; push gs:[esi]", eax=selector, esi=0x16, esp=STACK) == (GP, 0)
    assert rig.cpu.get("esp") == STACK


def test_a_canary_costs_nothing(rig: Rig) -> None:
    """What old kernels do: a segment of 25 bytes that is always loaded, and read at 0x14."""
    rig.cpu.load_segment("gs", put(rig, descriptor(LIMIT)))
    rig.memory.set_u32(DATA + 0x14, 0xCA9A27)
    assert run(rig, "mov eax, gs:[0x14]; mov [ebx], eax; mov edx, [ebx]; push eax", ebx=DATA + 64) is None
    assert rig.cpu.get("edx") == 0xCA9A27
    limits = rig.machine._slots[0].callbacks.limits
    assert limits is not None
    assert not limits._hooks


@pytest.mark.parametrize("segment", ["fs", "gs", "es", "ds"])
@pytest.mark.parametrize("null", [0, 1, 3])
def test_a_null_selector(rig: Rig, segment: str, null: int) -> None:
    override = f"{segment}:" if segment != "ds" else ""
    assert run(rig, f"mov {segment}, ax; mov ebx, {override}[{DATA:#x}]", eax=null) == (GP, 0)
    assert run(rig, f"mov {segment}, ax; lea ebx, {override}[{DATA:#x}]", eax=null) is None


@pytest.mark.parametrize(("flags", "last"), [(BIG, 0xFFFFFFFF), (0, 0xFFFF)])
def test_expand_down(rig: Rig, flags: int, last: int) -> None:
    selector = put(rig, descriptor(0xFFF, DOWN, base=0, flags=flags))
    for offset, fits in ((0, False), (0xFFC, False), (0xFFF, False), (0x1000, True), (0x2000, True), (last - 3, True),
                         (last - 2, False), (0x10000, last > 0xFFFF)):  # fmt: skip
        if last - 3 <= offset <= last and last > 0xFFFF:
            continue  # nothing is mapped there
        assert run(rig, "mov gs, ax; mov ebx, gs:[esi]", eax=selector, esi=offset) == (None if fits else (GP, 0))


@pytest.mark.parametrize(("kind", "reads", "writes"), [
    (READ_ONLY, True, False), (WRITABLE, True, True), (CODE_ONLY, False, False), (CODE_READABLE, True, False),
])  # fmt: skip
def test_the_type(rig: Rig, kind: Any, reads: Any, writes: Any) -> None:  # noqa: ANN401 - a fixture has the name too
    raw = descriptor(0xFFFFF, kind, base=0, flags=BIG | PAGES)
    assert allows(0xFFFFFFFF, raw >> 32, DATA, 4, write=False) is reads
    assert allows(0xFFFFFFFF, raw >> 32, DATA, 4, write=True) is writes
    if kind == CODE_ONLY:
        return  # such a segment cannot be loaded
    selector = put(rig, raw)
    for code, fine in (("mov ebx, fs:[esi]", reads), ("mov fs:[esi], ebx", writes), ("inc byte ptr fs:[esi]", writes)):
        assert run(rig, f"mov fs, ax; {code}", eax=selector, esi=DATA) == (None if fine else (GP, 0))


_STORES = [
    *("mov {}, ebx", "mov {}, bl", "mov dword ptr {}, 5", "inc dword ptr {}", "add {}, ebx", "xchg {}, ebx"),
    *(
        "pop dword ptr {}",
        "lock cmpxchg {}, ebx",
        "cmpxchg8b {}",
        "bts {}, eax",
        "sete byte ptr {}",
        "ror dword ptr {}, 2",
    ),
    *(
        "rcl dword ptr {}, 1",
        "shl dword ptr {}, 2",
        "fst dword ptr {}",
        "fistp dword ptr {}",
        "fnstcw {}",
        "stmxcsr {}",
    ),
    *("movnti {}, ebx", "movups {}, xmm0", "movq {}, xmm0", "pextrw {}, xmm0, 1", "mov {}, ds", "sgdt {}"),
]
_LOADS = [
    *("mov ebx, {}", "cmp dword ptr {}, 5", "push dword ptr {}", "add ebx, {}", "bt {}, eax", "movzx ebx, byte ptr {}"),
    *("movups xmm0, {}", "fld dword ptr {}", "fldcw {}", "mul dword ptr {}"),
]


@pytest.mark.parametrize("user", [False, True], ids=["kernel", "user"])
@pytest.mark.parametrize("kind", [CODE_READABLE, CODE_ONLY])
def test_data_in_a_flat_code_segment(rig: Rig, kind: int, *, user: bool) -> None:
    """It is never written, and read only where its type lets it be: Intel SDM volume 3, 3.4.5.1."""
    raw = descriptor(0xFFFFF, kind, base=0, level=3 if user else 0, flags=BIG | PAGES)
    selector = put(rig, raw) | (3 if user else 0)
    rig.memory.write(DATA, bytes(range(1, 65)))
    for place in (f"cs:[{DATA:#x}]", "cs:[esi]", "cs:[esi + 4 * eax]", "cs:[ebp]"):
        for code in (*_STORES, *_LOADS):
            fine = code in _LOADS and kind == CODE_READABLE
            text = code.format(place)
            got = run(rig, text, user=user, cs=selector, eax=0, ebx=3, esi=DATA, ebp=DATA)
            assert got == (None if fine else (GP, 0)), text
            assert rig.memory.read(DATA, 64) == bytes(range(1, 65))


def test_reads_through_a_flat_code_segment_cost_nothing(rig: Rig) -> None:
    rig.memory.set_u32(DATA + 4, 0xCA9A27)
    padding = ".byte 0x2e; nop; .byte 0x2e, 0x0f, 0x1f, 6; lea ebx, cs:[esi]"
    assert run(rig, f"mov edx, cs:[esi + 4]; {padding}", esi=DATA) is None
    assert rig.cpu.get("edx") == 0xCA9A27
    limits = rig.machine._slots[0].callbacks.limits
    assert limits is not None
    assert not limits._hooks


@pytest.mark.parametrize("code", [
    "push eax", "pushfd", "push 5", ".byte 0xe8, 0, 0, 0, 0", "call ebx", "mov [ebp - 4], eax", "mov eax, [esp - 4]",
    "pushad", "push dword ptr ds:[0x30000]", "enter 8, 0",
])  # fmt: skip
def test_a_stack_that_ends(rig: Rig, code: str) -> None:
    selector = put(rig, descriptor(0xFFF, DOWN, base=0, level=0))
    start = f"mov ss, ax; mov esp, 0x{0x1000 + 3:x}; mov ebp, 0x1003; {code}"
    assert run(rig, start, eax=selector, ebx=CODE) == (SS, 0)
    assert rig.cpu.get("esp") == 0x1003


@pytest.mark.parametrize("code", ["pop eax", "popfd", "ret", "leave", "mov eax, [ebp]", "add [esp], eax", "popad"])
def test_a_stack_that_begins_too_high(rig: Rig, code: str) -> None:
    selector = put(rig, descriptor(0x21, base=0, level=0, flags=BIG))
    assert run(rig, f"mov ss, ax; mov esp, 0x20; mov ebp, 0x20; {code}", eax=selector) == (SS, 0)
    assert run(rig, "mov ss, ax; mov esp, 0x10; pop ecx", eax=selector) is None


@pytest.mark.parametrize(("code", "esi", "edi"), [
    ("rep movsb", 0x10, 0x2000), ("rep lodsb", 0x10, 0), ("lodsd", 0x16, 0), ("xlatb", 0, 0),
])  # fmt: skip
def test_strings_and_tables_by_a_prefix(rig: Rig, code: str, esi: int, edi: int) -> None:
    selector = put(rig, descriptor(LIMIT))
    text = ".byte 0x65, " + ", ".join(map(hex, assemble(code, 32)))
    rig.cpu.load_segment("es", 0x1B)
    got = run(rig, f"mov gs, ax; mov eax, 0xff; {text}", eax=selector, esi=esi, edi=DATA + edi, ecx=20, ebx=0)
    assert got == (GP, 0)
    if code.startswith("rep"):
        assert (rig.cpu.get("ecx"), rig.cpu.get("esi")) == (20 - 9, 0x19)


def test_the_destination_of_strings_is_es(rig: Rig) -> None:
    selector = put(rig, descriptor(LIMIT))
    assert run(rig, "mov es, ax; cld; rep stosb", eax=selector, edi=0x10, ecx=20) == (GP, 0)
    assert (rig.cpu.get("ecx"), rig.cpu.get("edi")) == (11, 0x19)


def test_code_translated_under_a_wider_limit_is_checked_by_the_narrower(rig: Rig) -> None:
    wide, narrow = put(rig, descriptor(0xFFF)), put(rig, descriptor(0x7F), 1)
    stub = CODE + 0x100
    rig.code(assemble("mov ebx, gs:[0x100]; ret", 32), stub)
    for first in ("flat", "wide"):
        selectors = (0x1B if first == "flat" else wide, wide, narrow)
        code = "".join(f"mov eax, {each}; mov gs, ax; call ecx; inc edx; " for each in selectors)
        rig.cpu.wake()
        rig.platform.seen.clear()
        rig.cpu.rip = CODE
        rig.code(assemble(code + "hlt", 32))
        rig.cpu.set("ecx", stub)
        rig.cpu.set("edx", 0)
        assert rig.run() == "fault"
        assert rig.platform.seen == [(GP, 0, None, stub)]
        assert rig.cpu.get("edx") == 2


def test_single_steps_see_loads_too(rig: Rig) -> None:
    selector = put(rig, descriptor(LIMIT))
    end = rig.code(assemble("mov gs, ax; inc ebx; mov ebx, gs:[0x100]; jmp eax", 32), CODE)
    rig.cpu.set("eax", selector)
    rig.cpu.rip = CODE
    for _ in range(2):
        rig.machine.step(rig.cpu)
    assert rig.run(1_000) == "fault"
    assert rig.platform.seen == [(GP, 0, None, end - 9)]
    rig.platform.seen.clear()
    rig.code("ebfe")
    rig.cpu.rip = CODE
    assert rig.run(1_000) == "timeout"


def test_64_bit_machines_have_no_limits(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64)
    assert rig.machine._slots[0].callbacks.limits is None


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([MachineKind.I386, MachineKind.PAE]),
    st.integers(0, 0x40),
    st.sampled_from([WRITABLE, DOWN, READ_ONLY]),
    st.integers(0, 0x48),
    st.sampled_from(["bl", "bx", "ebx"]),
    st.sampled_from([(False, False), (False, True), (True, False)]),
)
def test_any_limit(
    rigs: Callable[..., Rig],
    kind: MachineKind,
    limit: int,
    type_: int,
    offset: int,
    register: str,
    mode: tuple[bool, bool],
) -> None:
    write, constant = mode
    rig = ready(rigs(kind))
    raw = descriptor(limit, type_)
    place = f"gs:[{offset:#x}]" if constant else "gs:[esi]"
    code = f"mov {place}, {register}" if write else f"mov {register}, {place}"
    got = run(rig, f"mov gs, ax; {code}", eax=put(rig, raw), esi=offset)
    size = {"bl": 1, "bx": 2, "ebx": 4}[register]
    assert got == (None if allows(limit, raw >> 32, offset, size, write=write) else (GP, 0))
    rig.machine.close()

"""An instruction that faults leaves nothing of itself behind, and a repeated one exactly what it has done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import MachineKind
from pvops_core.testing.assembly import assemble
from tests.machine.conftest import CODE, DATA, HANDLERS, KCS, KSS, STACK, USER_CODE, P, Rig, U, W

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE, BEHIND, FRAME = 0x500000, 0x501000, 0x200000
SECOND = {"missing": 0, "read-only": FRAME + 0x1000 | P | U, "supervisor": FRAME + 0x1000 | P | W}


@pytest.fixture(
    params=[(kind, second) for kind in MachineKind for second in SECOND], ids=lambda p: f"{p[0].value}-{p[1]}"
)
def two(request: pytest.FixtureRequest, make_rig: Callable[..., Rig]) -> tuple[Rig, str]:
    """Level 3, two pages of data, the second one with something wrong."""
    kind, second = request.param
    rig = make_rig(kind)
    rig.cpu.cr4 |= 0x200  # OSFXSR
    rig.gate(14, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.map(PAGE, FRAME, P | W | U)
    rig.map(BEHIND, FRAME + 0x1000, SECOND[second])
    rig.memory.write(FRAME, bytes(range(256)) * 32)
    return rig, second


def run(rig: Rig, code: str, **registers: int) -> tuple[int, bytes]:
    """Run the last of the instructions at level 3 to its fault; gives what is in the pages."""
    *_, last = code.split(";")
    whole = assemble(code, rig.kind.bits, USER_CODE)
    result = run_raw(rig, code, **registers)
    ((_, _, address, rip),) = rig.platform.seen
    assert rip == USER_CODE + len(whole) - len(assemble(last, rig.kind.bits))
    assert address is not None
    return result


def run_raw(rig: Rig, code: str, **registers: int) -> tuple[int, bytes]:
    """The same, of instructions that a disassembly by semicolons does not part."""
    rig.code(assemble(code, rig.kind.bits, USER_CODE) + b"\xf4", USER_CODE)
    rig.user()
    rig.cpu.set_segments(0, KCS, KSS)
    rig.cpu.rip = CODE
    rig.cpu.wake()
    rig.platform.seen.clear()
    for name, value in registers.items():
        rig.cpu.set(name, value)
    assert rig.run() == "poweroff"
    ((vector, error, _, _),) = rig.platform.seen
    assert vector == 14
    return error or 0, rig.memory.read(FRAME, 0x2000)


def code_of(second: str, *, write: bool) -> int:
    return 4 | (2 if write else 0) | (second != "missing")


BEFORE = bytes(range(256)) * 32


@pytest.mark.parametrize(("store", "size"), [
    ("mov [esi], eax", 4), ("mov [esi], ax", 2), ("mov dword ptr [esi], 5", 4), ("add [esi], eax", 4),
    ("xchg [esi], eax", 4), ("lock xadd [esi], eax", 4), ("bts dword ptr [esi], 3", 4), ("cmpxchg [esi], ebx", 4),
    ("fst qword ptr [esi]", 8), ("movq [esi], mm0", 8), ("movd [esi], xmm1", 4), ("cmpxchg8b [esi]", 8),
])  # fmt: skip
def test_nothing_is_stored_of_what_lies_on_two_pages(two: tuple[Rig, str], store: str, size: int) -> None:
    rig, second = two
    if second == "supervisor" and not store.startswith("mov ["):
        return
    for before in range(1, size):
        error, after = run(rig, store, esi=BEHIND - before, eax=0x55AA55AA, ebx=0x11223344)
        assert after == BEFORE
        assert error == code_of(second, write=True)
        assert rig.cpu.cr2 == BEHIND
        assert rig.cpu.get("eax") == 0x55AA55AA


@pytest.mark.parametrize(
    "change", ["add [esi], eax", "xchg [esi], eax", "lock inc dword ptr [esi]", "not word ptr [esi]"]
)
@pytest.mark.parametrize("first", [0, P | U])
def test_what_is_read_to_be_changed_has_to_be_writable_from_its_first_byte_on(
    two: tuple[Rig, str], change: str, first: int
) -> None:
    rig, _ = two
    rig.map(PAGE, FRAME if first else 0, first)
    error, after = run(rig, change, esi=BEHIND - 1, eax=1)
    assert (error, rig.cpu.cr2, after) == (6 | bool(first), BEHIND - 1, BEFORE)


@pytest.mark.parametrize("push", ["push eax", "push 5", "pushfd", "call eax", "push dword ptr [esi]", "enter 8, 0"])
def test_a_push_that_faults_moves_no_pointer(two: tuple[Rig, str], push: str) -> None:
    rig, second = two
    if rig.long:
        push = push.replace("eax", "rax").replace("pushfd", "pushfq").replace("dword ptr [esi]", "qword ptr [rsi]")
    for inside in range(1, rig.size):
        stack = BEHIND - inside + rig.size
        code = f"mov {'rsp' if rig.long else 'esp'}, {stack:#x}; {push}"
        error, after = run(rig, code, eax=USER_CODE, esi=STACK - 64, ebp=0x1234)
        assert after == BEFORE
        assert error == code_of(second, write=True)
        assert rig.frame(count=5 + rig.long)[4] == stack
        assert rig.cpu.get("ebp") == 0x1234


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("move", ["rep movs", "rep stos", "rep lods", "repe cmps", "repe scas"])
def test_a_repeated_instruction_has_done_what_its_registers_say(
    two: tuple[Rig, str], move: str, size: int, *, down: bool
) -> None:
    rig, second = two
    writes = move in {"rep movs", "rep stos"}
    if second == "read-only" and not writes:
        return
    letter = {1: "b", 2: "w", 4: "d"}[size]
    # Downwards the first page is the bad one: the two change places.
    bad, good = (PAGE, BEHIND) if down else (BEHIND, PAGE)
    rig.map(good, FRAME, P | W | U)
    rig.map(bad, FRAME + 0x1000, SECOND[second])
    rig.memory.write(FRAME, b"\x77" * 0x2000)
    step = -size if down else size
    done = 3
    target = bad + 0x1000 - size + size * done if down else bad - size * done
    source = good + 0x800
    if move == "rep lods":
        source, target = target, source
    code = f"{'std' if down else 'cld'}; {move}{letter}"
    error, after = run(rig, code, ecx=10, esi=source, edi=target, eax=0x77777777)
    assert error == code_of(second, write=writes)
    assert rig.cpu.cr2 == (bad + 0x1000 - size if down else bad)
    assert rig.cpu.get("ecx") == 10 - done
    moved = step * done
    if move in {"rep movs", "rep lods", "repe cmps"}:
        assert rig.cpu.get("esi") == source + moved
    if move != "rep lods":
        assert rig.cpu.get("edi") == target + moved
    assert after == b"\x77" * 0x2000


def test_a_store_is_seen_up_to_where_a_repeated_one_faults(two: tuple[Rig, str]) -> None:
    rig, _ = two
    _, after = run(rig, "cld; rep stosd", ecx=10, edi=BEHIND - 10, eax=0x01020304)
    assert rig.cpu.get("ecx") == 8
    assert rig.cpu.get("edi") == BEHIND - 2
    assert after == BEFORE[:0xFF6] + bytes([4, 3, 2, 1] * 2) + BEFORE[0xFFE:]


WIDE_STORES = [
    ("fnsave [esi]", 108), ("fnstenv [esi]", 28), ("fstp tbyte ptr [esi]", 10), ("fbstp [esi]", 10),
    ("maskmovq mm0, mm1", 8), ("maskmovdqu xmm0, xmm1", 16), ("sidt [esi]", 6), ("fnstenv [esi+eax*4-0x20]", 28),
]  # fmt: skip


@pytest.mark.parametrize(("store", "size"), WIDE_STORES)
def test_nothing_is_stored_of_what_the_engine_stores_in_pieces(two: tuple[Rig, str], store: str, size: int) -> None:
    rig, second = two
    if rig.long:
        return
    setup = "fninit; pcmpeqb mm1, mm1; pcmpeqb xmm1, xmm1" if store.startswith("maskmov") else "fninit"
    for before in {1, 2, size // 2, size - 1}:
        error, after = run(rig, f"{setup}; {store}", esi=BEHIND - before, edi=BEHIND - before, eax=8, ecx=0x12345678)
        assert after == BEFORE
        assert (error, rig.cpu.cr2) == (code_of(second, write=True), BEHIND)
        assert (rig.cpu.get("eax"), rig.cpu.get("ecx")) == (8, 0x12345678)


@pytest.mark.parametrize("user", [True, False], ids=["level 3", "level 0"])
def test_a_place_is_computed_from_what_registers_hold_each_time(make_rig: Callable[..., Rig], *, user: bool) -> None:
    """A loop of stores that comes nearer to the page's end; the last one is refused."""
    rig = make_rig(MachineKind.PAE)
    rig.gate(14, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.map(PAGE, FRAME, P | W | U)
    rig.map(BEHIND, 0, 0)
    rig.memory.write(FRAME, BEFORE)
    at = USER_CODE if user else CODE + 0x100
    rig.code(assemble("again: fnstenv [esi+edi*2+8]; inc edi; inc edi; jmp again", 32), at)
    if user:
        rig.user()
        rig.cpu.set_segments(0, KCS, KSS)
    rig.cpu.rip = CODE if user else at
    rig.cpu.set("esi", BEHIND - 104)
    rig.cpu.set("edi", 0)
    assert rig.run() == "poweroff"
    assert rig.platform.seen[0][:3] == (14, 6 if user else 2, BEHIND)
    assert rig.cpu.get("edi") == 36  # 8 + 72 + 28 are more than 104
    after = rig.memory.read(FRAME, 0x2000)
    assert (after[: 0x1000 - 96], after[0x1000:]) == (BEFORE[: 0x1000 - 96], BEFORE[0x1000:])
    assert after[0x1000 - 28 :] != BEFORE[0x1000 - 28 :]


def test_some_of_the_registers_are_not_loaded(make_rig: Callable[..., Rig]) -> None:
    for kind in (MachineKind.I386, MachineKind.PAE):
        rig = make_rig(kind)
        rig.cpu.cr4 |= 0x200
        rig.gate(14, HANDLERS)
        rig.code("f4", HANDLERS)
        rig.map(PAGE, FRAME, P | W | U)
        for load in ("fxrstor [esi]", "frstor [esi]"):
            rig.map(BEHIND, 0, 0)
            rig.memory.write(FRAME, bytes(0x1FF0) + b"\x55" * 16)
            before = 0x60 if load == "fxrstor [esi]" else 0x40
            run(rig, f"fninit; fldpi; pcmpeqb xmm0, xmm0; {load}", esi=BEHIND - before)
            rig.map(BEHIND, FRAME + 0x1000, P | W | U)
            rig.code(assemble(f"movups [{PAGE + 0x100}], xmm0; fnstenv [{PAGE + 0x200}]; hlt", kind.bits), CODE + 0x200)
            rig.cpu.set_segments(0, KCS, KSS)
            rig.cpu.rip = CODE + 0x200
            rig.cpu.wake()
            assert rig.run() == "poweroff"
            assert rig.memory.read(FRAME + 0x100, 16) == b"\xff" * 16, load
            assert rig.memory.read(FRAME + 0x200, 6)[4:6] == b"\x00\x38", load  # one register on the stack


@pytest.mark.parametrize("image", ["fxsave [esi]", "fxrstor [esi]"])
def test_an_image_that_is_not_aligned_is_a_general_protection(make_rig: Callable[..., Rig], image: str) -> None:
    rig = make_rig(MachineKind.PAE)
    rig.cpu.cr4 |= 0x200
    rig.gate(13, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.code(assemble(f"mov esi, {DATA + 8}; {image}; hlt", 32))
    assert rig.run() == "poweroff"
    assert rig.platform.seen[0][:2] == (13, 0)


def test_a_unit_that_is_off_comes_before_the_page(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.PAE)
    rig.cpu.cr4 |= 0x200
    rig.cpu.cr0 |= 8  # TS
    rig.gate(7, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.code(assemble(f"mov esi, {BEHIND - 16}; fxsave [esi]; hlt", 32))
    assert rig.run() == "poweroff"
    assert rig.platform.seen[0][0] == 7


@pytest.mark.parametrize("size", [2, 4])
def test_words_of_a_far_call_and_of_enter_are_pushed_together(two: tuple[Rig, str], size: int) -> None:
    rig, second = two
    if rig.long:
        return
    rig.map(BEHIND, FRAME, P | W | U)
    rig.map(PAGE, FRAME + 0x1000, SECOND[second])
    short = ".byte 0x66; " if size == 2 else ""
    for push in (".byte 0xff, 0x1e", "enter 0, 2"):
        place = STACK - 64
        rig.memory.write(place, (0x1000).to_bytes(size, "little") + (0x23).to_bytes(2, "little"))
        for above in range(1, 2 * size):
            code = f"mov esp, {BEHIND + above:#x}; jmp there; there: {short}{push}"
            error, after = run_raw(rig, code, esi=place, ebp=STACK - 128)
            assert after == BEFORE, (push, above)
            assert error == code_of(second, write=True)
            assert rig.frame(count=5)[4] == BEHIND + above


@pytest.mark.parametrize("kind", [MachineKind.I386, MachineKind.PAE])
@pytest.mark.parametrize("input_", ["rep insb", "rep insd", "jmp there; there: insd"])
def test_input_from_a_port_that_is_refused_stores_nothing(
    make_rig: Callable[..., Rig], kind: MachineKind, input_: str
) -> None:
    rig = make_rig(kind)
    rig.gate(13, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.map(PAGE, FRAME, P | W | U)
    rig.memory.write(FRAME, BEFORE)
    rig.code(assemble(f"cld; {input_}; hlt", kind.bits, USER_CODE), USER_CODE)
    rig.user()
    rig.cpu.set_segments(0, KCS, KSS)
    rig.cpu.rip = CODE
    for name, value in {"edi": PAGE + 9, "ecx": 3, "edx": 0x80}.items():
        rig.cpu.set(name, value)
    assert rig.run() == "poweroff"
    assert rig.platform.seen[0][:2] == (13, 0)
    assert (rig.cpu.get("ecx"), rig.cpu.get("edi"), rig.memory.read(FRAME, 0x2000)) == (3, PAGE + 9, BEFORE)


NAMES = ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi")


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("place", ["first block", "another block"])
def test_popa_that_faults_loads_no_register(two: tuple[Rig, str], size: int, place: str) -> None:
    rig, second = two
    if rig.long or second == "read-only":
        return
    popa = "popal" if size == 4 else "popaw"
    before = {name: 0x11111111 * (1 + index) for index, name in enumerate(NAMES)}
    for inside in range(1, 8 * size):
        stack = BEHIND - inside
        lead = f"mov esp, {stack:#x}; " + (".byte 0xeb, 0; " if place == "another block" else "")
        error, after = run(rig, lead + popa, **before)
        assert (error, rig.cpu.cr2, after) == (code_of(second, write=False), BEHIND, BEFORE)
        assert {name: rig.cpu.get(name) for name in NAMES} == before
        assert rig.frame(count=5)[4] == stack


@pytest.mark.parametrize("size", [2, 4])
def test_pusha_that_faults_stores_nothing(two: tuple[Rig, str], size: int) -> None:
    rig, second = two
    if rig.long:
        return
    # The stack grows downwards: the first page is the bad one.
    rig.map(BEHIND, FRAME, P | W | U)
    rig.map(PAGE, FRAME + 0x1000, SECOND[second])
    for above in range(8 * size):
        stack = BEHIND + above
        error, after = run(rig, f"mov esp, {stack:#x}; {'pushal' if size == 4 else 'pushaw'}")
        assert (error, after) == (code_of(second, write=True), BEFORE)
        assert rig.cpu.cr2 == BEHIND - (size - above % size)
        assert rig.frame(count=5)[4] == stack


@pytest.mark.parametrize("inside", range(-40, 41, 7))
def test_pusha_and_popa_over_two_sound_pages(make_rig: Callable[..., Rig], inside: int) -> None:
    rig = make_rig(MachineKind.PAE)
    for at in (0, 0x1000):
        rig.map(PAGE + at, FRAME + at, P | W | U)
    before = {name: 0x11111111 * (1 + index) for index, name in enumerate(NAMES)}
    clear = "; ".join(f"xor {name}, {name}" for name in NAMES)
    rig.code(assemble(f"mov esp, {BEHIND + inside:#x}; pushal; {clear}; popal; hlt", 32))
    for name, value in before.items():
        rig.cpu.set(name, value)
    assert rig.run() == "poweroff"
    assert {name: rig.cpu.get(name) for name in NAMES} == before
    assert rig.cpu.rsp == BEHIND + inside


def test_steps_are_of_one_instruction_each(make_rig: Callable[..., Rig]) -> None:
    for kind in MachineKind:
        rig = make_rig(kind)
        rig.cpu.cr4 |= 0x200
        code = "jmp a; a: mov ecx, 3; l: fnstenv [esi]; inc eax; fldenv [esi]; inc eax; dec ecx; jnz l"
        end = rig.code(assemble(code, kind.bits))
        rig.cpu.set("esi", DATA)
        rig.cpu.set("eax", 0)
        steps = 0
        while rig.cpu.rip != end:
            before = rig.cpu.rip
            rig.machine.step(rig.cpu)
            assert rig.cpu.rip != before
            steps += 1
        assert (steps, rig.cpu.get("eax")) == (2 + 3 * 6, 6)

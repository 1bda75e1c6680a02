"""Code that runs off its page into one that it may not fetch from faults there, after all of it has run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import MachineKind
from pvops_core.testing.assembly import assemble
from tests.machine.conftest import DATA, HANDLERS, NX, P, Rig, U, W

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST, BEHIND, FRAME = 0x400000, 0x401000, 0x200000
BAD_PAGES = {"missing": 0, "supervisor": FRAME + 0x1000 | P | W, "nx": FRAME + 0x1000 | P | W | U | NX}
KINDS = [
    (kind, level, page)
    for kind in MachineKind
    for level in (0, 3)
    for page in BAD_PAGES
    if not (page == "nx" and kind is MachineKind.I386) and not (page == "supervisor" and level == 0)
]


@pytest.fixture(params=KINDS, ids=lambda each: f"{each[0].value}-{each[1]}-{each[2]}")
def edge(request: pytest.FixtureRequest, make_rig: Callable[..., Rig]) -> Edge:
    return Edge(make_rig, *request.param)


class Edge:
    """A page of code with one behind it that is not to be executed."""

    def __init__(self, make_rig: Callable[..., Rig], kind: MachineKind, level: int, page: str, **options: int) -> None:
        self.rig = rig = make_rig(kind, **options)
        self.level, self.page = level, page
        self.error = (0 if page == "missing" else 1) | (4 if level else 0) | (0 if kind is MachineKind.I386 else 16)
        rig.gate(14, HANDLERS)
        rig.code("f4", HANDLERS)
        rig.map(FIRST, FRAME, P | W | U)
        rig.map(BEHIND, 0, BAD_PAGES[page])

    def put(self, code: bytes, *, across: int = 0) -> int:
        """Put code at the page's end, so many bytes of it beyond; gives where it begins."""
        at = BEHIND - len(code) + across
        self.rig.memory.write(FRAME + (at - FIRST), code)
        return at

    def start(self, at: int) -> None:
        if self.level:
            self.rig.user(at)
        else:
            self.rig.cpu.rip = at
        self.rig.cpu.set("ecx", 0)
        self.rig.cpu.set("edx", 0x1234)

    def run(self, at: int) -> list[tuple[int, int | None, int | None, int]]:
        self.start(at)
        assert self.rig.run() == "poweroff"
        return self.rig.platform.seen

    def fault(self, rip: int, address: int = BEHIND) -> list[tuple[int, int | None, int | None, int]]:
        return [(14, self.error, address, rip)]


def text(rig: Rig, code: str) -> bytes:
    return assemble(code, rig.kind.bits)


@pytest.mark.parametrize("length", [0, 1, 11, 12, 13, 14, 15, 16, 17, 40, 4000])
def test_all_of_the_code_before_has_run(edge: Edge, length: int) -> None:
    store = text(edge.rig, f"mov [{DATA:#x}], edx")
    at = edge.put(store + b"\x90" * length + text(edge.rig, "inc ecx"))
    assert edge.run(at) == edge.fault(BEHIND)
    assert edge.rig.cpu.get("ecx") == 1
    assert edge.rig.memory.u32(DATA) == 0x1234


@pytest.mark.parametrize("across", range(1, 7))
def test_an_instruction_across_the_end_faults_at_itself_with_the_page_that_is_missing(edge: Edge, across: int) -> None:
    last = text(edge.rig, f"mov dword ptr [{DATA:#x}], 7")
    at = edge.put(text(edge.rig, "inc ecx; inc ecx") + last, across=across)
    assert edge.run(at) == edge.fault(BEHIND + across - len(last))
    assert edge.rig.cpu.get("ecx") == 2
    assert edge.rig.memory.u32(DATA) == 0


def test_one_that_begins_a_block_and_crosses(edge: Edge) -> None:
    at = edge.put(bytes.fromhex("b811223344"), across=2)
    assert edge.run(at) == edge.fault(at)


@pytest.mark.parametrize(
    "code", ["b9000000f4", "83c1f4", "b9f4f4f4f4", "c1e1f4", "41" + "04f4" * 7, "c744240cf4f4f4f4"]
)
def test_an_operand_that_looks_like_hlt_is_none(edge: Edge, code: str) -> None:
    data = bytes.fromhex(code) if not edge.rig.long else bytes.fromhex(code.replace("41", "ffc1"))
    assert edge.run(edge.put(data)) == edge.fault(BEHIND)


@pytest.mark.parametrize("count", [1, 2, 15, 20])
def test_hlt_before_the_end_halts(edge: Edge, count: int) -> None:
    if edge.level:
        edge.rig.gate(13, HANDLERS)
        assert edge.run(edge.put(b"\x90" * 3 + b"\xf4"))[0][:2] == (13, 0)
        return
    halts: list[int] = []
    edge.rig.platform.halted = lambda vcpu: (
        halts.append(vcpu.rip)
        or (  # type: ignore[func-returns-value, method-assign]
            edge.rig.machine.stop("poweroff") if edge.rig.platform.seen else None
        )
    )
    at = edge.put(b"\x90" + b"\xf4" * count)
    assert edge.run(at) == edge.fault(BEHIND)
    assert halts == [*range(at + 2, BEHIND + 1), HANDLERS + 1]


def test_faults_and_loops_before_the_end_come_first(edge: Edge) -> None:
    rig = edge.rig
    rig.gate(0, HANDLERS)
    div = text(rig, "div ebx")
    at = edge.put(text(rig, "inc ecx") + div + b"\x90\x90")
    rig.cpu.set("ebx", 0)
    assert edge.run(at) == [(0, None, None, BEHIND - 2 - len(div))]
    assert rig.cpu.get("ecx") == 1


def test_a_repeated_instruction_before_the_end(edge: Edge) -> None:
    rig = edge.rig
    at = edge.put(text(rig, f"mov ecx, 200; mov edi, {DATA:#x}; mov eax, 0x5a; rep stosb") + b"\x90")
    assert edge.run(at) == edge.fault(BEHIND)
    assert rig.cpu.get("ecx") == 0
    assert rig.memory.read(DATA, 201) == b"\x5a" * 200 + b"\0"


def test_a_page_that_becomes_one_that_may_not_be_fetched_from(edge: Edge) -> None:
    """The block across both pages has been translated and run before."""
    rig = edge.rig
    at = edge.put(text(rig, "inc ecx") * 3 + text(rig, ".byte 0xeb, 0xfe"), across=2)
    rig.map(BEHIND, FRAME + 0x1000, P | W | U)
    edge.start(at)
    assert rig.run(5_000) == "timeout"
    rig.map(BEHIND, 0, BAD_PAGES[edge.page])
    rig.cpu.flush_tlb()
    rig.cpu.rip = at
    rig.cpu.set("ecx", 0)
    assert rig.run() == "poweroff"
    assert rig.platform.seen == edge.fault(BEHIND)
    assert rig.cpu.get("ecx") == 3


def test_single_steps_are_exact_too(edge: Edge) -> None:
    rig = edge.rig
    at = edge.put(text(rig, "inc ecx") * 2)
    size = (BEHIND - at) // 2
    edge.start(at)
    if edge.level:
        rig.machine.step(rig.cpu)
    rig.machine.step(rig.cpu)
    assert (rig.cpu.rip, rig.cpu.get("ecx"), rig.platform.seen) == (at + size, 1, [])
    while not rig.platform.seen:
        rig.machine.step(rig.cpu)
    assert rig.platform.seen == edge.fault(BEHIND)
    assert rig.cpu.get("ecx") == 2


def test_data_at_the_next_page_is_no_fetch(edge: Edge) -> None:
    rig = edge.rig
    at = edge.put(text(rig, f"inc ecx; mov eax, [{BEHIND:#x}]; .byte 0xeb, 0xfe"))
    rig.map(BEHIND, 0, 0)
    rip = at + len(text(rig, "inc ecx"))
    assert edge.run(at) == [(14, 4 if edge.level else 0, BEHIND, rip)]
    assert rig.cpu.get("ecx") == 1


@pytest.mark.parametrize("kind", list(MachineKind), ids=lambda kind: kind.value)
def test_a_fault_that_is_mended_takes_no_time_of_its_own(make_rig: Callable[..., Rig], kind: MachineKind) -> None:
    times = []
    for page in ("missing", "there"):
        edge = Edge(make_rig, kind, 0, "missing")
        rig = edge.rig
        at = edge.put(text(rig, "inc ecx") * 3 + b"\xf4", across=1)

        def mend(_vcpu: object, _vector: int, rig: Rig = rig) -> bool:
            rig.map(BEHIND, FRAME + 0x1000, P | W | U)
            return True

        if page == "there":
            mend(None, 0)
        rig.platform.on_exception = mend
        edge.start(at)
        assert rig.run() == "poweroff"
        assert len(rig.platform.seen) == (page == "missing")
        assert rig.cpu.get("ecx") == 3
        times.append((rig.machine.clock.ns, rig.machine.blocks))
    assert times[0] == times[1]


def test_the_end_of_the_lower_half(make_rig: Callable[..., Rig]) -> None:
    for across, vector in ((0, 13), (2, 13)):
        rig = make_rig(MachineKind.X86_64)
        rig.platform.on_exception = lambda *_, rig=rig: rig.machine.stop("seen") or True  # type: ignore[misc]
        end = 1 << 47
        rig.map(end - 0x1000, FRAME, P | W | U)
        code = bytes.fromhex("ffc1 ffc1") + (bytes.fromhex("b8112233") if across else b"")
        rig.memory.write(FRAME + 0x1000 - len(code), code)
        rig.cpu.rip = end - len(code)
        rig.cpu.set("ecx", 0)
        assert rig.run() == "seen"
        assert rig.platform.seen == [(vector, 0, None, end - (4 if across else 0))]
        assert rig.cpu.get("ecx") == 2


def test_the_end_of_the_address_space_leads_to_its_beginning(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.PAE)
    rig.gate(14, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.map(0xFFFFF000, FRAME, P | W | U)
    rig.map(0, 0, 0)
    rig.memory.write(FRAME + 0xFFD, b"\x41" * 3)
    rig.cpu.set("ecx", 0)
    rig.cpu.rip = 0xFFFFFFFD
    assert rig.run() == "poweroff"
    assert rig.platform.seen == [(14, 16, 0, 0)]
    assert rig.cpu.get("ecx") == 3

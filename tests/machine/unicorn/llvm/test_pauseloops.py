"""Who waits with ``pause`` gives up its turn, at a place that only the guest's code decides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given

from pvops_core.machine import MachineKind
from pvops_core.machine.unicorn.llvm import native, pauseloops, routines
from pvops_core.machine.unicorn.state import BLOCK_NS, StateWord
from pvops_core.testing.assembly import assemble
from tests.machine.conftest import CODE, DATA, Rig
from tests.machine.run.test_cuts import CUTS, PIECES, PROGRAMS, SETTINGS, Bench, Cut, benches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["benches"]  # a fixture

SLICE = 100_000
WORDS = {"flag": DATA, "other": CODE + 0x1000}
# The shapes that compilers give such loops; the last leaves and comes back by calls, as stop_machine's does
LOOPS = (
    "L: pause; cmp dword ptr [{flag}], 0; je L",
    "L: cmp dword ptr [{flag}], 0; jne M; pause; jmp L; M: nop",
    "jmp M; L: nop; nop; pause; M: cmp dword ptr [{flag}], 0; je L",
    "L: call F; cmp dword ptr [{flag}], 0; je L; jmp M; F: push {a}; pop {a}; pause; ret; M: nop",
    "L: rdtsc; cmp dword ptr [{flag}], 0; jne M; pause; rdtsc; test eax, eax; je L; jmp L; M: nop",
)
BUSY = "mov ecx, {count}; B: dec ecx; jnz B; mov dword ptr [{flag}], 1; cli; hlt"


def program(kind: MachineKind, text: str, count: int = 0) -> bytes:
    """Assembled, for either width."""
    return assemble(text.format(**WORDS, count=count, a="rax" if kind.bits == 64 else "eax"), kind.bits, CODE)


def waiting(make_rig: Callable[..., Rig], kind: MachineKind, loop: str, busy: int, *, before: str = "") -> Rig:
    """Three vCPUs wait for the fourth, which sets the flag after so many rounds."""
    rig = make_rig(kind, vcpus=4, slice_blocks=SLICE)
    rig.code(program(kind, f"{before}{loop}; cli; hlt"))
    rig.code(program(kind, BUSY, busy), WORDS["other"])
    for vcpu in rig.machine.vcpus:
        vcpu.rip = CODE
    rig.machine.vcpus[2].rip = WORDS["other"]
    return rig


@pytest.mark.parametrize("loop", LOOPS)
def test_who_waits_costs_little(kind: MachineKind, make_rig: Callable[..., Rig], loop: str) -> None:
    rig = waiting(make_rig, kind, loop, 1_000_000)
    assert rig.run(10**9) == "poweroff"
    spent = rig.machine.clock.ns // BLOCK_NS - 1_000_000
    rounds = 2 * 1_000_000 / SLICE + 2
    assert spent < 3 * rounds * (pauseloops.FIRST + 3 * pauseloops.LENGTH)


@pytest.mark.parametrize("loop", [each.replace("pause", "nop") for each in LOOPS[:2]])
def test_other_loops_go_on(kind: MachineKind, make_rig: Callable[..., Rig], loop: str) -> None:
    """Nothing but a pause gives up a turn: whose bytes lie inside another instruction is none."""
    rig = waiting(make_rig, kind, loop.replace("nop", "mov eax, 0x90f3; nop", 1), 300_000)
    assert rig.run(10**9) == "poweroff"
    assert rig.machine.clock.ns // BLOCK_NS > 300_000 + 3 * SLICE


def test_who_begins_to_wait_late_is_found(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    rig = waiting(make_rig, kind, LOOPS[0], 1_000_000, before="mov ecx, 30000; C: dec ecx; jnz C; ")
    assert rig.run(10**9) == "poweroff"
    spent = rig.machine.clock.ns // BLOCK_NS - 1_000_000 - 3 * 30_000
    assert spent < 3 * (pauseloops.BETWEEN + 25 * (pauseloops.FIRST + 3 * pauseloops.LENGTH))


def test_nobody_else_can_run(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    """The turn is its own again: it is looked at seldom."""
    rig = waiting(make_rig, kind, LOOPS[0], 0)
    for vcpu in rig.machine.vcpus[1:]:
        vcpu.halt()
    assert rig.run(5 * BLOCK_NS * SLICE) == "timeout"
    slices = sum(event.kind == "slice" for event in rig.machine.log.events)
    assert 0 < slices <= 5 * SLICE / pauseloops.BETWEEN + 1


def test_one_vcpu_is_never_looked_at(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(kind, slice_blocks=SLICE)
    rig.code(program(kind, LOOPS[0]))
    assert rig.run(BLOCK_NS * SLICE) == "timeout"
    state = rig.machine._slots[0].state
    assert (state[StateWord.LATER], state[StateWord.LOOKED_PAGE]) == (0, -1)


def test_text_that_is_gone_leaves_no_trace(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    """A kernel may unmap a page that the processor still has: the lookout sees nothing there, and nobody sees it."""
    rig = make_rig(kind, vcpus=2, slice_blocks=SLICE)
    entry = rig.map(CODE, CODE, 3)
    text = f"mov ecx, 2000; mov dword ptr [{entry}], 0; L: pause; dec ecx; jnz L; mov dword ptr [{entry}], {CODE + 3}"
    rig.code(program(kind, f"{text}; cli; hlt"))
    rig.code(program(kind, BUSY, 1000), WORDS["other"])
    first, second = rig.machine.vcpus
    first.rip, second.rip = CODE, WORDS["other"]
    first.set("cr2", 0x1234)
    assert rig.run(10**9) == "poweroff"
    assert rig.platform.seen == []
    assert (first.cr2, first.get("ecx")) == (0x1234, 0)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lookouts so near to each other that a small program meets many."""
    monkeypatch.setattr(pauseloops, "FIRST", 3)
    monkeypatch.setattr(pauseloops, "BETWEEN", 7)
    monkeypatch.setattr(pauseloops, "LENGTH", 4)
    monkeypatch.setattr(routines, "_KEPT", SimpleNamespace(read=lambda _: None, write=lambda *_: None))
    native.callbacks.cache_clear()
    yield
    native.callbacks.cache_clear()


RDTSC = next(text for text in PIECES if "rdtsc" in text)
WAITS = (
    "mov ecx, {1}; L{0}: pause; dec ecx; jnz L{0}",
    "mov ecx, {1}; L{0}: nop; pause; test cl, 1; jz M{0}; add edx, 5; M{0}: loop L{0}",
)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("kind", [MachineKind.X86_64, MachineKind.PAE], ids=lambda kind: kind.value)
@given(
    program=PROGRAMS.map(
        lambda pieces: [
            (WAITS[PIECES.index(text) % 2], count) if number % 2 else (text, count)
            for number, (text, count) in enumerate(pieces)
        ]
    ),
    cuts=CUTS,
)
@example(program=[(RDTSC, 1), (WAITS[0], 1)], cuts=[Cut("for", 1)])  # the deadline is where the lookout begins
@SETTINGS
def test_the_place_is_the_same_however_the_run_is_cut(
    kind: MachineKind, benches: Callable[..., Bench], program: list[tuple[str, int]], cuts: list[Cut]
) -> None:
    whole = benches(kind, program, vcpus=3, timer=True, slice_blocks=60).whole()
    assert benches(kind, program, vcpus=3, timer=True, slice_blocks=60).cut(cuts, steps=False) == whole


@pytest.mark.usefixtures("short")
def test_such_a_run_has_lookouts_that_end_slices(benches: Callable[..., Bench]) -> None:
    """Or the test before would try nothing."""
    bench = benches(MachineKind.X86_64, [(WAITS[0], 30), (WAITS[1], 30)], vcpus=3, slice_blocks=60)
    bench.whole()
    ended = [int(event["blocks"]) for event in bench.rig.machine.log.events if event.kind == "slice"]
    assert sum(blocks < 30 for blocks in ended) > 10

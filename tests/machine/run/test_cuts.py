"""Virtual time, and all that happens, is what the guest executed: however the run was cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvops_core.machine import BareMetal, Machine, MachineKind, Vcpu
from pvops_core.machine.cpu.memory.decode import disassembled
from pvops_core.testing.assembly import assemble
from pvops_core.x86 import FLAG_IF
from tests.machine.conftest import CODE, DATA, HANDLERS, STACK, Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GATES, WORK = 0x50000, DATA + 0x800
TICK = 0x30
EVERY = 700
"""Nanoseconds between two interrupts."""

PIECES = (
    "add eax, 3; xor edx, eax; nop",
    "cmp eax, 40; jb L{0}; lea edx, [rdx+rax+1]; L{0}: add edx, 7",
    "test dl, 1; jz L{0}; jmp M{0}; L{0}: inc eax; M{0}: nop",
    "mov ecx, {1}; L{0}: add eax, ecx; dec ecx; jnz L{0}",
    "mov ecx, {1}; L{0}: test cl, 1; jz M{0}; add edx, 5; M{0}: loop L{0}",
    "rdtsc; add [rsi], eax; add edx, eax",
    "mov ecx, {1}; mov edi, {work}; rep stosb",
    "mov ecx, 0; mov edi, {work}; rep stosb; mov ecx, {1}; repe scasb",
    "call F{0}; jmp M{0}; F{0}: inc eax; ret; M{0}: add [rsi+4], eax",
    "mov ebp, {gate}; call rbp",
    "ud2; inc eax",
    "inc eax; ud2",
    "in al, 0x80; nop; add edx, 1",
    "mov ebp, ebx; mov eax, 1; cpuid; mov ebx, ebp; nop",
    "mov [rsi+0x7fe], eax; mov ebp, [rsi+0x7fd]; add eax, ebp",
    "pushf; popf; nop",
    "cli; add eax, 1; sti; nop; nop",
    "cli; mov ecx, {1}; L{0}: dec ecx; jnz L{0}; sti",
    "mov ecx, {1}; jmp M{0}; L{0}: pause; M{0}: dec ecx; jnz L{0}",
    "mov ecx, {1}; L{0}: jmp M{0}; mov eax, 0x90f30000; M{0}: loop L{0}",  # no pause before M
    "hlt; nop",
)
WAITS = "hlt; nop"


class Cut(NamedTuple):
    """What is done at one time: how far to run, and what then."""

    how: str
    amount: int


CUTS = st.lists(
    st.builds(
        Cut,
        st.sampled_from(
            ["for", "to", "step", "turns", "flush", "invalidate", "snapshot", "wander", "look", "ask", "stand", "pause"]
        ),
        st.integers(0, 400),
    ),
    max_size=25,
)
PROGRAMS = st.lists(st.tuples(st.sampled_from(PIECES), st.integers(1, 30)), min_size=1, max_size=12)


def assembled(kind: MachineKind, program: list[tuple[str, int]]) -> bytes:
    """A loop over the pieces, three times, and an end."""
    parts = [
        piece.replace("{0}", str(number))
        .replace("{1}", str(count))
        .replace("{work}", str(WORK))
        .replace("{gate}", str(GATES))
        for number, (piece, count) in enumerate(program)
    ]
    text = "; ".join(["mov ebx, 3", "AGAIN: nop", *parts, "dec ebx; jnz AGAIN; cli; hlt"])
    if kind.bits == 32:
        for wide in ("rsi", "rax", "rdx", "rbp"):
            text = text.replace(wide, f"e{wide[1:]}")
    return assemble(text, kind.bits, CODE)


class Platform(BareMetal):
    """Skips undefined instructions, ends where all wait without interrupts, and may have a timer."""

    def __init__(self, machine: Machine, *, timer: bool) -> None:
        super().__init__(machine)
        self.next = EVERY
        if timer:
            machine.keep(self)
            machine.watch(self.tick)

    def save(self) -> int:
        return self.next

    def load(self, state: int) -> None:
        self.next = state

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        assert (vector, error_code, address) == (6, None, None)
        vcpu.rip += 2

    def halted(self, vcpu: Vcpu) -> None:
        vcpu.halt()
        if not any(each.interrupts_enabled or not each.halted for each in self.machine.vcpus):
            self.machine.stop("poweroff")

    def tick(self) -> int:
        if self.machine.clock.ns >= self.next:
            self.next += EVERY
            self.machine.log.record("tick")
            for vcpu in self.machine.vcpus:
                if TICK not in vcpu.pending:
                    vcpu.raise_irq(TICK)
        return self.next

    def idle(self) -> bool:
        self.machine.clock.advance(max(0, self.next - self.machine.clock.ns))
        self.tick()
        return super().idle()


class Bench:
    """A machine with a program."""

    def __init__(
        self,
        kind: MachineKind,
        program: list[tuple[str, int]],
        *,
        vcpus: int = 1,
        timer: bool = False,
        count: bool = False,
        slice_blocks: int = 13,
    ) -> None:
        self.rig = rig = Rig(kind, vcpus=vcpus, slice_blocks=slice_blocks, seed=5, count_instructions=count)
        machine = rig.machine
        machine.attach(Platform(machine, timer=timer))
        code = assembled(kind, program)
        rig.code(code)
        self.places = [found.address for found in disassembled(code, CODE, kind.bits)]
        machine.gates.map(GATES, 1)
        rig.memory.write(GATES, machine.gates.text)
        machine.gates.bind(0, lambda vcpu: machine.log.record("called", vcpu.index, rax=vcpu.get("eax")))
        rig.gate(TICK, HANDLERS)
        rig.code(assemble(f"add dword ptr [{DATA + 0x40}], 1; iret{'q' if rig.long else 'd'}", kind.bits), HANDLERS)
        for vcpu in machine.vcpus:
            vcpu.rip = CODE
            vcpu.set("esi", DATA + 0x1000 * vcpu.index)
            vcpu.rsp = STACK - 0x400 * vcpu.index
            vcpu.rflags |= FLAG_IF

    def result(self) -> tuple[object, ...]:
        machine = self.rig.machine
        registers = tuple(vcpu.get(name) for vcpu in machine.vcpus for name in ("eax", "edx", "ecx", "esi"))
        memory = self.rig.memory.read(DATA, 0x4000)
        return machine.clock.ns, machine.blocks, machine.log.sha256, registers, memory, machine.log.events

    def whole(self) -> tuple[object, ...]:
        assert self.rig.run(10**7) == "poweroff"
        return self.result()

    def cut(self, cuts: list[Cut], *, steps: bool) -> tuple[object, ...]:
        """The same run in pieces."""
        machine = self.rig.machine
        for how, amount in cuts:
            ended = False
            if how == "for":
                ended = machine.run(max_ns=amount).reason == "poweroff"
            elif how in {"to", "look", "ask"}:
                ended = self._to(self.places[amount % len(self.places)], stops=how != "look", acts=how == "to")
            elif how == "stand":  # from here on the engine is able to stop anywhere
                machine.break_at(self.places[amount % len(self.places)], lambda _: None)
            elif how == "step" and steps:
                ended = self._step(amount % 40)
            elif how == "turns":
                ended = self._turns(amount)
            elif how == "pause":
                machine.pause(at_once=False)
                assert machine.run().reason == "paused"
            elif how == "flush":
                machine._slots[amount % len(machine._slots)].engine.flush_code()
            elif how == "invalidate":
                machine.invalidate([(CODE + amount, CODE + amount + 5)])
            elif how == "snapshot":
                machine.restore(machine.snapshot())
            elif how == "wander":
                before = machine.snapshot()
                machine.run(max_ns=amount)
                machine.restore(before)
            if ended:
                return self.result()
        return self.whole()

    def _to(self, place: int, *, stops: bool, acts: bool) -> bool:
        machine = self.rig.machine
        end = machine.pause if acts else lambda: machine.stop("there")
        found = machine.break_at(place, lambda _: end() if stops else None, acts=acts)
        reason = machine.run(max_ns=2_000).reason
        machine.remove(found)
        return reason == "poweroff"

    def _turns(self, amount: int) -> bool:
        """Steps of one vCPU, or of whoever's turn it is; one of these executes one instruction each time."""
        machine = self.rig.machine
        whose = [*machine.vcpus, None][amount % (len(machine.vcpus) + 1)]
        for _ in range(amount % 40):
            reason = machine.run(step=machine.vcpus if whose is None else [whose], max_ns=3_000).reason
            if reason != "stepped":
                return reason == "poweroff"
        return False

    def _step(self, count: int) -> bool:
        for _ in range(count):
            if not self.rig.cpu.halted:
                self.rig.machine.step(self.rig.cpu)
        return self.rig.cpu.halted


@pytest.fixture
def benches() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(*arguments: object, **options: object) -> Bench:
        while made:
            made.pop().rig.machine.close()
        made.append(Bench(*arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    while made:
        made.pop().rig.machine.close()


SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("kind", [MachineKind.X86_64, MachineKind.PAE], ids=lambda kind: kind.value)
@pytest.mark.parametrize("vcpus", [1, 3])
@given(program=PROGRAMS, cuts=CUTS, slices=st.sampled_from([13, 900]), count=st.booleans())
@SETTINGS
def test_with_interrupts(
    kind: MachineKind,
    vcpus: int,
    benches: Callable[..., Bench],
    program: list[tuple[str, int]],
    cuts: list[Cut],
    slices: int,
    *,
    count: bool,
) -> None:
    whole = benches(kind, program, vcpus=vcpus, timer=True, slice_blocks=slices).whole()
    bench = benches(kind, program, vcpus=vcpus, timer=True, slice_blocks=slices, count=count)
    assert bench.cut(cuts, steps=False) == whole
    executed = bench.rig.machine.instructions
    if count:
        bench = benches(kind, program, vcpus=vcpus, timer=True, slice_blocks=slices, count=True)
        bench.whole()
    assert executed == bench.rig.machine.instructions


@pytest.mark.parametrize("kind", [MachineKind.X86_64, MachineKind.PAE], ids=lambda kind: kind.value)
@given(program=PROGRAMS, cuts=CUTS)
@SETTINGS
def test_with_single_steps(
    kind: MachineKind, benches: Callable[..., Bench], program: list[tuple[str, int]], cuts: list[Cut]
) -> None:
    program = [each for each in program if each[0] != WAITS]
    whole = benches(kind, program).whole()
    assert benches(kind, program).cut(cuts, steps=True) == whole

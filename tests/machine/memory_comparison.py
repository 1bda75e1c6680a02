"""Compares the machine with the model of the manual's rules, program by program.

Run as a module it does so with many::

    python -m tests.machine.memory_comparison --count 20000 --seed 1
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import attrs

from tests.machine.conftest import CODE, NX, P, Rig, U, W
from tests.machine.memory_model import PAGE, Model, OffTheMapError, Page
from tests.machine.memory_programs import DATA, NAMES, PAGES, STACK, TEXT, Program, Writer

if TYPE_CHECKING:
    from pvops_core.machine import MachineKind


@attrs.frozen
class Result:
    """How a program ended: all that is compared."""

    vector: int
    error: int | None
    address: int | None
    rip: int
    registers: tuple[int, ...]
    flags: int
    memory: tuple[bytes, ...]


def model_result(program: Program) -> Result | None:
    """What the model says; None: it cannot say."""
    frames = {number: bytearray(data) for number, data in program.contents.items()}
    model = Model(program.world, frames, list(program.registers), program.flags, program.start)
    steps = {at: (len(code), step) for at, (code, step) in program.code.items()}
    try:
        fault = model.run(steps)
    except OffTheMapError:
        return None
    return Result(
        fault.vector, fault.error, fault.address, model.rip, tuple(model.registers), model.flags,
        tuple(bytes(frames[number]) for number in sorted(frames)),
    )  # fmt: skip


class Bench:
    """Runs programs on machines, one of each kind."""

    def __init__(self) -> None:
        self._rigs: dict[MachineKind, Rig] = {}

    def close(self) -> None:
        for rig in self._rigs.values():
            rig.machine.close()

    def rig(self, kind: MachineKind) -> Rig:
        if kind not in self._rigs:
            rig = self._rigs[kind] = Rig(kind)
            rig.platform.on_exception = lambda *_: rig.machine.stop("fault") or True  # type: ignore[func-returns-value]
        return self._rigs[kind]

    def result(self, program: Program) -> Result:
        """What the machine does."""
        rig = self.rig(program.kind)
        cpu = rig.cpu
        rig.platform.seen.clear()
        for number, data in program.contents.items():
            rig.memory.write(number * PAGE, data)
        for base in (TEXT, DATA, STACK):
            for index in range(PAGES):
                self._map(rig, base // PAGE + index, program.world.pages.get(base // PAGE + index))
        cpu.set_segments(0, 0x08, 0x10)
        cpu.cr0 = cpu.cr0 & ~0x10000 | (0x10000 if program.world.protect else 0)
        cpu.flush_tlb()
        rig.machine.invalidate([(TEXT, TEXT + PAGES * PAGE)])
        if program.world.user:
            rig.iret_to(program.start, 0x23, 0, 0x1B)
            cpu.rip = CODE
            rig.machine.step(cpu)
        letter = "r" if rig.long else "e"
        for name, value in zip(NAMES, program.registers, strict=True):
            cpu.set(letter + name, value)
        cpu.rflags = program.flags
        cpu.rip = program.start
        assert rig.run() == "fault"
        ((vector, error, address, rip),) = rig.platform.seen
        registers = tuple(cpu.get(letter + name) for name in NAMES)
        memory = tuple(rig.memory.read(number * PAGE, PAGE) for number in sorted(program.contents))
        return Result(vector, error, address, rip, registers, cpu.rflags & ~(1 << 16), memory)

    @staticmethod
    def _map(rig: Rig, number: int, page: Page | None) -> None:
        flags = 0
        if page is not None:
            flags = P | (W if page.writable else 0) | (U if page.user else 0) | (NX if page.no_execute else 0)
        rig.map(number * PAGE, page.frame * PAGE if page is not None else 0, flags)


def difference(bench: Bench, seed: int) -> str | None:
    """What machine and model do not agree on; empty if they do, None where the model cannot say."""
    program = Writer(seed).program()
    wanted = model_result(program)
    if wanted is None:
        return None
    got = bench.result(program)
    parts = []
    for name in ("vector", "error", "address", "rip", "registers", "flags"):
        one, other = getattr(wanted, name), getattr(got, name)
        if one != other:
            parts.append(f"{name}: manual {_shown(one)}, machine {_shown(other)}")
    if wanted.memory != got.memory:
        parts.append("memory")
    if not parts:
        return ""
    lines = [f"  {at:#x}: {code.hex()}" for at, (code, _) in sorted(program.code.items())]
    mode = f"{program.kind.value}, level {3 if program.world.user else 0}"
    return "\n".join([f"seed {seed} ({mode}, from {program.start:#x}): {'; '.join(parts)}", *lines])


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(_shown(each) for each in value) + ")"
    return hex(value) if isinstance(value, int) else str(value)


def main() -> int:
    """Compare many; the exit code is 5 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    bench, seed = Bench(), options.seed
    compared = differ = left_out = 0
    while compared < options.count:
        found = difference(bench, seed)
        seed += 1
        if found is None:
            left_out += 1
            continue
        compared += 1
        if found:
            differ += 1
            sys.stdout.write(found + "\n")
            if differ == 20:
                break
    sys.stdout.write(f"{compared} programs compared, {differ} differ; {left_out} more are not foretold\n")
    bench.close()
    return 5 if differ else 0


if __name__ == "__main__":
    sys.exit(main())

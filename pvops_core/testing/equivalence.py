"""Do an op's hook and its patchlet do the same? The CPU runs both from one random state, and all is compared.

The hook runs as unpatched guest text reaches it, by an indirect call of its slot; the patchlet runs in its place.
Compared are the general registers that the op's calling convention keeps, its result, the flags, control and
segment registers, and all of memory but the text itself and the dead part of the stack.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.errors import UsageError
from pvops_core.machine.cpu.registers import GENERAL
from pvops_core.ops import Convention, Layout, Signature, signature
from pvops_core.patching.poke import Poke
from pvops_core.session.calls import Calls
from pvops_core.x86 import ARITHMETIC

if TYPE_CHECKING:
    from pvops_core.machine import Machine, Vcpu
    from pvops_core.patching.patchlets import Patchlet
    from pvops_core.patching.poke import Poker
    from pvops_core.session import Session

OTHERS: Final = ("rsp", "rflags", "cr0", "cr2", "cr3", "cr4", "cs", "ss", "ds", "es")
TRAP_FLAG: Final = 0x100
RESTORABLE: Final = 0xAD7
"""Flags that a random state has: the arithmetic ones and IF, with the bit that is always set."""
ACCESSED_DIRTY: Final = 0x60
"""Bits that the CPU sets in page-table entries."""
DEAD_STACK: Final = 256
SCRATCH_SIZE: Final = 0x400
CLOCKS: Final = frozenset({"read_tsc", "sched_clock"})
"""Ops whose result is the time: the two runs may be as far apart as a call takes."""
CALL_TIME: Final = 1000
LIMIT: Final = 1_000_000
"""Virtual time that either may take, in ns."""


@attrs.frozen
class Bench:
    """Where an op can be run: a machine with a guest loaded and its table filled, before its first instruction.

    Attributes:
        machine: the machine; its first vCPU is used.
        layout: the guest's table.
        symbols: the guest's symbols, the table's variables among them.
        patchlets: the patchlets in force, by op.
        poker: writes guest text.
        translate: machine-physical address of a byte of guest text.
        text: virtual address of guest text that may be overwritten, 64 bytes or more within a page.
        scratch: virtual address of a writable page: pointers point into its first 1 KiB, the stack is in the rest.
        user: virtual address of two pages, text and stack, that user mode may use; 0 if there are none.
        prepare: sets what else is random in a state, with the generator to take it from.
        compared: bytes of machine memory from 0 that must agree; what a host keeps above them is its own; None for all.
    """

    machine: Machine
    layout: Layout
    symbols: Mapping[str, int]
    patchlets: Mapping[str, Patchlet]
    poker: Poker
    translate: Callable[[int], int]
    text: int
    scratch: int
    user: int = 0
    prepare: Callable[[random.Random], None] = attrs.field(default=lambda _generator: None)
    compared: int | None = None

    @property
    def cpu(self) -> Vcpu:
        """The vCPU that runs."""
        return self.machine.vcpus[0]


@attrs.frozen
class RunEffect:
    """A machine after a run: registers by name, and memory."""

    registers: Mapping[str, int]
    memory: bytes


def pairs(bench: Bench) -> tuple[str, ...]:
    """Ops of the layout that have a patchlet and something behind their slot to compare it with."""
    return tuple(slot.op.name for slot in bench.layout.slots if slot.op.name in bench.patchlets)


def check_equivalence(bench: Bench, op: str, seed: int) -> None:
    """Run an op both ways from the random state of a seed.

    Raises:
        UsageError: the op has no patchlet, or the bench lacks what it needs.
        AssertionError: the two differ; says where.
    """
    patchlet = bench.patchlets.get(op)
    if patchlet is None:
        raise UsageError(f"{op} has no patchlet in layout {bench.layout.name}")
    how = signature(bench.layout.by_op(op), bench.layout.kind)
    start = bench.machine.snapshot()
    try:
        outcomes = []
        for code in (_call(bench, op, how), patchlet.assemble(bench.text, bench.symbols)):
            bench.machine.restore(start)
            landing = _set_state(bench, how, random.Random(f"{op}:{seed}"))  # noqa: S311  # repeatable on purpose
            outcomes.append(_run(bench, code, landing, how))
    finally:
        bench.machine.restore(start)
    differences = list(_differences(how, *outcomes))
    if differences:
        raise AssertionError(f"{op} in layout {bench.layout.name}, seed {seed}: " + "; ".join(differences))


def _call(bench: Bench, op: str, how: Signature) -> bytes:
    """The unpatched site: an indirect call of the slot, or a jump through it."""
    slot = bench.layout.slot_address(bench.symbols, bench.layout.by_op(op).type)
    opcode = b"\xff\x25" if how.op.convention is Convention.JUMP else b"\xff\x15"
    if bench.layout.kind.bits == 64:
        # From behind the six bytes of the instruction (SDM volume 2, 2.2.1.6).
        return opcode + struct.pack("<i", slot - (bench.text + 6))
    return opcode + struct.pack("<I", slot)


def _set_state(bench: Bench, how: Signature, generator: random.Random) -> int:
    """Random registers and memory, arguments that the op can take; gives where a jump lands (0: behind the code)."""
    cpu, bits = bench.cpu, bench.layout.kind.bits
    cpu.write_virtual(bench.scratch, generator.randbytes(SCRATCH_SIZE))
    for register in GENERAL[bits]:
        cpu.set(register, generator.getrandbits(bits))
    # Aligned as compilers keep it, with room in the page for what is pushed and for what lies above.
    cpu.rsp = bench.scratch + 0x800 + generator.randrange(0, 0x400, 16)
    cpu.rflags = generator.getrandbits(12) & RESTORABLE | 2
    # 47 bits, so that it is canonical in 64-bit mode (SDM volume 1, 3.3.7.1).
    cpu.cr2 = generator.getrandbits(bits - 17)
    for place in how.places:
        value = _argument(bench, how, place.name, generator)
        for number, register in enumerate(place.registers):
            cpu.set(register, value >> number * bits & (1 << bits) - 1)
    bench.prepare(generator)
    if how.op.convention is not Convention.JUMP:
        return 0
    return _frame(bench, how, generator)


def _argument(bench: Bench, how: Signature, name: str, generator: random.Random) -> int:
    arg = next(arg for arg in how.op.args if arg.name == name)
    # A random root would take away the text that runs.
    if name == "cr3":
        return bench.cpu.cr3
    # Without TF: a trap behind the op is no part of it.
    if name == "flags":
        return generator.getrandbits(12) & ~TRAP_FLAG | 2
    if arg.ctype.pointer:
        return bench.scratch + generator.randrange(0, SCRATCH_SIZE // 2, 8)
    return generator.getrandbits(arg.bits(bench.layout.kind))


def _frame(bench: Bench, how: Signature, generator: random.Random) -> int:
    """What a jump leaves by: an interrupt frame of the same level on the stack, or sysexit's registers."""
    cpu = bench.cpu
    if how.op.name == "irq_enable_sysexit":
        if not bench.user:
            raise UsageError("irq_enable_sysexit needs a bench with pages for user mode")
        # EDX becomes EIP and ECX becomes ESP (SDM volume 2, SYSEXIT).
        cpu.set("edx", bench.user)
        cpu.set("ecx", bench.user + 0x1800)
        return bench.user
    # Behind any code that is run here, and within the 64 bytes that may be overwritten.
    landing = bench.text + 0x30
    flags = generator.getrandbits(12) & ~TRAP_FLAG | 2
    # iret pops the address first, then CS and the flags (SDM volume 2, IRET).
    for word in (flags, cpu.selector("cs"), landing):
        cpu.push(word)
    return landing


def _run(bench: Bench, code: bytes, landing: int, how: Signature) -> RunEffect:
    _write_text(bench, code)
    cpu, machine = bench.cpu, bench.machine
    dead = (bench.translate(bench.text), 64), *_stack(bench)
    cpu.rip = bench.text
    what, end = f"{how.op.name}: {code.hex(' ')} did not come to its end", landing or bench.text + len(code)
    Calls(machine, symbol_at=lambda _va: None).run(what, cpu, end, [], alone=False, max_ns=LIMIT)
    registers = {name: cpu.get(name) for name in (*GENERAL[bench.layout.kind.bits], *OTHERS)}
    memory = np.array(machine.memory.array[: bench.compared])
    # The text is one code or the other; what is below the stack pointer belongs to nobody.
    for start, size in dead:
        memory[start : start + size] = 0
    for place in _entries(bench, how):
        if place < len(memory):
            # Whether the CPU had walked here before is no difference of the op's.
            memory[place] |= ACCESSED_DIRTY
    return RunEffect(registers, memory.tobytes())


def _write_text(bench: Bench, code: bytes) -> None:
    """The code, through the one writer of text."""
    now = bench.machine.memory.read(bench.translate(bench.text), len(code))
    bench.poker.transaction([Poke(bench.text, now, code)], by="equivalence")


def _entries(bench: Bench, how: Signature) -> Iterable[int]:
    """Physical places of the table entries on the way to what one of the two touches: the CPU marks them as it goes."""
    cpu = bench.cpu
    slot = bench.layout.slot_address(bench.symbols, bench.layout.by_op(how.op.name).type)
    size = bench.layout.pointer_size
    target = int.from_bytes(bench.machine.memory.read(bench.translate(slot), size), "little")
    for va in (bench.text, bench.scratch, slot, target, bench.machine.gates.return_address):
        yield from (place for place, _value in cpu.walk(va, user=False).entries)


def _stack(bench: Bench) -> Iterable[tuple[int, int]]:
    """Physical range below the stack pointer, which any interrupt may overwrite."""
    cpu = bench.cpu
    yield cpu.walk(cpu.rsp - DEAD_STACK).pa, DEAD_STACK


def _differences(how: Signature, hook: RunEffect, patchlet: RunEffect) -> Iterable[str]:
    lost = how.clobbers - set(how.result)
    if how.op.name in CLOCKS:
        lost |= set(how.result)
        yield from _times(how, hook, patchlet)
    for name, value in hook.registers.items():
        other, mask = patchlet.registers[name], -1
        if name in lost:
            continue
        if name in how.result:
            done = how.result.index(name) * how.kind.bits
            # Above a narrow result the ABIs leave the register's bits undefined.
            mask = (1 << max(0, how.result_bits - done)) - 1
        elif name == "rflags" and how.op.name != "restore_fl" and how.op.convention is not Convention.JUMP:
            # No calling convention keeps the arithmetic flags.
            mask = ~ARITHMETIC
        if (value ^ other) & mask:
            yield f"{name} is {value:#x} after the hook and {other:#x} after the patchlet"
    if hook.memory != patchlet.memory:
        places = np.flatnonzero(np.frombuffer(hook.memory, np.uint8) != np.frombuffer(patchlet.memory, np.uint8))
        yield f"memory differs in {len(places)} bytes, first at physical {int(places[0]):#x}"


def _times(how: Signature, hook: RunEffect, patchlet: RunEffect) -> Iterable[str]:
    times = [
        sum(outcome.registers[name] << number * how.kind.bits for number, name in enumerate(how.result))
        for outcome in (hook, patchlet)
    ]
    if abs(times[0] - times[1]) > CALL_TIME:
        yield f"the time is {times[0]} for the hook and {times[1]} for the patchlet"


def bench_of(
    session: Session,
    prepare: Callable[[random.Random], None] = lambda _generator: None,
    user: int = 0,
    text: int | None = None,
    scratch: int | None = None,
) -> Bench:
    """A bench in a session.

    Args:
        session: the built-in guest on the backend to be tested.
        prepare: sets what else of the backend's state is random, with the generator to take it from.
        user: two pages that user mode may use, if an op needs them.
        text: text that may be overwritten; by default the guest's entry, if the session has not run yet.
        scratch: a page that may be; by default one of the last two of the guest's memory, likewise.
    """
    guest, memory = session.builtin, session.platform.guest_memory
    return Bench(
        machine=session.machine,
        layout=session.layout,
        symbols=guest.symbols,
        patchlets=session.switchboard.context().patchlets,
        poker=session.switchboard.poker,
        translate=session.text.machine_address,
        text=guest.entry if text is None else text,
        scratch=guest.kernel_base + memory - 2 * 0x1000 if scratch is None else scratch,
        user=user,
        prepare=prepare,
        compared=memory,
    )

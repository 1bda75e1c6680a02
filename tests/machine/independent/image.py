"""Makes a ROM of programs and of the harness that runs them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pvops_core.machine import MachineKind
from tests.machine.independent import harness
from tests.machine.independent import layout as at
from tests.machine.memory_model import PAGE, SP

if TYPE_CHECKING:
    from tests.machine.memory_programs import Program

_TASK_SIZE: Final = 104


def image(kind: MachineKind, programs: Sequence[Program]) -> bytes:
    """A ROM of programs of one kind, at most ``layout.MOST``, which run one after another from reset on."""
    low = bytearray(at.END)
    space, entries = at.program_space(low, kind)
    own = at.own_space(low, kind)
    _put(low, at.GDT, _descriptors(kind))
    _put(low, at.IDT, _gates(kind))
    _put(low, at.BOOT, harness.boot(kind, own.root))
    _put(low, at.CODE, harness.harness(kind, own.root, space.root))
    _put(low, harness.COUNT, struct.pack("<I", len(programs)))
    _put(low, harness.GDTR, struct.pack("<HI", harness.GDT_SIZE - 1, at.GDT))
    _put(low, harness.IDTR, struct.pack("<HQ", 0xFFF, at.IDT))
    if kind is MachineKind.X86_64:
        _put(low, at.TASKS + 0x24, struct.pack("<Q", at.FAULT_STACK_TOP))
        _put(low, at.TASKS + 0x66, struct.pack("<H", _TASK_SIZE))
    else:
        for vector in range(32):
            task = _task(own.root, at.CODE + harness.STUB_SIZE * vector, 2, [0] * SP + [at.FAULT_STACK_TOP] + [0] * 3)
            _put(low, at.TASKS + 0x100 + 0x80 * vector, task)
        _put(low, at.TASKS, _task(own.root, 0, 2, [0] * 8))
    packed = b"".join(_packed(program, space.root, entries) for program in programs)
    begin = bytes(low[at.BEGIN :]) + packed
    return begin.ljust(at.RESET_CODE - at.ROM, b"\xff") + harness.reset_code()


def _put(memory: bytearray, place: int, data: bytes) -> None:
    assert not any(memory[place : place + len(data)]), "two things in one place"
    memory[place : place + len(data)] = data


def _descriptors(kind: MachineKind) -> bytes:
    long = kind is MachineKind.X86_64
    flat = {at.KERNEL_CODE: (0x9A, long), at.KERNEL_DATA: (0x92, False), at.USER_DATA & ~3: (0xF2, False),
            at.USER_CODE & ~3: (0xFA, long), at.BOOT_CODE: (0x9A, False)}  # fmt: skip
    tasks = {at.LONG_TASK: at.TASKS} if long else _tasks()
    table = bytearray(harness.GDT_SIZE)
    for selector, (rights, is_long) in flat.items():
        struct.pack_into("<HHBBBB", table, selector, 0xFFFF, 0, 0, rights, 0xAF if is_long else 0xCF, 0)
    for selector, base in tasks.items():
        struct.pack_into("<HHBBBB", table, selector, _TASK_SIZE - 1, base & 0xFFFF, base >> 16, 0x89, 0, 0)
    return bytes(table)


def _tasks() -> dict[int, int]:
    tasks = {at.FAULT_TASKS + 8 * vector: at.TASKS + 0x100 + 0x80 * vector for vector in range(32)}
    return tasks | {at.OWN_TASK: at.TASKS, at.PROGRAM_TASK: at.TASKS + 0x80}


def _gates(kind: MachineKind) -> bytes:
    """Task gates; with 64 bits interrupt gates with a stack of their own."""
    if kind is not MachineKind.X86_64:
        return b"".join(struct.pack("<HHHH", 0, at.FAULT_TASKS + 8 * vector, 0x8500, 0) for vector in range(32))
    starts = (at.CODE + harness.STUB_SIZE * vector for vector in range(32))
    return b"".join(struct.pack("<HHHHQ", start & 0xFFFF, at.KERNEL_CODE, 0x8E01, start >> 16, 0) for start in starts)


def _task(root: int, start: int, flags: int, registers: Sequence[int], level: int = 0) -> bytes:
    """A task-state segment; registers in the order of their numbers."""
    data = at.USER_DATA if level else at.KERNEL_DATA
    code = at.USER_CODE if level else at.KERNEL_CODE
    stacks = (0, at.STACK_TOP, at.KERNEL_DATA, 0, 0, 0, 0)
    segments = (data, code, data, data, data, data)  # ES CS SS DS FS GS
    return struct.pack("<26I", *stacks, root, start, flags, *registers, *segments, 0, _TASK_SIZE << 16)


def _packed(program: Program, root: int, entries: Sequence[int]) -> bytes:
    first = bytearray(PAGE)
    frames = sorted(program.contents)
    pages = program.world.pages.values()
    for index, (place, frame) in enumerate(zip(entries, frames, strict=True)):
        value = at.entry_of(next((page for page in pages if page.frame == frame), None))
        struct.pack_into("<IQ", first, harness.ENTRIES + 12 * index, place, value)
    struct.pack_into("<I", first, harness.PROTECT, 0x10000 if program.world.protect else 0)
    level = 3 if program.world.user else 0
    if program.kind is MachineKind.X86_64:
        selectors = (at.USER_CODE, at.USER_DATA) if level else (at.KERNEL_CODE, at.KERNEL_DATA)
        frame = (program.start, selectors[0], program.flags, program.registers[SP], selectors[1])
        begin = struct.pack("<13Q", *frame, *program.registers)
    else:
        begin = _task(root, program.start, program.flags, program.registers, level)
    first[harness.BEGIN : harness.BEGIN + len(begin)] = begin
    return bytes(first) + b"".join(program.contents[frame] for frame in frames)

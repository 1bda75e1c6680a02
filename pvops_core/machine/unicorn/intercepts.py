"""Has the engine hand over instructions that it would execute by itself.

These are rdmsr, wrmsr and moves of debug registers, at level 0.

The engine emulates AMD's virtualisation, whose guests leave at instructions that their host has chosen. A vCPU is such
a guest from its first instruction on: an exit arrives as an exception with a number from ``EXITS`` on, RIP at the
instruction. What is chosen costs an exit, what is not chosen nothing: the flag that says "guest" only has the few
instructions that could be chosen look whether they are.

Source of numbers and layout: AMD APM volume 2, 15.9 (intercepts), appendix B (control area) and C (exit codes). Where
the library keeps its copy of the control area is tried with a small guest before it is relied on.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import struct
from typing import Final

from pvops_core.machine.unicorn import controlarea
from pvops_core.machine.unicorn import engine as uc
from pvops_core.machine.unicorn.probe import ContextLayout, context_layout

EXITS: Final = 0x100
"""The engine's number of an exit is this and the exit code."""
READ_DR, WRITE_DR, MSR = (EXITS + code for code in (0x20, 0x30, 0x7C))
_FIRST: Final = EXITS + 0x60
"""The exit that the lowest bit of the vector of intercepts stands for."""
_GUEST: Final = 1 << 21  # QEMU's hidden flag HF_GUEST
_CONTROL: Final = struct.Struct("<QQQHHHHI")
"""Physical address of the control area, TSC offset, intercepts; those of CR and DR reads and writes; exceptions."""
_BEHIND_EXCEPTION: Final = 8
_SIZE: Final = 0x4000


def install(engine: uc.Engine, context: uc.Context, layout: ContextLayout) -> None:
    """Make an engine's vCPU a guest that leaves at the chosen instructions; its context must have been saved."""
    # Interception of MSRs, of every move of DR0 to DR7, and of nothing else.
    words = (controlarea.ADDRESS, 0, 1 << MSR - _FIRST, 0, 0, 0xFF, 0xFF, 0)
    _CONTROL.pack_into(context.bytes, layout.exception + _BEHIND_EXCEPTION, *words)
    flags = int.from_bytes(context.bytes[layout.hidden_flags : layout.hidden_flags + 4], "little") | _GUEST
    context.bytes[layout.hidden_flags : layout.hidden_flags + 4] = flags.to_bytes(4, "little")
    engine.restore(context)


@functools.cache
def check() -> None:
    """Raise MachineError unless exits come where they are expected; once in a process."""
    memory = mmap.mmap(-1, _SIZE)
    # A guest that does both of what exits are for.
    memory[0x1000:0x100B] = bytes.fromhex("b91b000000 0f32 0f23f8 f4")  # mov ecx, 1bh; rdmsr; mov dr7, rax; hlt
    view = (ctypes.c_uint8 * _SIZE).from_buffer(memory)
    engine = uc.Engine(64, ctypes.addressof(view), _SIZE)
    context = uc.Context(engine)
    seen: list[tuple[int, int]] = []

    def left(_engine: int, vector: int, _data: int) -> None:
        # RIP is the instruction's own, since an exit is before it is executed.
        seen.append((vector, engine.read(uc.REGISTER_IDS["rip"])))
        engine.stop()

    engine.hook(uc.HOOK_INTR, uc.INTR_CALLBACK(left))
    engine.save(context)
    install(engine, context, context_layout())
    engine.start(0x1000)
    engine.start(0x1007)
    context.free()
    engine.close()
    del view
    memory.close()
    # A library that leaves elsewhere would have guests executed that nobody serves.
    if seen != [(MSR, 0x1005), (WRITE_DR + 7, 0x1007)]:
        raise uc.unknown_build(f"its exits are {seen}")

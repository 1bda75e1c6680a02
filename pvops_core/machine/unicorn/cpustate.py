"""CPU states that come from outside of this process: nothing of them but the guest's own may reach the engine.

A saved context is the engine's own structure, copied in as it is. In it are a length that the copy obeys, pointers, an
index into the FPU's registers, modes of arithmetic that end the process where they are none. So what is not the guest's
is taken from a state of this engine, and what has to be of some range is written through the interface, which keeps to
it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_core.errors import MachineError
from pvops_core.machine.unicorn import engine as uc

if TYPE_CHECKING:
    from pvops_core.machine.unicorn.probe import ContextLayout

_WORD: Final = struct.Struct("<I")
_MODES: Final = 1 << 19 | 1 << 20 | 1 << 21 | 1 << 24
"""Hidden flags that are not a guest's: system management mode, SVM, its intercepts, port breakpoints (cpu.h)."""
_KNOWN: Final = (1 << 27) - 1  # bits that QEMU's cpu.h has names for
_CONTROLS: Final = 5 * 8
_POINTERS: Final = 4 * 8
"""What the engine keeps for the four breakpoints, before the exception word."""
_ARITHMETIC: Final = 32
"""Modes and flags of arithmetic, and a scratch register, before MXCSR."""


def guests(engine: uc.Engine, layout: ContextLayout, state: bytes) -> bytes:
    """A state of an engine with nothing in it but what is the guest's: no pointers of this process."""
    made = bytearray(state)
    for begin, end in _engines(engine, layout, len(state)):
        made[begin:end] = bytes(end - begin)
    return bytes(made)


def vetted(engine: uc.Engine, layout: ContextLayout, own: bytes, state: bytes) -> bytes:
    """A state with what is the guest's of another, whoever made that; the engine is left with it.

    Args:
        engine: the engine that is to get it.
        layout: where its state has what.
        own: a state of this engine.
        state: the other.

    Raises:
        MachineError: it is none of this engine, or in a mode that no guest here is in.
    """
    # Another build's structure has another size, and its bytes would be other things.
    if len(state) != len(own):
        raise MachineError(f"a CPU state of {len(state)} bytes; the engine's are {len(own)}")
    flags = _WORD.unpack_from(state, layout.hidden_flags)[0]
    # Modes that are not the guest's must be this engine's own, bit by bit.
    if (flags ^ _WORD.unpack_from(own, layout.hidden_flags)[0]) & _MODES or flags & ~_KNOWN:
        raise MachineError(f"a CPU state with hidden flags {flags:#x}, in a mode that no guest here is in")
    made = bytearray(state)
    # What remains is the guest's: registers, segments, control registers, MSRs.
    for begin, end in _engines(engine, layout, len(own)):
        made[begin:end] = own[begin:end]
    context = uc.Context(engine)
    context.bytes[:] = bytes(made)
    engine.restore(context)
    # Written through the interface, which takes what is allowed: a rounding mode that is none would end the process.
    for name in ("fpsw", "fpcw", "mxcsr"):
        engine.write(uc.REGISTER_IDS[name], engine.read(uc.REGISTER_IDS[name]))
    engine.save(context)
    made[:] = bytes(context.bytes)
    context.free()
    return bytes(made)


def _engines(engine: uc.Engine, layout: ContextLayout, size: int) -> tuple[tuple[int, int], ...]:
    """Begin and end of what in a state is the engine's."""
    first, mxcsr = _places(engine)
    return (
        (0, first),  # what the library keeps of the context itself
        (layout.hidden_flags + 4, layout.hidden_flags + 8),
        (layout.control + _CONTROLS, layout.control + _CONTROLS + 4),
        (mxcsr - _ARITHMETIC, mxcsr),
        (layout.exception - _POINTERS, layout.exception),
        (layout.exception + 4, size),
    )


_FOUND: Final[list[tuple[int, int]]] = []


def _places(engine: uc.Engine) -> tuple[int, int]:
    """Where a context has RAX, the first of its registers, and MXCSR; looked for once in a process."""
    if not _FOUND:
        ids = uc.REGISTER_IDS
        _FOUND.append((_place(engine, ids["eax"], 0x1F81), _place(engine, ids["mxcsr"], 0x1F81)))
    return _FOUND[0]


def _place(engine: uc.Engine, register: int, value: int) -> int:
    context = uc.Context(engine)
    before = engine.read(register)
    states = []
    # Two values, everything else alike: the byte that differs is the register's first.
    for each in (0x1F80, value):
        engine.write(register, each)
        engine.save(context)
        states.append(bytes(context.bytes))
    engine.write(register, before)
    context.free()
    return next(at for at, (old, new) in enumerate(zip(*states, strict=True)) if old != new)

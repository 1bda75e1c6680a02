"""Moving a vCPU between two modes of its guest, each with its own address space, at little cost.

A hypervisor whose guest's kernel and processes live under different roots changes the root at every system call. A
write of CR3 drops all cached translations, which then cost more than the call itself. The engine keeps those of level
3 apart from those of the levels below, so if one mode runs at level 3 and the other below it, each can keep its own:
the root is changed in the saved CPU state, where the engine does not notice.

Whoever uses this must see to it that a level's translations are dropped (``Vcpu.flush_tlb``, or a write of CR3) when
they become wrong: when that mode's root changes, or when a mode has run at the other's level.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Protocol

from pvops_core.machine.unicorn.probe import HF_ADDSEG, HF_CPL, HF_CS32, HF_CS64, HF_SS32

if TYPE_CHECKING:
    from pvops_core.machine.unicorn.engine import Context, Engine
    from pvops_core.machine.unicorn.probe import ContextLayout

_CACHE: Final = struct.Struct("<I4xQII")
_BASE: Final = struct.Struct("<8xQ")
_WORD: Final = struct.Struct("<I")
_LONG: Final = struct.Struct("<Q")
_CR3: Final = 3 * _LONG.size
_CODE64: Final = HF_CS32 | HF_SS32 | HF_CS64
_DECIDED: Final = HF_CPL | HF_ADDSEG | _CODE64


class HiddenPart(Protocol):
    """What a processor keeps of a segment's descriptor."""

    @property
    def base(self) -> int:
        """Where the segment begins."""

    @property
    def limit(self) -> int:
        """Its last valid offset."""

    @property
    def high(self) -> int:
        """Second word of the descriptor."""


def packed_segment(selector: int, descriptor: HiddenPart) -> bytes:
    """A segment register with its hidden part, as ``ModeSwitch.commit`` takes it."""
    return _CACHE.pack(selector, descriptor.base, descriptor.limit, descriptor.high | 1 << 8)


class ModeSwitch:
    """One vCPU's way between modes: ``save``, read what is needed, ``commit``, then write RIP."""

    def __init__(self, engine: Engine, context: Context, layout: ContextLayout) -> None:
        self._engine = engine
        self._context = context
        self._bytes = context.bytes
        self._flags = layout.hidden_flags
        self._cs, self._ss, self._gs = (layout.segment(name) for name in ("cs", "ss", "gs"))
        self._root = layout.control + _CR3

    def save(self) -> tuple[int, int, int, int]:
        """Take the CPU's state: level, selectors of CS and SS, and the base of GS."""
        self._engine.save(self._context)
        data = self._bytes
        level: int = _WORD.unpack_from(data, self._flags)[0] & HF_CPL
        cs: int = _WORD.unpack_from(data, self._cs)[0]
        ss: int = _WORD.unpack_from(data, self._ss)[0]
        gs: int = _BASE.unpack_from(data, self._gs)[0]
        return level, cs, ss, gs

    def commit(self, level: int, cs: bytes, ss: bytes, *, root: int, gs_base: int) -> None:
        """Put changes into the state that ``save`` has taken, and give it to the CPU. RIP must be written next.

        Args:
            level: privilege level; the selectors need not say the same.
            cs: a 64-bit code segment, ``packed_segment``.
            ss: a stack segment, ``packed_segment``.
            root: physical address for CR3; nothing is flushed.
            gs_base: base of GS.
        """
        data = self._bytes
        # QEMU takes the level from the hidden flags, not from CS (HF_CPL_MASK of its target/i386/cpu.h).
        flags = _WORD.unpack_from(data, self._flags)[0] & ~_DECIDED | _CODE64 | level
        _WORD.pack_into(data, self._flags, flags)
        data[self._cs : self._cs + len(cs)] = cs
        data[self._ss : self._ss + len(ss)] = ss
        # The low half of the field is the limit, which stays.
        _LONG.pack_into(data, self._gs + _LONG.size, gs_base)
        _LONG.pack_into(data, self._root, root)
        self._engine.restore(self._context)

    def commit_user(self) -> None:
        """After ``save``: to level 3, with everything else as it is. RIP must be written next."""
        data = self._bytes
        _WORD.pack_into(data, self._flags, _WORD.unpack_from(data, self._flags)[0] | HF_CPL)
        self._engine.restore(self._context)

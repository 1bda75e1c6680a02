"""Native callbacks for ``segmentlimits``: what a new block may need, and how an instruction is refused.

A hook cannot keep the engine from executing the instruction that it stands before, unless all code looks for stops.
But it can leave by the door of ``intercepts``: native code asks the library for a register that is always left at, and
the library goes back to its loop from there, with RIP at the instruction. ECX is lost on that way, and kept here.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import struct
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine.unicorn import engine as uc
from pvops_core.machine.unicorn.llvm.native import SIZE_OF_BLOCK
from pvops_core.machine.unicorn.llvm.routines import I32, I64, Source, addresses_of
from pvops_core.machine.unicorn.probe import HF_CS64, SEGMENT_STRIDE, SEGMENTS
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine.unicorn.engine import Context, Engine
    from pvops_core.machine.unicorn.llvm.emit import Routine
    from pvops_core.machine.unicorn.probe import ContextLayout

DATA: Final = ("es", "ss", "ds", "fs", "gs")
CODE: Final = "cs"
_PLAIN_MASK, _PLAIN = 0x8E00, 0x8200
"""Present, data, upwards, writable: in the second word of a descriptor."""
_LIMIT: Final = 16
"""Where a cached segment has its limit; the second word of the descriptor follows."""
_FLAT_LIMIT: Final = 0xFFFFFFFF
_PROTECTED: Final = 1 << 7  # QEMU's hidden flag HF_PE
_FACTOR: Final = 0x5851F42D4C957F2D  # Knuth's multiplier for 64 bits (MMIX)
_MOV_TO_SEGMENT, _TWO_BYTES = 0x8E, 0x0F
_LOADS_OF_TWO_BYTES: Final = (0xA1, 0xA9, 0xB2, 0xB4, 0xB5)
"""pop fs, pop gs, lss, lfs, lgs."""
_PREFIXES: Final = ((0x64, "fs"), (0x65, "gs"))
_CODE_PREFIX: Final = 0x2E
"""Rarely seen, and what follows may be a write, which a code segment refuses though it is flat."""
_POPS: Final = (0x07, 0x17, 0x1F)
"""pop es, ss and ds, which end their block, as les and lds do, whose last byte may be anything."""
_OUTSIDE: Final = 0xFFFFFFFF
"""No register has this number."""


class _GuardWord(enum.IntEnum):
    ENGINE = 0
    SAVE = 1
    CONTEXT = 2
    TRANSLATE = 3
    READ_REGISTER = 4
    MEMORY = 5
    """Host address of physical 0."""
    PHYSICAL = 6
    FLAGS = 7
    """Address of the hidden flags in the context, then of the first segment's limit."""
    LIMITS = 8
    ECX_ID = 9
    ECX = 10
    MSR_ID = 11
    MSR = 12
    """Address of the library's structure for a register outside of all ranges."""
    LOOK = 13
    CHECK = 14
    SPECIAL = 15
    """A bit for each of DATA that is not flat."""
    STATE = 16
    """The limits and types of the segments that are not flat, mixed into one number; then that of the last load."""
    LAST = 17
    CHANGED = 18
    LOAD = 19
    TOLD = 20
    """1 once the engine has told of a block."""


def bit(name: str) -> int:
    """The bit of a segment."""
    return 1 << DATA.index(name)


def _each_special(at: Routine) -> None:
    at.put(_GuardWord.SPECIAL, 0)
    # Never 0, which is what a state of none is.
    at.put(_GuardWord.STATE, 1)
    for index, name in enumerate(DATA):
        place = at.add(at.get(_GuardWord.LIMITS), SEGMENTS.index(name) * SEGMENT_STRIDE)
        high = at.both(at.load32(at.add(place, 4)), _PLAIN_MASK)
        for value, plain in ((at.load32(place), _FLAT_LIMIT), (high, _PLAIN)):
            with at.when(value, "!=", plain):
                at.put(_GuardWord.SPECIAL, at.either(at.get(_GuardWord.SPECIAL), 1 << index))
                # A mix, not a hash of safety: only has to differ where limits do.
                mixed = at.multiply(at.add(at.get(_GuardWord.STATE), at.add(value, index)), _FACTOR)
                at.put(_GuardWord.STATE, mixed)


def _translated(at: Routine) -> None:
    """A block has been translated: look at it if it may use a segment that is not flat, or load any."""
    _, block, _ = at.arguments
    at.put(_GuardWord.TOLD, 1)
    # Above 4 GiB it is 64-bit code.
    with at.when(at.both(at.load64(block), ~0xFFFFFFFF), "!=", 0):
        at.done()
    # The hidden flags are in a saved context alone.
    at.call(_GuardWord.SAVE, at.get(_GuardWord.ENGINE), at.get(_GuardWord.CONTEXT))
    with at.when(at.both(at.load32(at.get(_GuardWord.FLAGS)), _PROTECTED | HF_CS64), "!=", _PROTECTED):
        at.done()
    _each_special(at)
    start = at.load64(block)
    size = at.both(at.load32(at.add(block, SIZE_OF_BLOCK)), 0xFFFF)
    # Segments 0 to 2 are ES, SS and DS: what reaches memory without a prefix.
    with at.when(at.both(at.get(_GuardWord.SPECIAL), 0b00111), "!=", 0):
        at.call(_GuardWord.LOOK, start, size)
        at.done()
    # It goes on to the next page, which lies anywhere in physical memory: Python reads that.
    with at.when(at.add(at.both(start, PAGE - 1), size), ">", PAGE):
        at.call(_GuardWord.LOOK, start, size)
        at.done()
    at.put(_GuardWord.LOAD, 0)
    status = at.call(
        _GuardWord.TRANSLATE, at.get(_GuardWord.ENGINE), start, I32(uc.PROT_EXEC), at.address(_GuardWord.PHYSICAL)
    )
    with at.when(at.wide(status), "!=", 0):
        at.done()
    first = at.add(at.get(_GuardWord.MEMORY), at.get(_GuardWord.PHYSICAL))
    with at.each(size) as number:
        byte = at.load8(at.add(first, number))
        for prefix, name in _PREFIXES:
            with at.when(byte, "==", prefix), at.when(at.both(at.get(_GuardWord.SPECIAL), bit(name)), "!=", 0):
                at.put(_GuardWord.LOAD, 1)
        for opcode in (_MOV_TO_SEGMENT, _CODE_PREFIX):
            with at.when(byte, "==", opcode):
                at.put(_GuardWord.LOAD, 1)
        with at.when(byte, "==", _TWO_BYTES):
            second = at.load8(at.add(first, at.add(number, 1)))
            for opcode in _LOADS_OF_TWO_BYTES:
                with at.when(second, "==", opcode):
                    at.put(_GuardWord.LOAD, 1)
    last = at.load8(at.add(first, at.subtract(size, 1)))
    for opcode in _POPS:
        with at.when(last, "==", opcode):
            at.put(_GuardWord.LOAD, 1)
    with at.when(at.get(_GuardWord.LOAD), "!=", 0):
        at.call(_GuardWord.LOOK, start, size)
    at.done()


def _loaded(at: Routine) -> None:
    """After a load of a segment register: tell what is not flat now, if that is something else than last time."""
    at.call(_GuardWord.SAVE, at.get(_GuardWord.ENGINE), at.get(_GuardWord.CONTEXT))
    _each_special(at)
    with at.when(at.get(_GuardWord.STATE), "!=", at.get(_GuardWord.LAST)):
        at.put(_GuardWord.LAST, at.get(_GuardWord.STATE))
        at.call(_GuardWord.CHANGED)
    at.done()


def _checked(at: Routine, segments: frozenset[str]) -> None:
    """Before an instruction: leave it unexecuted if it is refused, which no data is while these segments are flat."""
    engine = at.get(_GuardWord.ENGINE)
    at.call(_GuardWord.SAVE, engine, at.get(_GuardWord.CONTEXT))
    _each_special(at)
    if CODE not in segments:
        with at.when(at.both(at.get(_GuardWord.SPECIAL), sum(map(bit, segments))), "==", 0):
            at.done()
    # To read an MSR outside of all ranges leaves at once. ECX is lost on that way, so it is kept before.
    with at.when(at.wide(at.call(_GuardWord.CHECK)), "!=", 0):
        at.call(_GuardWord.READ_REGISTER, engine, at.narrow(at.get(_GuardWord.ECX_ID)), at.address(_GuardWord.ECX))
        at.call(_GuardWord.READ_REGISTER, engine, at.narrow(at.get(_GuardWord.MSR_ID)), at.get(_GuardWord.MSR))
    at.done()


class GuardWords:
    """What the callbacks of one vCPU work on.

    Args:
        engine: the vCPU's.
        context: a context of its own.
        layout: of contexts.
        memory: host address of physical 0.
    """

    def __init__(self, engine: Engine, context: Context, layout: ContextLayout, memory: int) -> None:
        self._engine = engine
        self._context = context
        self._segments = layout.segments
        # No register has this number, so that the engine always leaves at it.
        self._msr = uc.MsrValue(_OUTSIDE, 0)
        self._words = words = (ctypes.c_int64 * len(_GuardWord))()
        self.address: int = ctypes.addressof(words)
        words[_GuardWord.ENGINE], words[_GuardWord.CONTEXT], words[_GuardWord.MEMORY] = (
            engine.handle,
            context.address,
            memory,
        )
        for slot, name in (
            (_GuardWord.SAVE, "uc_context_save"),
            (_GuardWord.TRANSLATE, "uc_vmem_translate"),
            (_GuardWord.READ_REGISTER, "uc_reg_read"),
        ):
            words[slot] = uc.function_address(name)
        words[_GuardWord.FLAGS] = context.address + layout.hidden_flags
        words[_GuardWord.LIMITS] = context.address + layout.segments + _LIMIT
        words[_GuardWord.ECX_ID], words[_GuardWord.MSR_ID] = uc.REGISTER_IDS["ecx"], uc.REGISTER_IDS["msr"]
        words[_GuardWord.MSR] = ctypes.addressof(self._msr)

    def call_back(
        self, look: Callable[[int, int], None], check: Callable[[], bool], changed: Callable[[], bool]
    ) -> None:
        """Whom to ask of a block and of an instruction, and to tell of a load."""
        self._words[_GuardWord.CHANGED] = self._engine.keep(uc.CHECK_CALLBACK(changed))
        self._words[_GuardWord.LOOK] = self._engine.keep(uc.LOOK_CALLBACK(look))
        self._words[_GuardWord.CHECK] = self._engine.keep(uc.CHECK_CALLBACK(check))

    @property
    def special(self) -> frozenset[str]:
        """The segments that were not flat when the last block was translated."""
        return frozenset(name for index, name in enumerate(DATA) if self._words[_GuardWord.SPECIAL] >> index & 1)

    def look(self) -> None:
        """Look at the segments as they are now, as at a block."""
        self._engine.save(self._context)
        bits = [limit != _FLAT_LIMIT or high & _PLAIN_MASK != _PLAIN for limit, high in map(self.segment, DATA)]
        self._words[_GuardWord.SPECIAL] = sum(1 << index for index, bit in enumerate(bits) if bit)

    def segment(self, name: str) -> tuple[int, int]:
        """Limit and second word of a segment's descriptor then."""
        at = self._segments + SEGMENTS.index(name) * SEGMENT_STRIDE + _LIMIT
        limit, high = struct.unpack_from("<II", self._context.bytes, at)
        return limit, high

    @property
    def told(self) -> bool:
        """Whether the engine has told of a block yet."""
        return bool(self._words[_GuardWord.TOLD])

    @property
    def state(self) -> int:
        """A number for what is not flat, and how."""
        return self._words[_GuardWord.STATE]

    @property
    def ecx(self) -> int:
        """What ECX was when the last instruction was refused."""
        return self._words[_GuardWord.ECX] & 0xFFFFFFFF


@attrs.frozen
class Guards:
    """Addresses of the callbacks."""

    translated: int
    loaded: int
    checked: Mapping[frozenset[str], int]
    """By the segments that an instruction uses: one, or all for several, with CS or without."""


@functools.cache
def guards() -> Guards:
    """The callbacks of this process."""
    sources = {
        "translated": Source(_translated, (I64, I64, I64)),
        "loaded": Source(_loaded, (I64, I64, I32)),
    }
    chosen = (*((name,) for name in (*DATA, CODE)), DATA, (*DATA, CODE))
    groups = {f"checked_{'_'.join(names)}": frozenset(names) for names in chosen}
    for function, names in groups.items():
        sources[function] = Source(partial(_checked, segments=names), (I64, I64, I32))
    addresses = addresses_of("guards", sources)
    checked = {names: addresses[function] for function, names in groups.items()}
    return Guards(addresses["translated"], addresses["loaded"], checked)

"""Native callbacks for ``wholeaccess``: which blocks may access memory in pieces, and when that could go wrong.

A block is looked at once, when it is translated: for bytes that may be such an instruction. That is the code hook of
one hook alone, whose bounds are moved: the library compares them with the instructions that it translates, in the list
of all code hooks, which must be short for translation to be quick; and while it is the only one the call that it puts
there looks at them no more.
"""

from __future__ import annotations

import ctypes
import enum
import functools
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from pvops_core.machine.unicorn import engine as uc
from pvops_core.machine.unicorn.llvm.native import SIZE_OF_BLOCK
from pvops_core.machine.unicorn.llvm.routines import I32, I64, Source, addresses_of
from pvops_core.machine.unicorn.probe import HF_CS64
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pvops_core.machine.unicorn.engine import Context, Engine
    from pvops_core.machine.unicorn.llvm.emit import Routine
    from pvops_core.machine.unicorn.movablehook import MovableHook
    from pvops_core.machine.unicorn.probe import ContextLayout

_LEVEL: Final = 3  # QEMU's hidden flags HF_CPL_MASK
_OUTSIDE: Final = 0xFFFFFFFF
"""No register has this number."""
_BEHIND: Final = 4
"""Bytes behind a block that are looked at with its last one."""
_TWO_BYTES: Final = 0x0F
_MASKED: Final = 0xF7
"""maskmovq and maskmovdqu."""
_IN_MEMORY: Final = ((0xD9, (4, 6)), (0xDB, (7,)), (0xDD, (4, 6)), (0xDF, (6,)))
"""fldenv and fstenv, fstp of 80 bits, frstor and fsave, fbstp: the opcode and the middle of its ModRM."""
_FIRST_TWO: Final = (0x01, 0xAE)
"""sgdt and sidt, fxsave and fxrstor: with 0 and 1 there."""
_OF_ALL_REGISTERS: Final = (0x60, 0x61)
_ENTER, _LEVELS = 0xC8, 32
_INS: Final = (0x6C, 0x6D)
_BEFORE_INS: Final = (0x66, 0x67, 0xF2, 0xF3)
"""It is looked for at a block's begin and behind prefixes: elsewhere such bytes are a ModRM, of which code is full."""
_FIRST: Final = 0x66
"""Stands for the byte before the first."""
_FAR_CALL, _FAR_LENGTHS = 0x9A, (5, 7)
_INDIRECT, _INDIRECT_LENGTHS = 0xFF, (2, 3, 4, 6, 7)
"""Calls end their block."""


class _PieceWord(enum.IntEnum):
    ENGINE = 0
    SAVE = 1
    CONTEXT = 2
    FLAGS = 3
    TRANSLATE = 4
    MEMORY = 5
    """Host address of physical 0."""
    PHYSICAL = 6
    LOOK = 7
    SEEN = 8
    TOLD = 9
    BEFORE = 10
    """The byte before the one that is looked at."""


class _SiteWord(enum.IntEnum):
    ENGINE = 0
    READ_REGISTER = 1
    CHECK = 2
    COUNTER_ID = 3
    COUNTER = 4
    MSR_ID = 5
    MSR = 6
    VALUE = 7
    PLACE = 8
    COUNT = 9
    FLAGS_ID = 10
    PASSED = 11
    """Where the address of the last instruction that was passed is noted, and its flags behind it."""
    SITES = 12
    """From here on the instructions, so many words each as ``Site`` has fields."""


class Site(NamedTuple):
    """An instruction that accesses memory in pieces, and where.

    Attributes:
        address: its own.
        base: number of a register; 0 for none.
        other: likewise, for the index.
        scale: of the index.
        distance: added to them.
        room: how far into a page the access may begin and not reach the next one; -1: it is always asked about.
        alignment: bits of the place that must be 0.
    """

    address: int
    base: int
    other: int
    scale: int
    distance: int
    room: int
    alignment: int


def _see(at: Routine) -> None:
    at.put(_PieceWord.SEEN, 1)


def _translated(at: Routine) -> None:
    """A block has been translated: tell of it if it is no 64-bit code and its bytes may be such an instruction."""
    _, block, _ = at.arguments
    at.put(_PieceWord.TOLD, 1)
    start = at.load64(block)
    with at.when(at.both(start, ~0xFFFFFFFF), "!=", 0):
        at.done()
    size = at.both(at.load32(at.add(block, SIZE_OF_BLOCK)), 0xFFFF)
    at.put(_PieceWord.SEEN, 0)
    engine = at.get(_PieceWord.ENGINE)
    at.call(_PieceWord.SAVE, engine, at.get(_PieceWord.CONTEXT))
    with at.when(at.both(at.load32(at.get(_PieceWord.FLAGS)), HF_CS64), "!=", 0):
        at.done()
    with at.when(at.add(at.both(start, PAGE - 1), size), ">", PAGE - _BEHIND):
        at.call(_PieceWord.LOOK, start, size)
        at.done()
    status = at.call(_PieceWord.TRANSLATE, engine, start, I32(uc.PROT_EXEC), at.address(_PieceWord.PHYSICAL))
    with at.when(at.wide(status), "!=", 0):
        at.done()
    at.put(_PieceWord.BEFORE, _FIRST)
    first = at.add(at.get(_PieceWord.MEMORY), at.get(_PieceWord.PHYSICAL))
    with at.each(size) as number:
        place = at.add(first, number)
        _look_at_byte(at, place, at.load8(place), at.load8(at.add(place, 1)))
    # A block ends at such a call, so its bytes are its last ones.
    end = at.add(first, size)
    for length in _INDIRECT_LENGTHS:
        with (
            at.when(size, ">=", length),
            at.when(at.load8(at.subtract(end, length)), "==", _INDIRECT),
            at.when(at.both(at.load8(at.subtract(end, length - 1)), 0x38), "==", 3 << 3),
        ):
            _see(at)
    for length in _FAR_LENGTHS:
        with (
            at.when(size, ">=", length),
            at.when(at.load8(at.subtract(end, length)), "==", _FAR_CALL),
        ):
            _see(at)
    with at.when(at.get(_PieceWord.SEEN), "!=", 0):
        at.call(_PieceWord.LOOK, start, size)
    at.done()


def _look_at_byte(at: Routine, place: object, byte: object, second: object) -> None:
    middle, registers = at.both(second, 0x38), at.both(second, 0xC0)
    with at.when(byte, "==", _TWO_BYTES):
        with at.when(second, "==", _MASKED):
            _see(at)
        third = at.load8(at.add(place, 2))
        # A register operand is another instruction.
        with at.when(at.both(third, 0xC0), "!=", 0xC0), at.when(at.both(third, 0x30), "==", 0):
            for opcode in _FIRST_TWO:
                with at.when(second, "==", opcode):
                    _see(at)
    with at.when(registers, "!=", 0xC0):
        for opcode, middles in _IN_MEMORY:
            for each in middles:
                with at.when(byte, "==", opcode), at.when(middle, "==", each << 3):
                    _see(at)
    # The level is the operand behind the size, of which only 5 bits count (SDM volume 2, ENTER).
    with at.when(byte, "==", _ENTER):
        level = at.load8(at.add(place, 3))
        with at.when(level, "!=", 0), at.when(level, "<", _LEVELS):
            _see(at)
    for opcode in _OF_ALL_REGISTERS:
        with at.when(byte, "==", opcode):
            _see(at)
    for opcode in _INS:
        for before in _BEFORE_INS:
            with at.when(byte, "==", opcode), at.when(at.get(_PieceWord.BEFORE), "==", before):
                # At level 0 a port is never refused, so that nothing can be left behind.
                _see_above_level_0(at)
    at.put(_PieceWord.BEFORE, byte)


def _see_above_level_0(at: Routine) -> None:
    at.call(_PieceWord.SAVE, at.get(_PieceWord.ENGINE), at.get(_PieceWord.CONTEXT))
    with at.when(at.both(at.load32(at.get(_PieceWord.FLAGS)), _LEVEL), "!=", 0):
        _see(at)


def _reached(at: Routine) -> None:
    """Before an instruction: leave it unexecuted if it may reach two pages, or is askew, and Python says so."""
    _, address, _ = at.arguments
    engine, passed = at.get(_SiteWord.ENGINE), at.get(_SiteWord.PASSED)
    at.store32(passed, address)
    at.store32(at.add(passed, 4), at.high(address))
    # Before the instruction: a fault in it may leave flags that it should not.
    at.call(_SiteWord.READ_REGISTER, engine, at.narrow(at.get(_SiteWord.FLAGS_ID)), at.add(passed, 8))
    with at.each(at.get(_SiteWord.COUNT)) as number:
        site = at.add(at.address(_SiteWord.SITES), at.multiply(number, 8 * len(Site._fields)))

        def field(name: str, site: object = site) -> object:
            return at.load64(at.add(site, 8 * Site._fields.index(name)))

        with at.when(field("address"), "==", address):
            at.put(_SiteWord.PLACE, field("distance"))
            for register, scale in (("base", I64(1)), ("other", field("scale"))):
                with at.when(field(register), "!=", 0):
                    at.put(_SiteWord.VALUE, 0)
                    at.call(_SiteWord.READ_REGISTER, engine, at.narrow(field(register)), at.address(_SiteWord.VALUE))
                    at.put(
                        _SiteWord.PLACE, at.add(at.get(_SiteWord.PLACE), at.multiply(at.get(_SiteWord.VALUE), scale))
                    )
            place = at.get(_SiteWord.PLACE)
            # All on one page and aligned: it can only fault whole, as the processor does.
            with (
                at.when(at.both(place, field("alignment")), "==", 0),
                at.when(at.both(place, PAGE - 1), "<=", field("room")),
            ):
                at.done()
            with at.when(at.wide(at.call(_SiteWord.CHECK)), "!=", 0):
                counter, msr = at.narrow(at.get(_SiteWord.COUNTER_ID)), at.narrow(at.get(_SiteWord.MSR_ID))
                at.call(_SiteWord.READ_REGISTER, engine, counter, at.get(_SiteWord.COUNTER))
                at.call(_SiteWord.READ_REGISTER, engine, msr, at.get(_SiteWord.MSR))
            at.done()
    at.done()


@functools.cache
def _routines() -> tuple[int, int]:
    sources = {
        "translated": Source(_translated, (I64, I64, I64)),
        "reached": Source(_reached, (I64, I64, I32)),
    }
    addresses = addresses_of("pieces", sources)
    return addresses["translated"], addresses["reached"]


@attrs.define
class _Standing:
    """A piece of code with its words."""

    first: int
    last: int
    words: ctypes.Array[ctypes.c_int64]


class PieceGuards:
    """The hooks of one vCPU.

    Args:
        engine: the vCPU's.
        context: a context of its own.
        layout: of contexts.
        memory: host address of physical 0.
        look: is told address and size of a block that may have such an instruction.
        check: says whether the instruction at RIP is to be left unexecuted.
    """

    def __init__(
        self,
        engine: Engine,
        context: Context,
        layout: ContextLayout,
        memory: int,
        look: Callable[[int, int], None],
        check: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._translated, self._reached = _routines()
        self._check = engine.keep(uc.CHECK_CALLBACK(check))
        self._counter = ctypes.c_uint64()
        self._passed = (ctypes.c_uint64 * 2)()
        self._msr = uc.MsrValue(_OUTSIDE, 0)
        self._moved: MovableHook | None = None
        self._standing: dict[tuple[Site, ...], _Standing] = {}
        self._fixed: set[tuple[Site, ...]] = set()
        self._words = words = (ctypes.c_int64 * len(_PieceWord))()
        words[_PieceWord.ENGINE], words[_PieceWord.CONTEXT] = engine.handle, context.address
        words[_PieceWord.SAVE] = uc.function_address("uc_context_save")
        words[_PieceWord.FLAGS] = context.address + layout.hidden_flags
        words[_PieceWord.TRANSLATE] = uc.function_address("uc_vmem_translate")
        words[_PieceWord.MEMORY] = memory
        words[_PieceWord.LOOK] = engine.keep(uc.LOOK_CALLBACK(look))
        engine.hook_native(uc.HOOK_TRANSLATED, self._translated, ctypes.addressof(words))

    @property
    def told(self) -> bool:
        """Whether the engine has told of a block yet."""
        return bool(self._words[_PieceWord.TOLD])

    @property
    def physical(self) -> int | None:
        """Physical address of the block that the engine tells of; None for one that may lie on two pages."""
        return self._words[_PieceWord.PHYSICAL] if self._words[_PieceWord.SEEN] else None

    @property
    def counter(self) -> int:
        """What RCX was when the last instruction was refused."""
        return self._counter.value

    def forget(self) -> None:
        """No instruction has been passed."""
        self._passed[0] = 0

    def flags_at(self, address: int) -> int | None:
        """RFLAGS before an instruction, if it is the one that was passed last; asked once.

        Behind a hook the library keeps flags in another form than its record of the instruction says, by which it
        restores them at a fault.
        """
        there, self._passed[0] = self._passed[0] == address, 0
        return self._passed[1] if there else None

    def stand(self, sites: Sequence[Site]) -> bool:
        """Have these instructions looked at in what is translated from now on; False if they are already."""
        key = tuple(sites)
        standing = self._standing.get(key)
        if standing is None:
            standing = self._standing[key] = _Standing(sites[0].address, sites[-1].address, self._fill(key))
        place = ctypes.addressof(standing.words)
        # While nobody else has a hook the moved one will do, and translation goes through one entry.
        if self.alone:
            if self._moved is None:
                self._moved = self._engine.movable_code_hook(self._reached)
            self._moved.move(standing.first, standing.last, place)
            return True
        if key in self._fixed:
            return False
        self._fixed.add(key)
        self._engine.hook_native(uc.HOOK_CODE, self._reached, place, standing.first, standing.last)
        return True

    @property
    def alone(self) -> bool:
        """Whether nobody else has a code hook, so that the one that is moved will do."""
        return self._engine.code_hooks == (self._moved is not None) and not self._engine.stepping

    def rest(self) -> None:
        """What is translated from now on is not looked at, unless a hook stands there."""
        if self._moved is not None:
            self._moved.rest()

    def _fill(self, sites: tuple[Site, ...]) -> ctypes.Array[ctypes.c_int64]:
        words = (ctypes.c_int64 * (_SiteWord.SITES + len(sites) * len(Site._fields)))()
        words[_SiteWord.ENGINE], words[_SiteWord.CHECK] = self._engine.handle, self._check
        words[_SiteWord.READ_REGISTER] = uc.function_address("uc_reg_read")
        words[_SiteWord.COUNTER_ID] = uc.REGISTER_IDS["rcx" if self._engine.bits == 64 else "ecx"]
        words[_SiteWord.COUNTER] = ctypes.addressof(self._counter)
        words[_SiteWord.MSR_ID], words[_SiteWord.MSR] = uc.REGISTER_IDS["msr"], ctypes.addressof(self._msr)
        words[_SiteWord.FLAGS_ID], words[_SiteWord.PASSED] = (
            uc.REGISTER_IDS["rflags" if self._engine.bits == 64 else "eflags"],
            ctypes.addressof(self._passed),
        )
        words[_SiteWord.COUNT] = len(sites)
        for number, field in enumerate(field for site in sites for field in site):
            words[_SiteWord.SITES + number] = field
        return words

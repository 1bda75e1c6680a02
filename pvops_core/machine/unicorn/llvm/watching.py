"""Native callbacks that see a vCPU's every memory access and every instruction, while a data breakpoint is armed.

The engine tells physical addresses. What lies at the watched place of some page is given to Python, which knows
whether it is that page; the rest costs some nanoseconds. Nothing of this exists while nothing is armed.
"""

from __future__ import annotations

import ctypes
import enum
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from pvops_core.machine.unicorn import engine as uc
from pvops_core.machine.unicorn.llvm.routines import I32, I64, Source, addresses_of

if TYPE_CHECKING:
    from pvops_core.machine.unicorn.engine import Engine
    from pvops_core.machine.unicorn.llvm.emit import Routine

PLACES: Final = 4
"""Most spans of one watch."""
_IN_PAGE: Final = 0xFFF
Span = tuple[int, int]
"""Linear address and length."""


class _WatchWord(enum.IntEnum):
    """The words that the callbacks work on."""

    HITS = 0
    """Not 0: before the next instruction, call TRAP."""
    TRAP = 1
    TOUCHED = 2
    STARTS = 3
    LENGTHS = 3 + PLACES


_WORDS: Final = 3 + 2 * PLACES


def _access(at: Routine) -> None:
    """A load or store: is it at a watched place of its page?"""
    engine, kind, address, size, value = at.arguments
    wide = at.wide(size)
    for place in range(PLACES):
        start, length = (at.load64(at.add(at.address(_WatchWord(0)), 8 * (first + place))) for first in (3, 3 + PLACES))
        with at.when(length, "!=", 0):
            for distance, reach in (
                (at.subtract(address, start), length),
                (at.subtract(start, address), wide),
            ):
                with at.when(at.both(distance, _IN_PAGE), "<", reach):
                    at.call(_WatchWord.TOUCHED, engine, kind, address, size, value, at.address(_WatchWord.HITS))
                    at.done()
    at.done()


def _instruction(at: Routine) -> None:
    """Before an instruction: has the last one touched something?"""
    with at.when(at.get(_WatchWord.HITS), "!=", 0):
        at.call(_WatchWord.TRAP, *at.arguments, at.address(_WatchWord.HITS))
    at.done()


@functools.cache
def _callbacks() -> tuple[int, int]:
    sources = {
        "access": Source(_access, (I64, I32, I64, I32, I64)),
        "instruction": Source(_instruction, (I64, I64, I32)),
    }
    addresses = addresses_of("watch", sources)
    return addresses["access"], addresses["instruction"]


class Watch:
    """Watches places of one vCPU from when it is made until it is closed.

    Args:
        engine: the vCPU's.
        spans: at most four.
        touched: given physical address, size and whether it is a store, of what may be such an access, RIP at the
            instruction; whatever it returns is added to ``hits``.
        trap: called before the next instruction where ``hits`` is not 0, with its address; may move RIP.
        loads: whether to see loads too.
    """

    def __init__(
        self,
        engine: Engine,
        spans: Sequence[Span],
        touched: Callable[[int, int, bool], int],
        trap: Callable[[int], None],
        *,
        loads: bool,
    ) -> None:
        def on_touch(_engine: int, kind: int, address: int, size: int, _value: int, _data: int) -> None:
            self.hits |= touched(address, size, kind == uc.MEM_WRITE)

        def on_trap(_engine: int, address: int, _size: int, _data: int) -> None:
            trap(address)

        self._engine = engine
        self._words = (ctypes.c_int64 * _WORDS)()
        self._keep = (uc.MEMORY_CALLBACK(on_touch), uc.CODE_CALLBACK(on_trap))
        self._words[_WatchWord.TOUCHED], self._words[_WatchWord.TRAP] = (engine.keep(each) for each in self._keep)
        for place, (start, length) in enumerate(spans):
            self._words[_WatchWord.STARTS + place] = start & _IN_PAGE
            self._words[_WatchWord.LENGTHS + place] = length
        data = ctypes.addressof(self._words)
        access, instruction = _callbacks()
        kinds = uc.HOOK_MEM_WRITE | (uc.HOOK_MEM_READ if loads else 0)
        self._memory = engine.hook_native(kinds, access, data)
        self._code = engine.hook_native_code(instruction, data)

    @property
    def hits(self) -> int:
        """What has been touched since this was last set to 0."""
        return self._words[_WatchWord.HITS]

    @hits.setter
    def hits(self, value: int) -> None:
        self._words[_WatchWord.HITS] = value

    def close(self) -> None:
        """Watch no more."""
        if not self._engine.closed:
            self._engine.unhook(self._memory)
            self._engine.unhook_code(self._code)

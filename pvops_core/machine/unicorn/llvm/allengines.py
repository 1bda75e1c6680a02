"""All engines of a machine at once: what must be asked of, or done to, each of them while the machine stands still.

A call of the library through Python costs several times what the call itself does; with 72 vCPUs that is most of a
live patch. These loops are machine code.
"""

from __future__ import annotations

import ctypes
import enum
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.errors import MachineError
from pvops_core.machine.unicorn import engine as uc
from pvops_core.machine.unicorn.controlarea import without_leaving
from pvops_core.machine.unicorn.llvm.routines import I32, I64, Source, addresses_of
from pvops_core.x86 import MSR_EFER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pvops_core.machine.unicorn.engine import Engine
    from pvops_core.machine.unicorn.llvm.emit import Routine

COLUMNS: Final = ("cr0", "cr3", "cr4", "cs", "eflags", "rip", "msr", "efer")
"""What :meth:`AllEngines.look` gives of each engine, in this order; an MSR's number stands before its value."""
_READ: Final = COLUMNS[: COLUMNS.index("efer")]  # EFER is asked for at its number, and comes behind it
_POINTER: Final = 8


class _Slot(enum.IntEnum):
    """The words that the loops work on."""

    COUNT = 0
    ENGINES = 1
    CONTROL = 2
    READ_BATCH = 3
    IDS = 4
    POINTERS = 5
    FAILED = 6
    CHOSEN_COUNT = 7
    CHOSEN = 8


def _drop(at: Routine) -> None:
    """Drop translated code of [begin, end) on each engine that is chosen."""
    begin, end = at.arguments
    with at.each(at.get(_Slot.CHOSEN_COUNT)) as number:
        engine = at.load64(at.add(at.get(_Slot.CHOSEN), at.multiply(number, _POINTER)))
        status = at.call(_Slot.CONTROL, engine, I32(uc.REMOVE_CODE), begin, end)
        # A failure of one must not keep the others from dropping theirs: the last is told when all are done.
        with at.when(at.wide(status), "!=", 0):
            at.put(_Slot.FAILED, at.wide(status))
    at.done()


def _look(at: Routine) -> None:
    """Read the registers of each engine."""
    with at.each(at.get(_Slot.COUNT)) as number:
        engine = at.load64(at.add(at.get(_Slot.ENGINES), at.multiply(number, _POINTER)))
        pointers = at.add(at.get(_Slot.POINTERS), at.multiply(number, _POINTER * len(_READ)))
        status = at.call(_Slot.READ_BATCH, engine, at.get(_Slot.IDS), pointers, I32(len(_READ)))
        with at.when(at.wide(status), "!=", 0):
            at.put(_Slot.FAILED, at.wide(status))
    at.done()


@functools.cache
def _loops() -> tuple[Callable[..., None], Callable[..., int]]:
    """The loops of this process."""
    addresses = addresses_of("engines", {"drop": Source(_drop, (I64, I64)), "look": Source(_look, ())})
    drop = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p)(addresses["drop"])
    look = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(addresses["look"])
    return drop, look


class AllEngines:
    """The engines of one machine.

    Args:
        engines: in the order of their vCPUs; they stay as long as this does.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        count = len(engines)
        self._drop, self._look = _loops()
        self._engines = np.array([engine.handle for engine in engines], dtype=np.uint64)
        self._chosen = self._engines.copy()
        own_width = {"rip": "rip" if engines[0].bits == 64 else "eip"}
        self._ids = (ctypes.c_int * len(_READ))(*(uc.REGISTER_IDS[own_width.get(name, name)] for name in _READ))
        # A vCPU has a row, so that a column is one register of all of them.
        self._values = np.zeros((count, len(COLUMNS)), dtype=np.uint64)
        # The batch reads an MSR whose number stands where its value's structure begins.
        self._values[:, COLUMNS.index("msr")] = MSR_EFER
        start = self._values.ctypes.data
        places = [start + 8 * (row * len(COLUMNS) + column) for row in range(count) for column in range(len(_READ))]
        self._pointers = (ctypes.c_void_p * len(places))(*places)
        self._words = (ctypes.c_uint64 * len(_Slot))(
            count,
            self._engines.ctypes.data,
            uc.function_address("uc_ctl"),
            uc.function_address("uc_reg_read_batch"),
            ctypes.addressof(self._ids),
            ctypes.addressof(self._pointers),
            0,
            count,
            self._chosen.ctypes.data,
        )
        self._address = ctypes.addressof(self._words)

    def choose(self, rows: NDArray[np.bool_] | None = None) -> None:
        """Which engines ``drop`` is for from now on: those whose row is true; all unless given."""
        chosen = self._engines if rows is None else self._engines[rows]
        self._words[_Slot.CHOSEN_COUNT] = len(chosen)
        self._chosen[: len(chosen)] = chosen

    def drop(self, begin: int, end: int) -> None:
        """Drop translated code of [begin, end), within one page, on the chosen engines.

        They must be able to fetch from there: one that cannot would meet a fault when it next runs.
        """
        self._drop(begin, end, self._address)
        self._check("removal of code")

    def look(self) -> NDArray[np.uint64]:
        """A row for each engine, of :data:`COLUMNS`; the array is read anew by the next look."""
        without_leaving(self._look, self._address)
        self._check("register read")
        return self._values

    def _check(self, what: str) -> None:
        status = self._words[_Slot.FAILED]
        if status:
            self._words[_Slot.FAILED] = 0
            raise MachineError(f"Unicorn: {what} failed: {uc.ERROR_NAMES.get(status, status)}")

"""Lists of registers, read or written in one call of the library each."""

from __future__ import annotations

import ctypes
import re
import struct
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from pvops_core.errors import MachineError
from pvops_core.machine.unicorn import engine as uc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pvops_core.kinds import MachineKind

_WIDE = {f"r{name}": f"e{name}" for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip", "flags")}
_NO_WORDS = re.compile(r"(?:[xyz]mm|st|fp)\d+|[gil]dtr|tr|msr|invalid|ending")
"""Unicorn's names of what is no register of at most 64 bits, and so would be written over more memory than that."""
_ONLY_64 = frozenset({f"r{number}" for number in range(8, 16)} | {"fs_base", "gs_base"})


def register_id(kind: MachineKind, name: str) -> int:
    """Unicorn's number of a register. The 64-bit names mean the 32-bit registers on a 32-bit machine.

    Raises:
        MachineError: no such register on this kind of machine.
    """
    if kind.bits == 32:
        # 64-bit names are what code for both widths uses; a 32-bit guest has the low halves.
        name = _WIDE.get(name, name)
    elif name == "flags":
        name = "rflags"
    number = uc.REGISTER_IDS.get(name)
    if number is None or _NO_WORDS.fullmatch(name) or (kind.bits == 32 and name in _ONLY_64):
        raise MachineError(f"{kind.value} has no register {name!r}")
    return number


class Movable(Protocol):
    """Registers whose instruction pointer can be set on its own."""

    rip: int


class Batch:
    """A fixed list of registers, read or written in one call of the library."""

    __slots__ = ("_count", "_engine", "_ids", "_moves", "_pointers", "_struct", "_values")

    def __init__(self, engine: uc.Engine, ids: Iterable[int], moves: tuple[Movable, int] | None = None) -> None:
        numbers = tuple(ids)
        self._moves = moves
        count = len(numbers)
        self._engine = engine.pointer
        self._count = count
        self._ids = (ctypes.c_int * count)(*numbers)
        self._values = (ctypes.c_uint64 * count)()
        # Unicorn writes each register through its own pointer, so they are made once and point into one array.
        start = ctypes.addressof(self._values)
        self._pointers = (ctypes.c_void_p * count)(*(start + 8 * index for index in range(count)))
        self._struct = struct.Struct(f"{count}Q")

    def read(self) -> tuple[int, ...]:
        """The registers' values, unsigned."""
        uc.reg_read_batch(self._engine, self._ids, self._pointers, self._count)
        return self._struct.unpack(self._values)

    def put(self, value: int) -> None:
        """Set the only one, which RIP is not; the value is cut to 64 bits."""
        self._values[0] = value
        uc.reg_write_batch(self._engine, self._ids, self._pointers, 1)

    def write(self, *values: int) -> None:
        """Set all of them; values are cut to 64 bits."""
        self._values[:] = values  # type: ignore[call-overload]  # any sequence will do
        uc.reg_write_batch(self._engine, self._ids, self._pointers, self._count)
        if self._moves is not None:  # only a single write of RIP makes the engine leave the block it is in
            registers, place = self._moves
            registers.rip = values[place]


class MsrBatch:
    """A fixed list of model-specific registers, read in one call of the library."""

    __slots__ = ("_arguments", "_values")

    def __init__(self, engine: uc.Engine, numbers: Iterable[int]) -> None:
        self._values = tuple(uc.MsrValue(number, 0) for number in numbers)
        count = len(self._values)
        ids = (ctypes.c_int * count)(*[uc.REGISTER_IDS["msr"]] * count)
        pointers = (ctypes.c_void_p * count)(*map(ctypes.addressof, self._values))
        self._arguments = (engine.pointer, ids, pointers, count)

    def read(self) -> tuple[int, ...]:
        """The registers' values as the CPU keeps them (0 for one that it does not have)."""
        uc.read_batch_with_msrs(*self._arguments)
        return tuple([each.value for each in self._values])


class MixedBatch:
    """Registers and one model-specific register behind them, read in one call.

    Attributes:
        read: reads them; what they are is in ``values`` and ``msr`` then. It is called for every access that Python
            makes to guest memory, so that it is the library's function itself.
        values: the registers.
        msr: the model-specific register, in its ``value``.
    """

    def __init__(self, engine: uc.Engine, names: Iterable[str], msr: int) -> None:
        ids = [uc.REGISTER_IDS[name] for name in names]
        count = len(ids)
        self.values: Final = (ctypes.c_uint64 * count)()
        self.msr: Final = uc.MsrValue(msr, 0)
        start = ctypes.addressof(self.values)
        pointers = [*(start + 8 * index for index in range(count)), ctypes.addressof(self.msr)]
        numbers = (ctypes.c_int * (count + 1))(*ids, uc.REGISTER_IDS["msr"])
        places = (ctypes.c_void_p * (count + 1))(*pointers)
        self.read: Final = partial(uc.read_batch_with_msrs, engine.pointer, numbers, places, count + 1)

"""A code hook whose bounds and data are moved while it stands.

The library's handle of a hook is the address of its structure (``struct hook`` of its uc_priv.h), and it compares the
bounds there when it translates an instruction. Where they lie is found by the values given at first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

from pvops_core.errors import MachineError

_FIRST, _LAST, _DATA = 0x7E31_5A0B_C4D2_9F01, 0x7E31_5A0B_C4D2_9F02, 0x7E31_5A0B_C4D2_9F03
_SIZE: Final = 72
"""Bytes of the structure that are looked through."""
_NOWHERE: Final = (1 << 64) - 1  # no instruction begins here


class MovableHook:
    """One such hook, which stands nowhere until it is moved.

    Args:
        add: adds a code hook of these bounds and data, and gives its handle.
    """

    def __init__(self, add: Callable[[int, int, int], int]) -> None:
        self._handle = add(_FIRST, _LAST, _DATA)
        self._places = _places(self._handle)
        self.rest()

    def move(self, first: int, last: int, data: int) -> None:
        """Have it called, with this data, before instructions from first to last that are translated from now on."""
        for at, value in zip(self._places, (first, last, data), strict=True):
            ctypes.c_uint64.from_address(self._handle + at).value = value

    def cover(self) -> None:
        """Stand everywhere."""
        self.move(0, _NOWHERE, 0)

    def rest(self) -> None:
        """Stand nowhere."""
        self.move(_NOWHERE, _NOWHERE, 0)


def _places(handle: int) -> tuple[int, ...]:
    structure = ctypes.string_at(handle, _SIZE)
    # By the numbers themselves, which nothing else in the structure has.
    found = [
        [at for at in range(0, _SIZE - 7, 8) if int.from_bytes(structure[at : at + 8], "little") == value]
        for value in (_FIRST, _LAST, _DATA)
    ]
    if any(len(each) != 1 for each in found):
        raise MachineError(
            "this build of Unicorn is not one that pvops knows: a hook's bounds are not where its handle points"
        )
    return tuple(each[0] for each in found)

"""The control area that tells engines which model-specific registers of level 0 their guest is to leave at.

One for all engines of the process, which never run at the same time: a page of control area, a bitmap of all registers,
two bits each (read, write), and one of none. Registers outside of the three ranges are always left at. Source: AMD APM
volume 2, 15.11 and appendix B.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

ADDRESS: Final = 1 << 50
"""Physical, where no page table of a guest can point."""
SIZE: Final = 0x5000
_ALL, _NONE = 0x1000, 0x3000
_BITMAP_POINTER: Final = 0x48  # MSRPM_BASE_PA (AMD APM volume 2, 15.11 and appendix B)
_RANGES: Final = (range(0x2000), range(0xC0000000, 0xC0002000), range(0xC0010000, 0xC0012000))
_TSC_AUX: Final = 0xC0000103

_memory = (ctypes.c_uint8 * (SIZE + 0x1000))()
HOST_ADDRESS: Final = ctypes.addressof(_memory) + 0xFFF & ~0xFFF  # to the next page: engines map whole ones
_pointer = (ctypes.c_uint64 * 1).from_address(HOST_ADDRESS + _BITMAP_POINTER)  # an item is set faster than .value
_TO_ALL, _TO_NONE = ADDRESS + _ALL, ADDRESS + _NONE


def _fill() -> None:
    # A 1 in the map means that a guest leaves at it (AMD APM volume 2, 15.11).
    ctypes.memset(HOST_ADDRESS + _ALL, 0xFF, _NONE - _ALL)
    # Two bits a register, range behind range
    place = (len(_RANGES[0]) + _TSC_AUX - _RANGES[1].start) * 2  # read by native code, for rdtscp
    ctypes.c_uint8.from_address(HOST_ADDRESS + _ALL + place // 8).value &= ~(1 << place % 8)
    _pointer[0] = _TO_ALL


_fill()


def held(number: int) -> bool:
    """Whether an engine may be asked for a register at all."""
    return number in _RANGES[0] or number in _RANGES[1] or number in _RANGES[2]


def without_leaving(function: Callable[..., int], *arguments: object) -> int:
    """Call the library for an MSR: outside of ``emu_start`` there is nothing to leave to."""
    _pointer[0] = _TO_NONE
    status = function(*arguments)
    # Put back at once: the next thing the engine executes must leave again.
    _pointer[0] = _TO_ALL
    return status

"""The words that a vCPU shares with its native callbacks."""

from __future__ import annotations

import ctypes
import enum

BLOCK_NS = 5
"""Virtual nanoseconds that one executed block of code takes."""


class Slot(enum.IntEnum):
    """Places in the state array; every word is a signed 64-bit number."""

    BUDGET = 0
    """Blocks that may still run before the slice ends."""
    BLOCKS = 1
    """Blocks run so far."""
    INSTRUCTIONS = 2
    """Instructions run so far, where they are counted."""
    EXPIRED = 3
    """1 once the budget has ended the slice."""
    ENGINE = 4
    """The engine's handle, then addresses of the library functions that callbacks call."""
    EMU_STOP = 5
    CONTEXT_SAVE = 6
    CONTEXT_RESTORE = 7
    CONTEXT = 8
    """The context buffer, then the addresses of words within it."""
    EXCEPTION_WORD = 9
    ERROR_WORD = 10
    SOFTWARE_WORD = 11
    ERROR_CODE = 12
    """Error code of the last exception."""
    SOFTWARE = 13
    """1 if an instruction (int n, int3, into) asked for the last exception."""


STATE_WORDS = len(Slot)
State = ctypes.c_int64 * STATE_WORDS
NO_EXCEPTION = 0xFFFFFFFF

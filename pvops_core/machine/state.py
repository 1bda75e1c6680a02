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
    ALLOWED = 1
    """What the budget was when the slice began: the difference has been run. What shortens a slice lessens both."""
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
    CLOCK = 14
    """Virtual time in nanoseconds, without the blocks of this slice."""
    TSC_OFFSET = 15
    """What the vCPU's time-stamp counter is ahead of virtual time."""
    READ_BATCH = 16
    """Addresses of uc_reg_read_batch and uc_reg_write_batch, then of their arguments."""
    WRITE_BATCH = 17
    TSC_IDS = 18
    """RAX, RDX, RCX: numbers, pointers to the values, the values."""
    TSC_POINTERS = 19
    TSC_VALUES = 20
    AUX_ID = 21
    """IA32_TSC_AUX: register number, pointer to the value; it is read to the third of the values above."""
    AUX_POINTER = 22
    AUX_VALUE = 23
    PATIENCE = 24
    """Blocks that may run after the budget has been used up, for as long as interrupts are off."""
    READ_REGISTER = 25
    """Address of uc_reg_read, the flags register's number, and where its value goes."""
    FLAGS_ID = 26
    FLAGS = 27


STATE_WORDS = len(Slot)
State = ctypes.c_int64 * STATE_WORDS
NO_EXCEPTION = 0xFFFFFFFF

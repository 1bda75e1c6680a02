"""The words that a vCPU shares with its native callbacks."""

from __future__ import annotations

import ctypes
import enum

BLOCK_NS = 5
"""Virtual nanoseconds that one run of straight code takes: what lies between two jumps that lead elsewhere."""

TSC_BLOCKS = 5
"""Runs of code whose time it takes to read the time-stamp counter: 25 ns, as many cycles as on hardware.

To the host it costs more than that: loops that wait by the counter would take long if it cost no virtual time.
"""


class StateWord(enum.IntEnum):
    """Places in the state array; every word is a signed 64-bit number."""

    BUDGET = 0
    """Runs of straight code that may still begin before the slice ends, or before the vCPU is looked at (``LATER``)."""
    ALLOWED = enum.auto()
    """What the budget was when the slice began: the difference has been run. What shortens a slice lessens both."""
    FRONTIER = enum.auto()
    """How far the present run of straight code has been executed, or will have been when its block is over.

    A block that begins there goes on with the run, however the engine came to cut it.
    """
    FRONTIER_BEFORE = enum.auto()
    """What that was before the last exception."""
    STEPPING = enum.auto()
    """1 before a slice of one block, 2 once that has begun: the next does not. The budget is -1 meanwhile."""
    INSTRUCTIONS = enum.auto()
    """Instructions run so far, where they are counted."""
    EXPIRED = enum.auto()
    """1 once the budget has ended the slice."""
    ENGINE = enum.auto()
    """The engine's handle, then addresses of the library functions that callbacks call."""
    EMU_STOP = enum.auto()
    CONTEXT_SAVE = enum.auto()
    CONTEXT_RESTORE = enum.auto()
    CONTEXT = enum.auto()
    """The context buffer, then the addresses of words within it."""
    EXCEPTION_WORD = enum.auto()
    ERROR_WORD = enum.auto()
    SOFTWARE_WORD = enum.auto()
    ERROR_CODE = enum.auto()
    """Error code of the last exception."""
    SOFTWARE = enum.auto()
    """1 if an instruction (int n, int3, into) asked for the last exception."""
    CLOCK = enum.auto()
    """Virtual time in nanoseconds, without the blocks of this slice."""
    TSC_OFFSET = enum.auto()
    """What the vCPU's time-stamp counter is ahead of virtual time."""
    READ_BATCH = enum.auto()
    """Addresses of uc_reg_read_batch and uc_reg_write_batch, then of their arguments."""
    WRITE_BATCH = enum.auto()
    TSC_IDS = enum.auto()
    """RAX, RDX, RCX: numbers, pointers to the values, the values."""
    TSC_POINTERS = enum.auto()
    TSC_LOW = enum.auto()
    TSC_HIGH = enum.auto()
    TSC_PROCESSOR = enum.auto()
    AUX_ID = enum.auto()
    """IA32_TSC_AUX: register number, pointer to the value, which becomes the third of those above."""
    AUX_POINTER = enum.auto()
    AUX_VALUE = enum.auto()
    PATIENCE = enum.auto()
    """Runs that may begin after the budget has been used up, for as long as interrupts are off."""
    WITHHELD = enum.auto()
    """Runs that the slice has beyond its budget, which was lessened for a wish from outside; patience waits for them.

    -1 once the slice has been cut short.
    """
    LATER = enum.auto()
    """Runs that the slice has beyond its budget: when that is used up, see ``pauseloops``."""
    CURTAILED = enum.auto()
    """Runs that the budget lacks to the next lookout, for a wish from outside: some of those withheld."""
    LEFT_BEFORE = enum.auto()
    """1 where a hook has stopped the engine before an instruction, at whose block it was looked for a ``pause``."""
    RESUMED = enum.auto()
    """Linear address of such a place where the slice goes on, -1 for none, and the budget that it does with."""
    RESUMED_BUDGET = enum.auto()
    LOOKED_PAGE = enum.auto()
    """Linear address of a page of guest text, -1 for none, and where it is in the host's memory, 0 if nowhere."""
    LOOKED_HOST = enum.auto()
    TRANSLATE = enum.auto()
    """Address of uc_vmem_translate, where it puts a physical address, host address and size of guest memory."""
    PHYSICAL = enum.auto()
    MEMORY = enum.auto()
    MEMORY_SIZE = enum.auto()
    READ_REGISTER = enum.auto()
    """Address of uc_reg_read, the flags register's number, and where its value goes."""
    FLAGS_ID = enum.auto()
    FLAGS = enum.auto()
    WRITE_REGISTER = enum.auto()
    """Address of uc_reg_write."""
    FAULT_IDS = enum.auto()
    """RIP and CR2 at an exception: numbers, pointers to the values, the values."""
    FAULT_POINTERS = enum.auto()
    FAULT_RIP = enum.auto()
    FAULT_ADDRESS = enum.auto()
    SYSCALL = enum.auto()
    """Address of the Python callback of syscall, and of that of ``in``."""
    PORT_IN = enum.auto()
    CALL_IDS = enum.auto()
    """The registers that syscall passes on: numbers, pointers to the values, how many; the values are at CALL."""
    CALL_POINTERS = enum.auto()
    CALL_COUNT = enum.auto()
    ANSWERED = enum.auto()
    """1 if the Python callback leaves what the first of these registers is to become in ANSWER."""
    ANSWER = enum.auto()
    FLOATING = enum.auto()
    """1 while whatever port is read gives all ones, and how often that has been done since."""
    FLOATED = enum.auto()
    SPARE = enum.auto()
    """Another context, its word of hidden flags, and whom to tell of 32-bit code."""
    SPARE_FLAGS = enum.auto()
    NARROW = enum.auto()
    CALL = enum.auto()
    """The first of CALL_WORDS words."""


CALL_WORDS = 8
STATE_WORDS = len(StateWord) - 1 + CALL_WORDS
State = ctypes.c_int64 * STATE_WORDS
NO_EXCEPTION = 0xFFFFFFFF

"""Callbacks that the engine calls at native speed, made of machine code of our own.

Each works on the array of words described in ``state`` that the engine hands over as user data. Keep these functions
few and small: they take the place of Python callbacks only where something happens hundreds of thousands of times a
run.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import attrs

from pvops_core.machine.unicorn.llvm import pauseloops
from pvops_core.machine.unicorn.llvm.routines import I32, I64, Source, addresses_of
from pvops_core.machine.unicorn.probe import HF_CS64, HF_LMA
from pvops_core.machine.unicorn.state import BLOCK_NS, NO_EXCEPTION, TSC_BLOCKS, StateWord
from pvops_core.x86 import FLAG_IF

if TYPE_CHECKING:
    from pvops_core.machine.unicorn.llvm.emit import Routine, Value

SIZE_OF_BLOCK = 10
"""Where ``uc_tb`` has it, a u16; the address comes first."""


def _block(at: Routine) -> None:
    """At every block: count it, unless it goes on where the last one ended, and remember where it ends itself.

    So a run of straight code counts once, wherever the engine has cut it: at a jump that is not taken, at a page's end,
    for its own limits, at a stop, after a single step. This runs a hundred million times a second; what it does is six
    instructions and no jump that is hard to foretell.
    """
    _, start, size = at.arguments
    before = at.get(StateWord.FRONTIER)
    left = at.subtract(at.get(StateWord.BUDGET), at.differ(start, before))
    at.put(StateWord.BUDGET, left)
    at.put(StateWord.FRONTIER, at.add(start, at.wide(size)))
    with at.when(left, "<", 0, likely=False):
        at.leave("overdrawn", start, before)
    at.done()


def _overdrawn(at: Routine) -> None:
    """The budget is used up: if a run of code begins here and nothing speaks for patience, stop the engine.

    The block does not run then, and is not counted. Patience is for a slice that was to end for an interrupt's sake,
    where the guest has interrupts off: it goes on to the first block with interrupts on. What turns them on ends its
    block, so that is the same place however the engine cuts.
    """
    start, before = at.arguments
    begins = at.differ(start, before)
    # The one block of a step: the next comes here with 2, and stops the engine.
    with at.when(at.get(StateWord.STEPPING), "==", 1):
        at.put(StateWord.STEPPING, 2)
        at.done()
    with at.when(at.get(StateWord.STEPPING), "==", 0):
        with at.when(at.add(at.get(StateWord.BUDGET), at.get(StateWord.LATER)), ">=", 0):
            at.leave("lookout", start, before)
        patience = at.get(StateWord.PATIENCE)
        # Of a slice that a deadline alone was to end, no patience is spent.
        with at.when(patience, ">", 0), at.when(at.get(StateWord.WITHHELD), "==", 0):
            # Only the bits of their conditions may be stale inside a slice.
            at.call(
                StateWord.READ_REGISTER,
                at.get(StateWord.ENGINE),
                at.narrow(at.get(StateWord.FLAGS_ID)),
                at.address(StateWord.FLAGS),
            )
            with at.when(at.both(at.get(StateWord.FLAGS), FLAG_IF), "==", 0):
                at.put(StateWord.PATIENCE, at.subtract(patience, begins))
                at.done()
            at.put(StateWord.STEPPING, 2)
        # Straight code goes on, unless a lookout that a deadline keeps away would see this place: it waits for that.
        goes_on, lookout = at.add(at.get(StateWord.STEPPING), begins), at.get(StateWord.CURTAILED)
        with at.when(goes_on, "==", 0), at.when(at.get(StateWord.WITHHELD), "<=", 0):
            at.done()
        with at.when(goes_on, "==", 0), at.when(at.add(at.get(StateWord.BUDGET), lookout), ">=", 0):
            at.done()
    # The block does not run: what it would have counted is put back.
    at.put(StateWord.BUDGET, at.add(at.get(StateWord.BUDGET), begins))
    at.put(StateWord.FRONTIER, before)
    at.put(StateWord.EXPIRED, 1)
    at.call(StateWord.EMU_STOP, at.get(StateWord.ENGINE))
    at.done()


def _instruction(at: Routine) -> None:
    """Before every instruction, where they are counted."""
    at.put(StateWord.INSTRUCTIONS, at.add(at.get(StateWord.INSTRUCTIONS), 1))
    at.done()


def _interrupt(at: Routine) -> None:
    """Before the Python callback of every exception: fetch what Unicorn does not tell, and end the exception.

    Unicorn leaves the exception marked as in progress for ever, so that the next one would count as a double fault. A
    mark of a software interrupt would have the next exit (``intercepts``) take its return address.
    """
    engine, context = at.get(StateWord.ENGINE), at.get(StateWord.CONTEXT)
    at.call(StateWord.READ_BATCH, engine, at.get(StateWord.FAULT_IDS), at.get(StateWord.FAULT_POINTERS), I32(2))
    at.call(StateWord.CONTEXT_SAVE, engine, context)
    at.put(StateWord.ERROR_CODE, at.load32(at.get(StateWord.ERROR_WORD)))
    at.put(StateWord.SOFTWARE, at.load32(at.get(StateWord.SOFTWARE_WORD)))
    word, software = at.get(StateWord.EXCEPTION_WORD), at.get(StateWord.SOFTWARE_WORD)
    with at.when(at.load32(word), "!=", NO_EXCEPTION):
        at.store32(word, NO_EXCEPTION)
        at.call(StateWord.CONTEXT_RESTORE, engine, context)
    # Kept first, since a fault that comes too early has the frontier put back by it.
    at.put(StateWord.FRONTIER_BEFORE, at.get(StateWord.FRONTIER))
    at.put(StateWord.FRONTIER, at.get(StateWord.FAULT_RIP))  # what follows in its block has not been executed
    with at.when(at.get(StateWord.SOFTWARE), "!=", 0):
        at.store32(software, 0)
        at.call(StateWord.CONTEXT_RESTORE, engine, context)
    at.done()


def _ticks(at: Routine) -> Value:
    """The time-stamp counter: virtual time and what this vCPU's is ahead of it."""
    blocks = at.subtract(at.get(StateWord.ALLOWED), at.get(StateWord.BUDGET))
    return at.add(at.add(at.get(StateWord.CLOCK), at.multiply(blocks, BLOCK_NS)), at.get(StateWord.TSC_OFFSET))


def _answer(at: Routine, registers: int) -> None:
    """EDX:EAX get the time; the first so many of the registers prepared are written."""
    # rdtsc answers with the time before it; what it takes is charged behind.
    ticks = _ticks(at)
    at.put(StateWord.CLOCK, at.add(at.get(StateWord.CLOCK), TSC_BLOCKS * BLOCK_NS))
    for slot in (StateWord.BUDGET, StateWord.ALLOWED):  # a slice is so much time, whatever it is spent on
        at.put(slot, at.subtract(at.get(slot), TSC_BLOCKS))
    at.put(StateWord.TSC_LOW, at.both(ticks, 0xFFFFFFFF))
    at.put(StateWord.TSC_HIGH, at.high(ticks))
    ids, pointers = at.get(StateWord.TSC_IDS), at.get(StateWord.TSC_POINTERS)
    at.call(StateWord.WRITE_BATCH, at.get(StateWord.ENGINE), ids, pointers, I32(registers))
    at.done(I32(1))


def _rdtsc(at: Routine) -> None:
    """Instead of rdtsc where it is allowed; 1 = the instruction is done."""
    _answer(at, 2)


def _rdtscp(at: Routine) -> None:
    """Instead of rdtscp where it is allowed: as rdtsc, and ECX from IA32_TSC_AUX."""
    at.call(
        StateWord.READ_BATCH, at.get(StateWord.ENGINE), at.get(StateWord.AUX_ID), at.get(StateWord.AUX_POINTER), I32(1)
    )
    # IA32_TSC_AUX (SDM volume 2, RDTSCP).
    at.put(StateWord.TSC_PROCESSOR, at.load32(at.get(StateWord.AUX_VALUE)))
    _answer(at, 3)


def _syscall(at: Routine) -> None:
    """Around the Python callback of syscall: the registers that it wants come in, the one that it answers goes out."""
    engine, ids = at.get(StateWord.ENGINE), at.get(StateWord.CALL_IDS)
    # Only the registers that this platform passes calls in, in one call of the library.
    at.call(StateWord.READ_BATCH, engine, ids, at.get(StateWord.CALL_POINTERS), at.narrow(at.get(StateWord.CALL_COUNT)))
    at.put(StateWord.ANSWERED, 0)
    at.call(StateWord.SYSCALL, *at.arguments, at.address(StateWord.BUDGET))
    with at.when(at.get(StateWord.ANSWERED), "!=", 0):
        at.call(StateWord.WRITE_REGISTER, engine, at.narrow(at.load32(ids)), at.address(StateWord.ANSWER))
    at.done()


def _port_in(at: Routine) -> None:
    """Before the Python callback of in: while all ports float, none is needed."""
    size = at.arguments[2]
    with at.when(at.get(StateWord.FLOATING), "!=", 0):
        at.put(StateWord.FLOATED, at.add(at.get(StateWord.FLOATED), 1))
        at.done(at.ones(size))
    at.done(at.call(StateWord.PORT_IN, *at.arguments, at.address(StateWord.BUDGET)))


def _translated(at: Routine) -> None:
    """A block has been translated, on a 64-bit machine: tell of it if it is 32-bit code under a 64-bit kernel."""
    _, block, _ = at.arguments
    start = at.load64(block)
    # Above 4 GiB it is 64-bit code, and there is nothing to look at.
    with at.when(at.both(start, ~0xFFFFFFFF), "!=", 0, likely=True):
        at.done()  # to save the context takes as long as a hundred instructions
    at.call(StateWord.CONTEXT_SAVE, at.get(StateWord.ENGINE), at.get(StateWord.SPARE))
    with at.when(at.both(at.load32(at.get(StateWord.SPARE_FLAGS)), HF_LMA | HF_CS64), "==", HF_LMA):
        at.call(StateWord.NARROW, start, at.both(at.load32(at.add(block, SIZE_OF_BLOCK)), 0xFFFF))
    at.done()


_CODE = (I64, I64, I32)
_SOURCES = {
    "block": Source(_block, _CODE),
    "overdrawn": Source(_overdrawn, (I64, I64)),
    "lookout": Source(pauseloops.lookout, (I64, I64)),
    "instruction": Source(_instruction, _CODE),
    "interrupt": Source(_interrupt, (I64, I32)),
    "rdtsc": Source(_rdtsc, (I64,), I32),
    "rdtscp": Source(_rdtscp, (I64,), I32),
    "syscall": Source(_syscall, (I64,)),
    "port_in": Source(_port_in, (I64, I32, I32), I32),
    "translated": Source(_translated, (I64, I64, I64)),
}


@attrs.frozen
class NativeCallbacks:
    """Addresses of the callbacks."""

    block: int
    instruction: int
    interrupt: int
    rdtsc: int
    rdtscp: int
    syscall: int
    port_in: int
    translated: int


@functools.cache
def callbacks() -> NativeCallbacks:
    """The callbacks of this process."""
    addresses = addresses_of("callbacks", _SOURCES)
    wanted = {field.name for field in attrs.fields(NativeCallbacks)}  # the others are called by these
    return NativeCallbacks(**{name: at for name, at in addresses.items() if name in wanted})

"""Callbacks that the engine calls at native speed: numba compiles them to C functions, cached on disk.

Each works on the array of words described in ``state`` that the engine hands over as user data. Addresses of
functions and buffers are words of that array too, so compiled code holds no address of one process and can be
shared by all. Keep these functions few and small: they take the place of Python callbacks only where something
happens hundreds of thousands of times a run.

Importing this module costs the import of numba; only ``Machine`` does, when one is made.
"""

from __future__ import annotations

import functools
from typing import Any

import attrs
from llvmlite import ir
from numba import cfunc, types
from numba.extending import intrinsic
from numba.np.numpy_support import carray as untyped_carray

from pvops_core.machine.blockhook import compile_block
from pvops_core.machine.state import BLOCK_NS, NO_EXCEPTION, STATE_WORDS, Slot

# Plain integers: numba freezes module constants into what it compiles.
_BLOCKS, _INSTRUCTIONS = int(Slot.BLOCKS), int(Slot.INSTRUCTIONS)
_ENGINE, _SAVE, _RESTORE = (
    int(Slot.ENGINE),
    int(Slot.CONTEXT_SAVE),
    int(Slot.CONTEXT_RESTORE),
)
_CONTEXT, _EXCEPTION_WORD, _ERROR_WORD, _SOFTWARE_WORD = (
    int(Slot.CONTEXT),
    int(Slot.EXCEPTION_WORD),
    int(Slot.ERROR_WORD),
    int(Slot.SOFTWARE_WORD),
)
_ERROR_CODE, _SOFTWARE = int(Slot.ERROR_CODE), int(Slot.SOFTWARE)
_CLOCK, _TSC_OFFSET, _READ_BATCH, _WRITE_BATCH = (
    int(Slot.CLOCK),
    int(Slot.TSC_OFFSET),
    int(Slot.READ_BATCH),
    int(Slot.WRITE_BATCH),
)
_TSC_IDS, _TSC_POINTERS, _TSC_VALUES = int(Slot.TSC_IDS), int(Slot.TSC_POINTERS), int(Slot.TSC_VALUES)
_AUX_ID, _AUX_POINTER, _AUX_VALUE = int(Slot.AUX_ID), int(Slot.AUX_POINTER), int(Slot.AUX_VALUE)

_I32, _I64 = ir.IntType(32), ir.IntType(64)
Emitter = Any  # numba and llvmlite have no types
carray: Emitter = untyped_carray


def _call(_typing: Emitter, _function: Emitter, _first: Emitter, _second: Emitter) -> tuple[Emitter, Emitter]:
    """Call the C function at an address with two pointers; a function of one ignores the second."""

    def emit(context: Emitter, builder: Emitter, _signature: Emitter, arguments: Emitter) -> Emitter:
        kind = ir.FunctionType(_I32, [_I64, _I64])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


def _load(_typing: Emitter, _address: Emitter) -> tuple[Emitter, Emitter]:
    """The unsigned 32-bit word at an address."""

    def emit(_context: Emitter, builder: Emitter, _signature: Emitter, arguments: Emitter) -> Emitter:
        return builder.zext(builder.load(builder.inttoptr(arguments[0], _I32.as_pointer())), _I64)

    return types.int64(types.int64), emit


def _store(_typing: Emitter, _address: Emitter, _value: Emitter) -> tuple[Emitter, Emitter]:
    """Write a 32-bit word to an address."""

    def emit(context: Emitter, builder: Emitter, _signature: Emitter, arguments: Emitter) -> Emitter:
        pointer = builder.inttoptr(arguments[0], _I32.as_pointer())
        builder.store(builder.trunc(arguments[1], _I32), pointer)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


def _call_batch(
    _typing: Emitter, _function: Emitter, _engine: Emitter, _ids: Emitter, _values: Emitter, _count: Emitter
) -> tuple[Emitter, Emitter]:
    """Call uc_reg_read_batch or uc_reg_write_batch at an address."""

    def emit(context: Emitter, builder: Emitter, _signature: Emitter, arguments: Emitter) -> Emitter:
        kind = ir.FunctionType(_I32, [_I64, _I64, _I64, _I32])
        count = builder.trunc(arguments[4], _I32)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [*arguments[1:4], count])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), emit


# The compiled side calls these without the typing context, which type checkers cannot know.
call_batch: Emitter = intrinsic(_call_batch)
call: Emitter = intrinsic(_call)
load: Emitter = intrinsic(_load)
store: Emitter = intrinsic(_store)


def _instruction(_engine: Emitter, _address: Emitter, _size: Emitter, data: Emitter) -> None:
    """Before every instruction, where they are counted."""
    words = carray(data, STATE_WORDS)
    words[_INSTRUCTIONS] += 1


def _interrupt(_engine: Emitter, _vector: Emitter, data: Emitter) -> None:
    """Before the Python callback of every exception: fetch what Unicorn does not tell, and end the exception.

    Unicorn leaves the exception marked as in progress for ever, so that the next one would count as a double fault.
    """
    words = carray(data, STATE_WORDS)
    call(words[_SAVE], words[_ENGINE], words[_CONTEXT])
    words[_ERROR_CODE] = load(words[_ERROR_WORD])
    words[_SOFTWARE] = load(words[_SOFTWARE_WORD])
    if load(words[_EXCEPTION_WORD]) != NO_EXCEPTION:
        store(words[_EXCEPTION_WORD], NO_EXCEPTION)
        call(words[_RESTORE], words[_ENGINE], words[_CONTEXT])


def _rdtsc(_engine: Emitter, data: Emitter) -> Emitter:
    """Instead of rdtsc where it is allowed: EDX:EAX from virtual time; 1 = the instruction is done."""
    words = carray(data, STATE_WORDS)
    ticks = words[_CLOCK] + words[_BLOCKS] * BLOCK_NS + words[_TSC_OFFSET]
    store(words[_TSC_VALUES], ticks & 0xFFFFFFFF)
    store(words[_TSC_VALUES] + 8, (ticks >> 32) & 0xFFFFFFFF)
    call_batch(words[_WRITE_BATCH], words[_ENGINE], words[_TSC_IDS], words[_TSC_POINTERS], 2)
    return 1


def _rdtscp(_engine: Emitter, data: Emitter) -> Emitter:
    """Instead of rdtscp where it is allowed: as rdtsc, and ECX from IA32_TSC_AUX."""
    words = carray(data, STATE_WORDS)
    call_batch(words[_READ_BATCH], words[_ENGINE], words[_AUX_ID], words[_AUX_POINTER], 1)
    ticks = words[_CLOCK] + words[_BLOCKS] * BLOCK_NS + words[_TSC_OFFSET]
    store(words[_TSC_VALUES], ticks & 0xFFFFFFFF)
    store(words[_TSC_VALUES] + 8, (ticks >> 32) & 0xFFFFFFFF)
    store(words[_TSC_VALUES] + 16, load(words[_AUX_VALUE]))
    call_batch(words[_WRITE_BATCH], words[_ENGINE], words[_TSC_IDS], words[_TSC_POINTERS], 3)
    return 1


@attrs.frozen
class Callbacks:
    """Addresses of the compiled callbacks, with the objects that keep their code in memory."""

    block: int
    instruction: int
    interrupt: int
    rdtsc: int
    rdtscp: int
    keep: tuple[object, ...]


def _compile(signature: Emitter, function: Emitter) -> Emitter:
    try:
        return cfunc(signature, cache=True)(function)
    except RuntimeError:  # no place where numba may write its cache
        return cfunc(signature)(function)


@functools.cache
def callbacks() -> Callbacks:
    """The compiled callbacks of this process."""
    pointer_to: Emitter = types.CPointer
    words = pointer_to(types.int64)
    code = types.void(types.voidptr, types.uint64, types.uint32, words)
    interrupt = types.void(types.voidptr, types.uint32, words)
    replaces = types.int32(types.voidptr, words)
    block, block_code = compile_block()
    instruction = _compile(code, _instruction)
    interrupted = _compile(interrupt, _interrupt)
    rdtsc, rdtscp = _compile(replaces, _rdtsc), _compile(replaces, _rdtscp)
    return Callbacks(
        block=block,
        instruction=instruction.address,
        interrupt=interrupted.address,
        rdtsc=rdtsc.address,
        rdtscp=rdtscp.address,
        keep=(block_code, instruction, interrupted, rdtsc, rdtscp),
    )

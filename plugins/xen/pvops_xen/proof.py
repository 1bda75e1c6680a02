"""What is not compared where xen's hooks are held against a kernel's own functions, and why."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pvops_core.backends.proof import ProofNotes, Unread
from pvops_xen.hypervisor.abi import MMUEXT_ARGUMENTS, Hypercall, MmuExt
from pvops_xen.hypervisor.hypercalls import arity
from pvops_xen.public import XEN

if TYPE_CHECKING:
    from pvops_core.guest.types.structs import Structures

_WORD: Final = 8
_ENTRY: Final = 64
"""Bytes of a struct multicall_entry."""
_OPERATION: Final = XEN["mmuext_op"]
_BITS: Final = 64
_BATCH: Final = "struct mc_buffer"
_RUNSTATE: Final = "struct vcpu_runstate_info"
Stretches = Iterator[tuple[int, int]]


def beyond_use(structures: Structures, cpu: int) -> Stretches:
    """What of a CPU's ``mc_buffer`` lies behind its counts, and what the entries before them have not got."""
    buffer = structures.per_cpu("mc_buffer", cpu)
    entries, args, callbacks = (structures.offset(_BATCH, name) for name in ("entries", "args", "callbacks"))
    callback = structures.types.size(buffer.callbacks.number_)
    # What lies behind the counts was written and does not count yet.
    used = entries + _ENTRY * buffer.mcidx, args + buffer.argidx, callbacks + callback * buffer.cbidx
    ends = args, callbacks, structures.types.size(buffer.number_)
    for begin, end in zip(used, ends, strict=True):
        yield buffer.address_ + begin, end - begin
    for number in range(buffer.mcidx):
        yield from _not_of(structures, buffer.address_ + entries + _ENTRY * number)


def _not_of(structures: Structures, entry: int) -> Stretches:
    """Of an entry that waits: its result, and what neither its hypercall nor the operations in its array take."""
    # An entry is number, result, then arguments; of these only as many as the call takes are compared.
    call, _result, array, count = struct.unpack("<4Q", structures.read(entry, 4 * _WORD))
    arguments = 2 * _WORD + arity(call) * _WORD
    yield entry + _WORD, _WORD
    yield entry + arguments, _ENTRY - arguments
    if call != Hypercall.MMUEXT_OP:
        return
    size, first = _OPERATION.size(_BITS), _OPERATION.offset("arg1", _BITS)
    # An mmuext_op's command says which of its two arguments it has.
    for at in range(array, array + count * size, size):
        command = int.from_bytes(structures.read(at, 4), "little")
        yield at + 4, first - 4
        for number in {1, 2} - {*MMUEXT_ARGUMENTS.get(MmuExt(command), (1,))}:
            yield at + _OPERATION.offset(f"arg{number}", _BITS), _WORD


def runstate_times(structures: Structures, cpu: int) -> Stretches:
    """All of a CPU's ``xen_runstate`` but the state."""
    # Everything behind the state: virtual times, which a hook does not spend.
    times = structures.offset(_RUNSTATE, "state_entry_time")
    yield structures.per_cpu("xen_runstate", cpu).address_ + times, structures.offset(_RUNSTATE, "time") + 4 * 8 - times


PROOF: Final = ProofNotes(
    result_bits={"save_fl": 0x200},  # xen_save_fl_direct sets IF's bit of AX and leaves the others as they were
    scratch={
        "xen_mc_irq_flags": "what save_fl gave, all its bits, from xen_mc_batch to xen_mc_issue",
        "traps.*": "xen_load_idt's static table, filled anew for each set_trap_table, which is compared",
    },
    unread={
        "mc_buffer": Unread(
            beyond_use,
            "entries, arguments and callbacks from mcidx, argidx and cbidx on are written before they count; Xen takes "
            "of each entry the arguments of its hypercall, whose arrays are compared",
            "__xen_mc_entry, xen_mc_callback and xen_mc_flush, arch/x86/xen/multicalls.c",
        ),
        "xen_runstate": Unread(
            runstate_times,
            "virtual times, which a hook does not spend",
            "VCPUOP_register_runstate_memory_area, xen/include/public/vcpu.h",
        ),
    },
    returns=frozenset({"iret"}),
    event_mask=frozenset({"xen_vcpu_info"}),
)
"""What the backend declares."""

"""A vCPU that waits for another in a loop with ``pause`` gives up its turn, as under a hypervisor.

On a machine that runs one vCPU at a time, who waits for another waits for its own slice's end; and at each ``pause``
the engine leaves the translated code and comes back. Processors have *PAUSE-loop exiting* for the same trouble (Intel
SDM volume 3, 25.1.3, and ``ple_gap`` and ``ple_window`` of KVM and Xen). Here a slice has a lookout now and then: for
some runs of straight code, and if one of them goes on behind a ``pause``, the slice ends there. When that is depends on
nothing but what the guest has executed, so a run can be repeated.

What comes before a block is read from guest memory natively, since it has no other sign: the engine tells of
instructions only where a hook was there before they were translated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.unicorn.engine import PROT_EXEC
from pvops_core.machine.unicorn.llvm.routines import I32, I64
from pvops_core.machine.unicorn.state import NO_EXCEPTION, StateWord
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.machine.unicorn.llvm.emit import Routine, Value

FIRST: Final = 256
"""Runs of a slice before its first lookout, where another vCPU could run instead; the scheduler's mean."""
BETWEEN: Final = 8192
"""Runs from one to the next."""
LENGTH: Final = 16
"""Runs that a lookout lasts: the loops of kernels have fewer, those around ``rdtsc`` among them."""
_PAUSE: Final = int.from_bytes(bytes.fromhex("f390"), "little")
_NO_PAGE: Final = -1


def lookout(at: Routine) -> None:
    """At a block, while a slice has runs beyond its budget: is it behind a pause? The budget is below 0 meanwhile."""
    start, before = at.arguments
    budget = at.get(StateWord.BUDGET)
    with at.when(budget, "<", -LENGTH, likely=False):
        _put_off(at, budget)
        at.done()
    # Where a stop has cut what a jump has led to, it seems to go on from there when it is resumed.
    with at.when(start, "==", at.get(StateWord.RESUMED)), at.when(budget, "==", at.get(StateWord.RESUMED_BUDGET)):
        at.done()
    place = at.subtract(start, 2)
    offset = at.both(place, PAGE - 1)
    with at.when(start, "==", before), at.when(offset, "!=", PAGE - 1):
        page = at.subtract(place, offset)
        with at.when(page, "!=", at.get(StateWord.LOOKED_PAGE)):
            _find(at, page)
        host = at.get(StateWord.LOOKED_HOST)
        with at.when(host, "!=", 0), at.when(at.load16(at.add(host, offset)), "==", _PAUSE):
            at.put(StateWord.FRONTIER, before)
            at.put(StateWord.EXPIRED, 1)
            at.put(StateWord.WITHHELD, -1)
            at.call(StateWord.EMU_STOP, at.get(StateWord.ENGINE))
    at.done()


def _put_off(at: Routine, budget: Value) -> None:
    """The lookout is over: the next comes later, or the slice's end."""
    total = at.add(budget, at.get(StateWord.LATER))
    at.put(StateWord.ALLOWED, at.subtract(at.get(StateWord.ALLOWED), budget))
    at.put(StateWord.LOOKED_PAGE, _NO_PAGE)
    at.put(StateWord.BUDGET, BETWEEN)
    at.put(StateWord.CURTAILED, 0)
    with at.when(total, "<", BETWEEN):
        at.put(StateWord.BUDGET, total)
        at.put(StateWord.CURTAILED, at.subtract(I64(BETWEEN), total))
    now = at.get(StateWord.BUDGET)
    at.put(StateWord.ALLOWED, at.add(at.get(StateWord.ALLOWED), now))
    at.put(StateWord.LATER, at.subtract(total, now))


def _find(at: Routine, page: Value) -> None:
    """Where a page of text is in the host's memory; asked once a lookout, since the library takes its time."""
    engine = at.get(StateWord.ENGINE)
    at.put(StateWord.LOOKED_PAGE, page)
    at.put(StateWord.LOOKED_HOST, 0)
    # A translation that fails leaves CR2 and an exception behind
    ids, pointers = at.get(StateWord.FAULT_IDS), at.get(StateWord.FAULT_POINTERS)
    at.call(StateWord.READ_BATCH, engine, ids, pointers, I32(2))
    status = at.wide(at.call(StateWord.TRANSLATE, engine, page, I32(PROT_EXEC), at.address(StateWord.PHYSICAL)))
    with at.when(status, "==", 0), at.when(at.get(StateWord.PHYSICAL), "<", at.get(StateWord.MEMORY_SIZE)):
        at.put(StateWord.LOOKED_HOST, at.add(at.get(StateWord.MEMORY), at.get(StateWord.PHYSICAL)))
    with at.when(status, "!=", 0, likely=False):
        _undo(at, engine)


def _undo(at: Routine, engine: Value) -> None:
    """Nothing has happened."""
    context, word = at.get(StateWord.CONTEXT), at.get(StateWord.EXCEPTION_WORD)
    at.call(StateWord.CONTEXT_SAVE, engine, context)
    at.store32(word, NO_EXCEPTION)
    at.call(StateWord.CONTEXT_RESTORE, engine, context)
    cr2 = at.narrow(at.load32(at.add(at.get(StateWord.FAULT_IDS), 4)))
    at.call(StateWord.WRITE_REGISTER, engine, cr2, at.address(StateWord.FAULT_ADDRESS))

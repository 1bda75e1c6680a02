"""Python called when a vCPU touches a stretch of memory: what debuggers call a watchpoint.

The engine tells physical addresses, and by these an access is judged: whatever other address the same memory has, it is
seen there too. Only what vCPUs execute is seen, not what Python code stores for them. While there is one, every access
and every instruction is looked at natively, which makes all code several times slower. As breakpoints they belong to
the machine and not to its snapshots.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import MachineError
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.engines import WATCHED, Watch
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.exits.cpuslot import CpuSlot
    from pvops_core.machine.run.runloop import RunLoop

_ALL: Final = (0, (1 << 64) - 1)


@attrs.frozen(eq=False)
class Watchpoint:
    """One watchpoint.

    Attributes:
        address: guest-virtual address of the first byte, as the vCPU that makes an access has it mapped then.
        length: bytes, 1 to a page's.
        action: called with the vCPU, RIP at the instruction, while that makes the access; a stop or pause that it asks
            for takes effect before the next instruction.
        loads: whether loads are told.
        stores: whether stores are.
    """

    address: int
    length: int
    action: Callable[[Vcpu], None]
    loads: bool
    stores: bool

    def touched(self, vcpu: Vcpu, physical: int, size: int) -> bool:
        """Whether an access at a physical address is one of its memory."""
        at, end = self.address, self.address + self.length
        while at < end:  # once, or twice where a page ends within
            piece = min(end, (at | PAGE - 1) + 1) - at
            try:
                start = vcpu.walk(at, user=False).pa
            except GuestFault:
                start = None
            if start is not None and start < physical + size and physical < start + piece:
                return True
            at += piece
        return False


class Watchpoints:
    """The watchpoints of one machine."""

    def __init__(self, loop: RunLoop, slots: list[CpuSlot]) -> None:
        self._loop = loop
        self._slots = slots
        self._all: list[Watchpoint] = []
        self._watches: list[Watch] = []

    def add(self, watchpoint: Watchpoint) -> Watchpoint:
        """Have it told from now on, whichever vCPU makes the access.

        Raises:
            MachineError: a handler is running, there are as many as the engine takes, or it is no stretch of a page's
                length at most.
        """
        self._outside()
        if not 1 <= watchpoint.length <= PAGE:
            raise MachineError(f"{watchpoint.length} bytes cannot be watched: it is 1 to {PAGE}")
        if len(self._all) == WATCHED:
            raise MachineError(f"no more than {WATCHED} stretches of memory can be watched")
        self._all.append(watchpoint)
        self._renew()
        return watchpoint

    def remove(self, watchpoint: Watchpoint) -> None:
        """Never tell it again; nothing happens if it is not there.

        Raises:
            MachineError: a handler is running.
        """
        self._outside()
        if watchpoint in self._all:
            self._all.remove(watchpoint)
            self._renew()

    def _outside(self) -> None:
        if self._loop.in_guest:
            raise MachineError("watchpoints change from inside a handler: defer it")

    def _renew(self) -> None:
        while self._watches:
            self._watches.pop().close()
        if not self._all:
            return
        spans = [(each.address, each.length) for each in self._all]
        loads = any(each.loads for each in self._all)
        for slot in self._slots:
            touched, trap = partial(self._touched, slot), partial(self._trap, slot)
            self._watches.append(Watch(slot.engine, spans, touched, trap, loads=loads))
            slot.addresses.gates_last(*_ALL)

    def _touched(self, slot: CpuSlot, physical: int, size: int, write: bool) -> int:  # noqa: FBT001 - as the engine tells it
        """An access that may be one; whether the engine is to come out before the next instruction."""
        wanted = [each for each in self._all if (each.stores if write else each.loads)]
        found = [each for each in wanted if each.touched(slot.vcpu, physical, size)]
        for each in found:
            try:
                each.action(slot.vcpu)
            except BaseException as error:  # noqa: BLE001 - handed on by the run loop
                self._loop.fail(error)
        return bool(found)

    def _trap(self, slot: CpuSlot, address: int) -> None:
        self._watches[slot.vcpu.index].hits = 0
        slot.handlers.run_at(lambda _vcpu, _address: None, address)

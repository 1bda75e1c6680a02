"""Calls one op, or one function of the built-in guest's, as the guest does, and says what it did."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.errors import MachineError
from pvops_core.patching.poke import Poke
from pvops_core.session.callee import Callee
from pvops_core.session.calls import CallError
from pvops_core.testing.meter import Meter

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.session import Session
    from pvops_core.testing.effect import CallFault, Effect

__all__ = ("CallError", "Caller")

ROOM: Final = 0x80
"""Bytes of the guest's text for code of tests: the end of the padding before its gates."""
LIMIT: Final = 200_000_000
"""Virtual time that a call may take, in ns: calibrating a clock takes some tens of milliseconds."""
_LOAD: Final = {32: b"\x8b\x00\xc3", 64: b"\x48\x8b\x07\xc3"}
"""``return *first`` in the guest's calling convention."""
_STORE: Final = {32: b"\x89\x10\xc3", 64: b"\x48\x89\x37\xc3"}
"""``*first = second; return``."""


@attrs.frozen(slots=False)
class Caller:
    """Makes calls in one session of the built-in guest; the fixture ``call``.

    The call goes through the op's slot as unpatched text does. Afterwards the vCPU stands where it stood
    (:mod:`pvops_core.session.calls`).

    Attributes:
        session: the session, its first vCPU standing in the guest's kernel.
    """

    session: Session

    @property
    def cpu(self) -> Vcpu:
        """The vCPU that calls."""
        return self.session.machine.vcpus[0]

    @cached_property
    def _meter(self) -> Meter:
        return Meter(self.session)

    @cached_property
    def text(self) -> int:
        """Guest-virtual address of room for code."""
        guest = self.session.builtin
        start = guest.gates_address - ROOM
        if any(start <= address < start + ROOM for address in guest.symbols.values()):
            raise MachineError(f"the guest has no padding of {ROOM} bytes before its gates")
        return start

    def __call__(self, op: str, *arguments: int) -> Effect:
        """Call an op through its slot.

        Args:
            op: hook name of the op.
            *arguments: its arguments in the order of the layout's C prototype.

        Raises:
            UsageError: the layout has no such op, its slot is empty, it is no function, or takes fewer arguments.
            CallError: it did not come back.
        """
        return self.measure(self._meter.calls.op(op, *arguments))

    def function(self, name: str, *arguments: int) -> Effect:
        """Call a C function of the guest's by its symbol; its result is a register's width.

        Args:
            name: the symbol.
            *arguments: words, in C order; on i386 one of 64 bits is two, low word first.

        Raises:
            UsageError: the guest has no such symbol.
            CallError: it did not come back.
        """
        return self.measure(self._meter.calls.function(name, *arguments))

    def refused(self, op: str, *arguments: int) -> CallFault:
        """Call an op that is to end in a fault that the guest cannot go on from; gives the last fault.

        Raises:
            AssertionError: it came back, or ended without a fault.
        """
        try:
            done = self(op, *arguments)
        except CallError as error:
            if error.faults:
                return error.faults[-1]
            raise
        raise AssertionError(f"{op} came back with {done.result:#x}; it was to be refused")

    def load(self, va: int) -> int:
        """A pointer-sized word as the guest's own instruction reads it; CallError if that faults for good."""
        return self._code(f"a load from {va:#x}", _LOAD, va).result

    def store(self, va: int, value: int) -> Effect:
        """A pointer-sized word written by the guest's own instruction; CallError if that faults for good."""
        return self._code(f"a store to {va:#x}", _STORE, va, value)

    def page(self) -> int:
        """Guest-virtual address of a fresh page, zeroed, from the guest's own allocator."""
        return self.function("alloc_page").result

    def physical(self, va: int) -> int:
        """The guest's physical address (``__pa``) of an address in its image or linear mapping."""
        return va - self.session.builtin.kernel_base

    def virtual(self, pa: int) -> int:
        """Guest-virtual address (``__va``) of one of the guest's physical addresses."""
        return pa + self.session.builtin.kernel_base

    def write(self, code: bytes) -> None:
        """Write code into the padding, through the one writer of text."""
        poker = self.session.switchboard.poker
        now = poker.read(np.array([self.text], dtype=np.uint64), len(code))[0].tobytes()
        # A transaction is an event in the log, and drops translations: none for what is there already.
        if now != code:
            poker.transaction([Poke(self.text, now, code)], by="testing")

    def run(self, code: bytes) -> None:
        """Run code in the padding with the registers as they are, until it comes to its end; they are left so.

        Raises:
            CallError: it did not come to its end.
        """
        self.write(code)
        self.cpu.rip = self.text
        what, end = "the code did not come to its end", self.text + len(code)
        self._meter.calls.run(what, self.cpu, end, [], alone=False, max_ns=LIMIT)

    def _code(self, what: str, code: dict[int, bytes], *arguments: int) -> Effect:
        bits = self.session.guest.kind.bits
        self.write(code[bits])
        return self.measure(Callee.function(what, self.text, bits, *arguments))

    def measure(self, callee: Callee) -> Effect:
        """Make a call; CallError if it does not come back."""
        return self._meter.measure(self.cpu, callee, interrupts=True, max_ns=LIMIT)

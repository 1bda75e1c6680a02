"""Calls one op, or one function of the guest's, as the guest does, and says what it did.

The call is made by machine code in the padding of the guest's text, on the stack that the guest stands on, through the
op's slot as unpatched text goes. Afterwards the vCPU stands where it stood, with the registers that a call may destroy
put back: to the guest a call is a detour, and it can go on from there.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import attrs
import numpy as np

from pvops_core.errors import MachineError, UsageError
from pvops_core.ops import Convention, signature
from pvops_core.ops.abi import CALLER_SAVED
from pvops_core.patching.poke import Poke
from pvops_core.testing.changes import ARITHMETIC, Look
from pvops_core.testing.effect import Effect, Fault, Tally
from pvops_core.testing.landing import UD2, Landing

if TYPE_CHECKING:
    from pvops_core.machine import Stop, Vcpu
    from pvops_core.ops import Place, Signature
    from pvops_core.session import Session

ROOM: Final = 0x80
"""Bytes of the guest's text that calls use: the end of the padding before its gates."""
DEAD_STACK: Final = 0x1000
PAGE_FAULT: Final = 14
LIMIT: Final = 200_000_000
"""Virtual time that a call may take, in ns: calibrating a clock takes some tens of milliseconds."""
ARGUMENTS: Final = {32: ("eax", "edx", "ecx"), 64: ("rdi", "rsi", "rdx", "rcx", "r8", "r9")}


class CallError(AssertionError):
    """A call did not come back.

    Attributes:
        stop: how the run ended.
        faults: the exceptions on the way.
    """

    def __init__(self, message: str, stop: Stop, faults: tuple[Fault, ...]) -> None:
        super().__init__(message)
        self.stop = stop
        self.faults = faults


class Watch(Landing):
    """A landing that also notes the exceptions on the way, those among them that a hook ran into.

    Args:
        session: the session.
        address: guest-virtual address of the landing.
    """

    def __init__(self, session: Session, address: int) -> None:
        super().__init__(session.machine, address)
        self.faults: list[Fault] = []
        self._watched = session.platform

    def _note(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        self.faults.append(Fault(vector, error_code, vcpu.rip, address))
        type(self._watched).exception(self._watched, vcpu, vector, error_code, address)

    def __enter__(self) -> Self:
        # Exceptions reach the platform from the machine and from the switchboard; both come by here.
        vars(self._watched)["exception"] = self._note
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        del vars(self._watched)["exception"]


@attrs.frozen(slots=False)
class Caller:
    """Makes calls in one session; the fixture ``call``.

    Attributes:
        session: the session, its first vCPU standing in the guest's kernel.
    """

    session: Session

    @property
    def cpu(self) -> Vcpu:
        """The vCPU that calls."""
        return self.session.machine.vcpus[0]

    @cached_property
    def _before(self) -> Look:
        return Look(self.session, self.cpu)

    @cached_property
    def text(self) -> int:
        """Guest-virtual address of the code that calls."""
        guest = self.session.builtin
        start = guest.gates_address - ROOM
        if any(start <= address < start + ROOM for address in guest.symbols.values()):
            raise MachineError(f"the guest has no padding of {ROOM} bytes before its gates")
        return start

    def __call__(self, op: str, *arguments: int) -> Effect:
        """Call an op through its slot.

        Args:
            op: hook name of the op.
            *arguments: its arguments in the order of the layout's C prototype; those left out are 0.

        Raises:
            UsageError: the layout has no such op, it is no function, or takes fewer arguments.
            CallError: it did not come back.
        """
        session = self.session
        slot = session.layout.by_op(op)
        if slot.op.convention in {Convention.NONE, Convention.JUMP}:
            raise UsageError(f"{op} of layout {session.layout.name} is not called ({slot.op.convention.value})")
        how = signature(slot, session.layout.kind)
        place = session.guest.symbols[slot.symbol] + slot.offset
        registers, stack = self._places(op, how.places, arguments)
        return self._detour(op, b"\xff\x15" + self._operand(place), registers, stack, how)

    def function(self, name: str, *arguments: int) -> Effect:
        """Call a C function of the guest's by its symbol; its result is a register's width.

        Args:
            name: the symbol.
            *arguments: words, in C order; on i386 one of 64 bits is two, low word first.

        Raises:
            UsageError: the guest has no such symbol.
            CallError: it did not come back.
        """
        guest = self.session.guest
        if name not in guest.symbols:
            raise UsageError(f"the guest has no function {name!r}")
        stack = arguments[len(ARGUMENTS[guest.kind.bits]) :]
        code = b"\xe8" + struct.pack("<i", guest.symbols[name] - (self.text + 5))
        return self._detour(name, code, self._in_registers(*arguments), stack, None)

    def refused(self, op: str, *arguments: int) -> Fault:
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
        code = b"\x48\x8b\x07" if self.session.guest.kind.bits == 64 else b"\x8b\x00"
        return self._detour(f"a load from {va:#x}", code, self._in_registers(va), (), None).result

    def store(self, va: int, value: int) -> Effect:
        """A pointer-sized word written by the guest's own instruction; CallError if that faults for good."""
        code = b"\x48\x89\x37" if self.session.guest.kind.bits == 64 else b"\x89\x10"
        return self._detour(f"a store to {va:#x}", code, self._in_registers(va, value), (), None)

    def _in_registers(self, *arguments: int) -> Mapping[str, int]:
        return dict(zip(ARGUMENTS[self.session.guest.kind.bits], arguments, strict=False))

    def page(self) -> int:
        """Guest-virtual address of a fresh page, zeroed, from the guest's own allocator."""
        return self.function("alloc_page").result

    def physical(self, va: int) -> int:
        """The guest's physical address (``__pa``) of an address in its image or linear mapping."""
        return va - self.session.builtin.kernel_base

    def virtual(self, pa: int) -> int:
        """Guest-virtual address (``__va``) of one of the guest's physical addresses."""
        return pa + self.session.builtin.kernel_base

    def _operand(self, place: int) -> bytes:
        if self.session.guest.kind.bits == 64:
            return struct.pack("<i", place - (self.text + 6))
        return struct.pack("<I", place)

    def _places(
        self, op: str, places: Sequence[Place], arguments: Sequence[int]
    ) -> tuple[Mapping[str, int], Sequence[int]]:
        """Arguments as registers by name and words of the stack, lowest address first."""
        if len(arguments) > len(places):
            raise UsageError(f"{op} takes {len(places)} arguments, not {len(arguments)}")
        bits = self.session.guest.kind.bits
        registers: dict[str, int] = {}
        stack: list[int] = []
        for number, place in enumerate(places):
            value = arguments[number] if number < len(arguments) else 0
            words = [value >> shift & ((1 << bits) - 1) for shift in range(0, place.bits, bits)]
            if place.registers:
                registers |= dict(zip(place.registers, words, strict=True))
            else:
                stack += words
        return registers, stack

    def _detour(
        self, what: str, code: bytes, registers: Mapping[str, int], stack: Sequence[int], how: Signature | None
    ) -> Effect:
        session, cpu = self.session, self.cpu
        lost = frozenset(CALLER_SAVED[session.guest.kind.bits])
        kept = {name: cpu.get(name) for name in (*lost, "rip", "rsp")}
        arithmetic = cpu.rflags
        self.write(code + UD2)
        for name, value in registers.items():
            cpu.set(name, value)
        for word in reversed(stack):
            cpu.push(word)
        self._before.take()
        tally, top = Tally.of(session), cpu.rsp
        cpu.rip = self.text
        with Watch(session, self.text + len(code)) as landing:
            stop = session.run(max_ns=LIMIT)
        faults = tuple(landing.faults)
        if not landing.reached:
            raise CallError(_ended(what, stop, faults), stop, faults)
        gone = how.clobbers | set(how.result) if how else lost
        if any(fault.vector == PAGE_FAULT for fault in faults):
            gone |= {"cr2"}  # of a fault that the platform dealt with, so that nobody else will look there
        dead = range(top - DEAD_STACK, top)
        changed = self._before.changes(lost=gone, dead=dead)
        effect = tally.effect(session, what, self._result(how), changed, faults)
        for name, value in kept.items():
            cpu.set(name, value)
        cpu.rflags = cpu.rflags & ~ARITHMETIC | arithmetic & ARITHMETIC
        return effect

    def _result(self, how: Signature | None) -> int:
        bits = self.session.guest.kind.bits
        if how is None:
            return self.cpu.get("rax" if bits == 64 else "eax")
        value = sum(self.cpu.get(name) << number * bits for number, name in enumerate(how.result))
        return value & (1 << how.result_bits) - 1

    def write(self, code: bytes) -> None:
        """Write code into the padding, through the one writer of text."""
        poker = self.session.switchboard.poker
        now = poker.read(np.array([self.text], dtype=np.uint64), len(code))[0].tobytes()
        if now != code:
            poker.transaction([Poke(self.text, now, code)], by="testing")


def _ended(what: str, stop: Stop, faults: Sequence[Fault]) -> str:
    text = f"{what} did not come back: {stop.reason} {stop.detail}".rstrip()
    if faults:
        last = faults[-1]
        text += f"; last fault: vector {last.vector}, error code {last.error_code}, RIP {last.rip:#x}"
        text += f", address {last.address:#x}" if last.address is not None else ""
    return text

"""Calls of guest code from outside, made in one way by tests, proofs, live patches and prompts.

A call is made in the mode and on the stack that a vCPU stands in. No text is written for it: it returns into the midst
of the instruction at which the vCPU stands, where nothing is ever executed, and who looks through the stack for return
addresses, before text is written, finds that somebody is going to come back there.

Afterwards the vCPU stands where it stood, with the general registers and arithmetic flags that it had: to the guest a
call is a detour, and it can go on from there. What else the call has changed, control registers too, stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import MachineError, UsageError
from pvops_core.machine import BLOCK_NS
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.cpu.registers import GENERAL
from pvops_core.machine.handler import Shadows
from pvops_core.machine.run.stops import Stop
from pvops_core.machine.run.watchdog import where
from pvops_core.ops import Convention, signature
from pvops_core.patching.code.disasm import instruction_lengths
from pvops_core.session.callee import Callee
from pvops_core.x86 import ARITHMETIC, FLAG_DF, FLAG_IF, PAGE

if TYPE_CHECKING:
    from pvops_core.machine import Machine, Vcpu
    from pvops_core.machine.run.watchdog import SymbolAt
    from pvops_core.ops import Layout, Slot

LIMIT: Final = 1_000_000_000
"""Virtual time that a call may take unless told otherwise, in ns."""
# System V ABI, 3.2.2.
_ALIGNMENT: Final = 16
_LOOKED_THROUGH: Final = 64
# Blocks in one go, after which the clock is looked at.
_STRIDE: Final = 200_000
_IRQ_OPS: Final = ("save_fl", "irq_disable", "irq_enable")


@attrs.frozen
class CallFault:
    """An exception of the guest's.

    Attributes:
        vector: 0 to 31.
        error_code: as the CPU gives it; None for vectors that have none.
        rip: guest-virtual address of the instruction.
        address: linear address of a page fault, else None.
    """

    vector: int
    error_code: int | None
    rip: int
    address: int | None


@attrs.define(eq=False)
class CallError(MachineError, AssertionError):
    """Guest code that was called did not come back. In a test that is a failure and no crash.

    Attributes:
        stop: how the run ended.
        faults: the exceptions on the way.
    """

    stop: Stop = attrs.field(kw_only=True)
    faults: tuple[CallFault, ...] = attrs.field(kw_only=True)


@attrs.define(eq=False)
class GuestCall:
    """A call whose vCPU stands at the first instruction, or has returned.

    Attributes:
        callee: what is called.
        cpu: who calls; afterwards the vCPU that has come back, where the guest has moved the thread meanwhile.
        faults: the exceptions on the way, those that somebody has dealt with among them.
    """

    callee: Callee
    cpu: Vcpu
    faults: list[CallFault]
    _calls: Calls
    _landing: int
    _returned: range

    def make(self, *, alone: bool, max_ns: int = LIMIT) -> None:
        """Run until it has returned.

        Args:
            alone: no other vCPU runs meanwhile and no interrupt is delivered; else the whole machine runs.
            max_ns: virtual time that it may take.

        Raises:
            CallError: it has not; the machine stands where that was noticed.
        """
        what = f"{self.callee.what} did not come back"
        self.cpu = self._calls.run(what, self.cpu, self._landing, self.faults, alone=alone, max_ns=max_ns)
        if self.cpu.rsp not in self._returned:
            stop = Stop("strayed", "to where it was called from, on another stack")
            raise self._calls.error(what, stop, self.faults)


def _unknown(name: str) -> int:
    """Where no function has a name."""
    raise UsageError(f"no function {name!r}: nothing is known of the guest's symbols")


@attrs.frozen(eq=False)
class Calls:
    """Makes calls on one machine.

    Attributes:
        machine: the machine.
        symbol_at: names addresses.
        find: gives the guest-virtual address of a function of the guest's by its symbol, or raises a UsageError.
        layout: its table of ops; None where it has none that is known.
        target: gives what a slot holds now.
    """

    machine: Machine
    symbol_at: SymbolAt
    find: Callable[[str], int] = attrs.field(default=_unknown)
    layout: Layout | None = None
    target: Callable[[Slot], int] = attrs.field(default=lambda _slot: 0)

    def op(self, name: str, *arguments: int) -> Callee:
        """An op, by hook name.

        Raises:
            UsageError: the guest has no such op, its slot is empty, it is no function, or takes fewer arguments.
        """
        if self.layout is None:
            raise UsageError(f"{name} cannot be called: the guest has no table of ops that is known here")
        slot = self.layout.by_op(name)
        if slot.op.convention in {Convention.NONE, Convention.JUMP}:
            raise UsageError(f"{name} of layout {self.layout.name} is not called ({slot.op.convention.value})")
        address = self.target(slot)
        if not address:
            raise UsageError(f"{name} has an empty slot")
        return Callee.op(signature(slot, self.layout.kind), address, *arguments)

    def function(self, function: str | int, *arguments: int) -> Callee:
        """A C function, by symbol or guest-virtual address; a 64-bit argument on i386 is two words, low word first.

        Raises:
            UsageError: the guest has no such symbol.
        """
        bits = self.machine.kind.bits
        if isinstance(function, int):
            return Callee.function(f"{function:#x}", function, bits, *arguments)
        return Callee.function(function, self.find(function), bits, *arguments)

    @contextmanager
    def standing(self, cpu: Vcpu, callee: Callee, landing: int | None = None) -> Iterator[GuestCall]:
        """Put a vCPU at a function as its caller would, and, if it has returned, put it back where it stood.

        Args:
            cpu: who calls.
            callee: what is called.
            landing: guest-virtual address that it returns to, at which nobody else ever executes an instruction; by
                default the midst of the instruction at which the vCPU stands.

        Raises:
            UsageError: the machine is running.
            GuestFault: the stack cannot be written.
        """
        machine, names = self.machine, GENERAL[self.machine.kind.bits]
        if machine.running:
            raise UsageError(f"{callee.what} is to be called while the machine runs")
        landing = self._midst(cpu) if landing is None else landing
        kept = cpu.batch(*names, "rsp", "rip").read()
        # Arithmetic flags and DF are the caller's business; IF stays what the guest makes of it.
        flags = cpu.rflags & (ARITHMETIC | FLAG_DF)
        rsp, size = cpu.rsp, machine.kind.pointer_size
        # The stack is aligned where a call is made (System V ABI, 3.2.2), so after the return too.
        top = rsp - size * len(callee.stack) & -_ALIGNMENT
        self._store(cpu, top - size, (landing, *callee.stack))
        # A breakpoint where it stands must not be met again when it comes back.
        standing = machine.breakpoints.displace(cpu)
        cpu.wake()
        for name, value in callee.registers.items():
            cpu.set(name, value)
        # DF is clear at every call (System V ABI, 3.2.1).
        cpu.rflags &= ~FLAG_DF
        cpu.rsp, cpu.rip = top - size, callee.address
        # A 32-bit callee may take its arguments off the stack, and the address of a structure that it gives back.
        popped = size * (len(callee.stack) + 1) if machine.kind.bits == 32 else 0
        call = GuestCall(callee, cpu, [], self, landing, range(top, top + popped + 1, size))
        yield call
        back = call.cpu
        back.batch(*names, "rsp", "rip").write(*kept)
        back.rflags = back.rflags & ~ARITHMETIC | flags
        machine.breakpoints.displace(back, standing)

    @contextmanager
    def quiet(self, cpu: Vcpu) -> Iterator[None]:
        """Have the guest itself switch interrupts off, and on again if they were: its table of ops knows how."""
        layout = self.layout
        # Without ops the CPU's own flag is all there is.
        if layout is None or not all(layout.has_slot(op) for op in _IRQ_OPS):
            on = cpu.rflags & FLAG_IF
            cpu.rflags &= ~FLAG_IF
            yield
            cpu.rflags |= on
            return
        save_fl, irq_disable, irq_enable = (self.op(name) for name in _IRQ_OPS)
        on = self.plain(cpu, save_fl) & FLAG_IF
        self.plain(cpu, irq_disable)
        yield
        if on:
            self.plain(cpu, irq_enable)

    def plain(self, cpu: Vcpu, callee: Callee, *, landing: int | None = None, max_ns: int = LIMIT) -> int:
        """Call something alone, for its result."""
        with self.standing(cpu, callee, landing) as call:
            call.make(alone=True, max_ns=max_ns)
            return callee.result(cpu)

    def run(self, what: str, cpu: Vcpu, until: int, faults: list[CallFault], *, alone: bool, max_ns: int) -> Vcpu:
        """Run from where a vCPU stands until one is about to execute the instruction at an address: that one.

        Args:
            what: what is the matter if it does not come there.
            cpu: the vCPU.
            until: guest-virtual address.
            faults: takes the exceptions on the way.
            alone: as for :meth:`GuestCall.make`.
            max_ns: virtual time that it may take.

        Raises:
            CallError: none came there.
        """
        machine = self.machine

        def note(vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
            faults.append(CallFault(vector, error_code, vcpu.rip, address))

        machine.observe(note)
        try:
            stop = self._alone(cpu, until, max_ns) if alone else machine.run(max_ns=max_ns, until=until)
        finally:
            machine.ignore(note)
        if stop.reason != "landed":
            raise self.error(what, stop, faults)
        return next(vcpu for vcpu in (cpu, *machine.vcpus) if vcpu.rip == until)

    def _alone(self, cpu: Vcpu, until: int, max_ns: int) -> Stop:
        """Run one vCPU, a stride at a time: what the platform charges for traps is time, but no blocks of code."""
        machine, deadline = self.machine, self.machine.clock.ns + max_ns
        while (left := deadline - machine.clock.ns) > 0:
            if machine.call(cpu, until, blocks=min(_STRIDE, -(-left // BLOCK_NS))):
                return Stop("landed")
            if machine.loop.call_ended is not None:
                return machine.loop.call_ended
            if cpu.halted:
                return Stop("halted", "interrupts wait until the call is over")
        return Stop("timeout", f"{max_ns} ns of virtual time have passed")

    def error(self, what: str, stop: Stop, faults: Sequence[CallFault]) -> CallError:
        """The error for a run that ended elsewhere, with where each vCPU is and the last exception."""
        text = f"{what}: {stop.reason} {stop.detail}".rstrip() + f"; {where(self.machine, self.symbol_at)}"
        if faults:
            last = faults[-1]
            text += f"; last fault: vector {last.vector}, error code {last.error_code}, RIP {last.rip:#x}"
            text += f", address {last.address:#x}" if last.address is not None else ""
        return CallError(text, stop=stop, faults=tuple(faults))

    def _store(self, cpu: Vcpu, va: int, words: Sequence[int]) -> None:
        """Write to the stack as the guest's own call would."""
        size, platform = self.machine.kind.pointer_size, self.machine.platform
        data = b"".join(word.to_bytes(size, "little") for word in words)
        for page in sorted({va & -PAGE, va + len(data) - 1 & -PAGE}):
            try:
                # A write of the CPU would fault the page in; one from outside must ask.
                cpu.walk(max(va, page), write=True)
            except GuestFault as fault:
                if not isinstance(platform, Shadows) or not platform.demand(max(va, page), fault.error_code or 0):
                    raise
        cpu.write_virtual(va, data)

    def _midst(self, cpu: Vcpu) -> int:
        """The inside of the instruction at which a vCPU stands, or of one that follows it."""
        at = cpu.rip
        if self.machine.gates.holds(at):  # it is about to return from an op
            at = cpu.word(cpu.rsp)
        # The inside of an instruction is nowhere where execution may go on by chance.
        for length in instruction_lengths(self._text(cpu, at), self.machine.kind.bits):
            if length > 1:
                return at + 1
            at += length
        raise MachineError("nothing can be called from here: no instruction to return into", cpu.index, cpu.rip)

    @staticmethod
    def _text(cpu: Vcpu, at: int) -> bytes:
        """Some bytes of text, as far as they are mapped."""
        try:
            return cpu.virtual.read(at, _LOOKED_THROUGH, system=True)
        except GuestFault:
            return cpu.virtual.read(at, min(_LOOKED_THROUGH, -at % PAGE or PAGE), system=True)

"""Calls one function of a booted kernel, in the state in which the kernel stands, and says what it did.

The call is made from outside: arguments in registers, the return address that of the instruction before which the vCPU
stands, on the stack that it stands on. No byte of text is written. Afterwards the vCPU stands where it stood, so that
calls can follow each other; what they changed stays until the snapshot is restored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.boot.symbols import find_symbol
from pvops_core.errors import UsageError
from pvops_core.machine import Stop
from pvops_core.machine.registers import FLAG_IF
from pvops_core.machine.state import BLOCK_NS
from pvops_core.ops.abi import CALLER_SAVED
from pvops_core.testing.call import ARGUMENTS, CallError
from pvops_core.testing.kernelchanges import KernelLook

if TYPE_CHECKING:
    from pvops_core.boot import BootSession
    from pvops_core.hookspecs.platform import HypercallMade
    from pvops_core.machine import Event, Machine, Snapshot, Vcpu
    from pvops_core.testing.changes import Changes

LIMIT: Final = 1_000_000_000
"""Virtual time that a call may take unless told otherwise, in ns."""
_IRQ_OPS: Final = ("save_fl", "irq_disable", "irq_enable")
_DIRECTION: Final = 0x400
_ALIGNMENT: Final = 16


@attrs.frozen(eq=False)
class Called:
    """What a call did.

    Attributes:
        what: the function.
        result: what it returned in the first result register, unsigned.
        changes: registers and words of memory, by guest-virtual address, that are not what they were; what a C call may
            destroy and the stack below its pointer do not count.
        hypercalls: how often each hypercall was made, by name, those of multicalls among them.
        made: the hypercalls themselves, in order, each entry of a multicall before the multicall.
        traps: how often each trap was taken by the platform, by name.
        table_updates: page-table entries written through the platform.
        flushes: TLB flushes asked of the platform.
        events: what the machine logged.
        console: what the kernel printed.
        ns: virtual time that it took.
    """

    what: str
    result: int
    changes: Changes
    hypercalls: Counter[str]
    made: tuple[HypercallMade, ...]
    traps: Counter[str]
    table_updates: int
    flushes: int
    events: tuple[Event, ...]
    console: str
    ns: int

    @property
    def multicalls(self) -> tuple[HypercallMade, ...]:
        """The entries of the multicalls it made, in order."""
        return tuple(call for call in self.made if call.inner)


class KernelCaller:
    """Makes calls in one booted kernel.

    Args:
        session: its session, a vCPU standing in the kernel before an instruction.
        snapshot: of the session's machine, which has gone back to it.
        cpu: the vCPU that calls.
    """

    def __init__(self, session: BootSession, snapshot: Snapshot, cpu: Vcpu) -> None:
        self._session = session
        self._snapshot = snapshot
        self.cpu = cpu
        self._bits = session.machine.kind.bits

    @cached_property
    def _frames(self) -> Mapping[int, int]:
        platform, size = self._session.platform, int(self._session.platform.options["memory"])
        return {platform.machine_address(pa): pa for pa in range(0, size, 0x1000)}

    def __call__(self, function: str | int, *arguments: int, interrupts: bool = False, max_ns: int = LIMIT) -> Called:
        """Call a C function.

        Args:
            function: its symbol, or its guest-virtual address.
            *arguments: words, in C order; on i386 one of 64 bits is two, low word first.
            interrupts: whether interrupts are delivered and other vCPUs run meanwhile. Without, the kernel's own ops
                have switched interrupts off on this vCPU, which runs alone; what arrives waits until the machine runs
                again, and a function that waits for either does not come back.
            max_ns: virtual time that it may take.

        Raises:
            UsageError: the kernel has no such symbol.
            CallError: it did not come back; the machine stands where that was noticed.
            GuestFault: the stack that the vCPU stands on cannot be written.
        """
        name = function if isinstance(function, str) else f"{function:#x}"
        address = find_symbol(self._session.kernel.image, function) if isinstance(function, str) else function
        if self._session.machine.running:
            raise UsageError(f"{name} is to be called while the machine runs")
        if not interrupts:
            with self._interrupts_off():
                return self._call(name, address, arguments, max_ns, interrupts=False)
        return self._call(name, address, arguments, max_ns, interrupts=True)

    @contextmanager
    def _interrupts_off(self) -> Iterator[None]:
        """Have the kernel itself switch interrupts off, and on again if they were: its table of ops knows how."""
        cpu, ops = self.cpu, self._irq_ops
        if ops is None:
            on = cpu.rflags & FLAG_IF
            cpu.rflags &= ~FLAG_IF
            yield
            cpu.rflags |= on
            return
        save_fl, irq_disable, irq_enable = ops
        on = self._plain(save_fl) & FLAG_IF
        self._plain(irq_disable)
        yield
        if on:
            self._plain(irq_enable)

    @cached_property
    def _irq_ops(self) -> tuple[int, ...] | None:
        """Functions of save_fl, irq_disable and irq_enable; None where the kernel has no such ops."""
        table = self._session.table
        if table is None or not all(table.layout.has_slot(op) for op in _IRQ_OPS):
            return None
        return tuple(table.target(table.layout.by_op(op)) for op in _IRQ_OPS)

    def _plain(self, address: int) -> int:
        """Call a function without arguments, of whose doings the interrupt flag stays; gives its result."""
        cpu = self.cpu
        kept, landing = _Kept(self._session.machine, cpu), cpu.rip
        stop = self._run(landing, self._prepare(address, landing, ()), LIMIT, interrupts=False)
        if stop is not None:
            raise CallError(f"{address:#x} did not come back: {stop.reason}; {self._session.whereabouts()}", stop, ())
        result, interrupts = cpu.get("rax" if self._bits == 64 else "eax"), cpu.rflags & FLAG_IF
        kept.put_back()
        cpu.rflags = cpu.rflags & ~FLAG_IF | interrupts
        return result

    def _call(self, name: str, address: int, arguments: tuple[int, ...], max_ns: int, *, interrupts: bool) -> Called:
        cpu = self.cpu
        kept, landing = _Kept(self._session.machine, cpu), cpu.rip
        look = KernelLook(self._session, self._snapshot, cpu, self._frames)
        top = self._prepare(address, landing, arguments)
        tally = _Tally(self._session)
        try:
            stop = self._run(landing, top, max_ns, interrupts=interrupts)
        finally:
            made = tally.stop()
        if stop is not None:
            message = f"{name} did not come back: {stop.reason} {stop.detail}".rstrip()
            raise CallError(f"{message}; {self._session.whereabouts()}", stop, ())
        result = cpu.get("rax" if self._bits == 64 else "eax")
        lost = CALLER_SAVED[self._bits] | {"rip", "rsp", "esp"}
        called = tally.called(name, result, look.changes(lost=frozenset(lost)), made)
        kept.put_back()
        return called

    def _prepare(self, address: int, landing: int, arguments: tuple[int, ...]) -> int:
        """Put the vCPU at the function as a call would have; gives the stack pointer after the return."""
        cpu, size = self.cpu, self._session.machine.kind.pointer_size
        self._session.machine.breakpoints.displace(cpu)
        names, mask = ARGUMENTS[self._bits], self._session.machine.kind.mask
        spilled = arguments[len(names) :]
        # The stack is aligned where a call is made (System V ABI, 3.2.2), so after the return too.
        top = (cpu.rsp - size * len(spilled) & -_ALIGNMENT) - (0 if self._bits == 64 else size * (len(spilled) % 2))
        for number, value in enumerate(spilled):
            cpu.set_word(top + number * size, value & mask)
        cpu.set_word(top - size, landing)
        for name, value in zip(names, arguments, strict=False):
            cpu.set(name, value & mask)
        cpu.rflags &= ~_DIRECTION
        cpu.rsp = top - size
        cpu.rip = address
        return top

    def _run(self, landing: int, top: int, max_ns: int, *, interrupts: bool) -> Stop | None:
        """Run until the function has returned: None; else why it has not."""
        machine, cpu = self._session.machine, self.cpu
        cpu.wake()
        if not interrupts:
            if not machine.call(cpu, landing, blocks=max_ns // BLOCK_NS):
                halted = Stop("halted", "interrupts wait until the call is over")
                return machine.loop.call_ended or (halted if cpu.halted else Stop("timeout", f"{max_ns} ns"))
            return None if cpu.rsp >= top else Stop("strayed", "to where it was called from, on another stack")
        landed: list[Vcpu] = []

        def land(vcpu: Vcpu) -> None:
            if vcpu is cpu and vcpu.rsp >= top:
                landed.append(vcpu)
                machine.stop("landed")

        breakpoint_ = machine.break_at(landing, land)
        try:
            stop = machine.run(max_ns=max_ns)
        finally:
            machine.remove(breakpoint_)
        return None if landed else stop


class _Kept:
    """Where a vCPU stands, and with what registers."""

    def __init__(self, machine: Machine, cpu: Vcpu) -> None:
        self._machine, self._cpu = machine, cpu
        self._registers = cpu.save_registers()
        self._standing = machine.breakpoints.displace(cpu)

    def put_back(self) -> None:
        """Let it stand there again."""
        self._cpu.load_registers(self._registers)
        self._machine.breakpoints.displace(self._cpu, self._standing)


class _Tally:
    """A session's counters from when it is made on."""

    def __init__(self, session: BootSession) -> None:
        self._session = session
        platform = session.platform
        self._hypercalls, self._traps = Counter(platform.hypercalls), Counter(platform.traps)
        self._numbers = (platform.page_table_updates, platform.flushes, session.machine.clock.ns)
        self._events, self._console = len(session.machine.log), len(platform.console)
        self._made: list[HypercallMade] = []
        platform.observe(self._made.append)

    def stop(self) -> tuple[HypercallMade, ...]:
        """Observe no more; the hypercalls that were made."""
        self._session.platform.ignore(self._made.append)
        return tuple(self._made)

    def called(self, what: str, result: int, changes: Changes, made: tuple[HypercallMade, ...]) -> Called:
        """What has happened."""
        session = self._session
        platform, machine = session.platform, session.machine
        updates, flushes, ns = self._numbers
        return Called(
            what,
            result,
            changes,
            platform.hypercalls - self._hypercalls,
            made,
            platform.traps - self._traps,
            platform.page_table_updates - updates,
            platform.flushes - flushes,
            machine.log.since(self._events),
            platform.console[self._console :].decode(errors="replace"),
            machine.clock.ns - ns,
        )

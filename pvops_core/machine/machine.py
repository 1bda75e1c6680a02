"""A machine: memory, vCPUs, clock, event log, and the platform that answers its traps."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, contextmanager
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from pvops_core.errors import MachineError
from pvops_core.machine.base import MachineBase
from pvops_core.machine.engines import ENGINE_NAME, StateWord, count_spans, intercepts, native_callbacks
from pvops_core.machine.exits.cpuslot import CpuSlot
from pvops_core.machine.handler import SyscallInPlace
from pvops_core.machine.run.breakpoints import Breakpoint, Breakpoints
from pvops_core.machine.run.coherence import Coherence, Ranges
from pvops_core.machine.run.gates import Gates
from pvops_core.machine.run.runloop import RunLoop
from pvops_core.machine.run.scheduler import Scheduler
from pvops_core.machine.run.singlegates import SingleGates
from pvops_core.machine.run.stops import Stop
from pvops_core.machine.run.watchpoints import Watchpoint, Watchpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from pvops_core.kinds import MachineKind
    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.engines import SpanCounter
    from pvops_core.machine.handler import MemoryDevice, TrapHandler
    from pvops_core.machine.memory import MemorySnapshot
    from pvops_core.machine.run.stateful import Plain, Stateful

_MAX_VCPUS = 128


@attrs.frozen
class Snapshot:
    """A machine at one time; it belongs to the machine it was taken from.

    Attributes:
        memory: what its memory held, in a memory file.
        parts: the states of its own parts.
        keepers: those of whoever asked to be kept, each with its owner.
        counts: the machine's counts.
    """

    memory: MemorySnapshot
    parts: tuple[Plain, ...]
    keepers: tuple[tuple[Stateful[Any], Any], ...]
    counts: Counter[str]


class Machine(MachineBase):
    """One machine.

    Args:
        kind: word size and page-table format.
        memory: bytes of guest-physical memory from address 0.
        vcpus: how many virtual CPUs, one engine each.
        seed: decides the order and length of time slices.
        count_instructions: count every instruction exactly, at some cost.
        slice_blocks: mean length of a time slice in runs of straight code.

    Attributes:
        features: what cpuid shows of the features that the engine has (``cpumodel``); set before the run.
        identity: whose processor cpuid says it is; None for the platform's usual one.
        flushed: told of each time that Python code drops cached translations; whoever looks sets it.
        marked: told of each mark that a program makes (``MARK``), and its number; whoever counts sets it.
        unhurried: somebody looks at it in a debugger: no limit of wall time counts.
    """

    def __init__(
        self,
        kind: MachineKind,
        *,
        memory: int = 16 << 20,
        vcpus: int = 1,
        seed: int = 0,
        count_instructions: bool = False,
        slice_blocks: int = 10_000,
    ) -> None:
        if not 1 <= vcpus <= _MAX_VCPUS:
            raise MachineError(f"a machine has 1 to {_MAX_VCPUS} vCPUs, not {vcpus}")
        if slice_blocks < 1:
            raise MachineError(f"a slice of {slice_blocks} blocks is no slice")
        intercepts.check()
        super().__init__(kind, memory, seed=seed, count_instructions=count_instructions)
        self.scheduler = Scheduler(seed, slice_blocks)
        self.unhurried = False
        self._slots: list[CpuSlot] = []
        self._keepers: list[Stateful[Any]] = []
        self.loop = RunLoop(self, self.scheduler, self._slots)
        self.gates = self.loop.gates = Gates(self.loop, self.hook_gates)
        self.single_gates = SingleGates(self.loop, self._slots)
        self.breakpoints = Breakpoints(self.loop, self._slots)
        self.watchpoints = Watchpoints(self.loop, self._slots)
        native = native_callbacks()
        try:
            for index in range(vcpus):
                # In this order engines are made and numbered: who looks at one by its index finds it here.
                self._slots.append(CpuSlot(self, self.loop, index, native))
        # The engines that came about have to be freed by hand: each holds hundreds of megabytes of address space.
        except BaseException:
            self.close()
            raise
        self.vcpus: tuple[Vcpu, ...] = tuple(slot.vcpu for slot in self._slots)
        self._coherence = Coherence(self, self.loop, self._slots)

    def close(self) -> None:
        """Free the engines; the machine cannot be used afterwards."""
        for slot in self._slots:
            slot.close()
        self._slots.clear()

    def attach(self, platform: TrapHandler) -> None:
        """Set who answers the guest's traps."""
        self._platform = platform
        # Asked of the platform once: whether it can is a matter of its class.
        if isinstance(platform, SyscallInPlace):
            for slot in self._slots:
                slot.serve_in_place(platform)

    @property
    def instructions(self) -> int:
        """Instructions executed so far by all vCPUs; 0 unless they are counted."""
        return sum(slot.state[StateWord.INSTRUCTIONS] for slot in self._slots)

    @property
    def blocks(self) -> int:
        """Runs of straight code begun so far by all vCPUs, without those of a slice that is going on."""
        return sum(slot.blocks for slot in self._slots)

    @property
    def engine(self) -> str:
        """The engine, and how its CPU state lies, which is that of vCPUs in snapshots."""
        places = ",".join(map(str, attrs.astuple(self.layout)))
        return f"{ENGINE_NAME}, {len(self._slots[0].context.bytes)} bytes: {places}"

    @property
    def running(self) -> bool:
        """Whether a vCPU is executing or a handler of its is; what must see all vCPUs stopped is deferred then."""
        return self.loop.in_guest

    @property
    def behalf(self) -> int | None:
        """Index of the vCPU whose handler runs or has deferred what is done now; None where there is none."""
        return self.loop.behalf

    def run(self, *, max_ns: int | None = None, until: int | None = None, step: Collection[Vcpu] = ()) -> Stop:
        """Run until a handler stops the machine, nothing can run any more, or ``max_ns`` of virtual time have passed.

        Args:
            max_ns: virtual nanoseconds; a handler that has begun, such as a hook with hypercalls, is finished first.
            until: guest-virtual address of an instruction; the run ends, for the reason "landed", when a vCPU is about
                to execute it.
            step: the run ends, for the reason "stepped", when one of these has executed one instruction, with the traps
                that it causes: in its turn, with the interrupts that come before, so that steps leave a run as it is.

        Raises:
            MachineError: the machine is closed or running already, or the engine failed.
            BaseException: whatever a handler raised.
        """
        if not self._slots:
            raise MachineError("the machine is closed")
        return self.loop.run(max_ns, until, {vcpu.index for vcpu in step})

    def stop(self, reason: str, detail: str = "") -> None:
        """End the run once the present handler has returned."""
        self.loop.stop(Stop(reason, detail))

    def pause(self, *, at_once: bool = True) -> None:
        """End the run where it stands, for the reason "paused", unless it ends for another; the next goes on with it.

        Args:
            at_once: a handler asks for it, and it is done when that returns. Else any thread may, and the slice that is
                going on comes to its end first.
        """
        self.loop.pause(at_once=at_once)

    def interrupt(self) -> None:
        """End the present slice when the handler returns."""
        self.loop.interrupt()

    def defer(self, action: Callable[[], None]) -> None:
        """From a handler: run ``action`` when every vCPU is stopped and the handler has returned."""
        self.loop.defer(action)

    def map_device(self, address: int, size: int, device: MemoryDevice) -> None:
        """Give the vCPUs' loads and stores of a physical range without memory to a device.

        Python code that reads guest memory does not see it.

        Args:
            address: physical, at a page's beginning.
            size: bytes, whole pages.
            device: what answers.
        """
        for slot in self._slots:
            slot.addresses.map_device(address, size, device)

    def watch(self, watcher: Callable[[], int | None], *, at_once: bool = False) -> None:
        """Call ``watcher`` between slices, when no vCPU runs; it gives the time it wants to be asked at, or None.

        With ``at_once`` that is before anybody goes on, though a slice that was interrupted from outside ends by it.
        """
        self.loop.watchers.append(watcher)
        if at_once:
            self.loop.end_slice()

    def unwatch(self, watcher: Callable[[], int | None]) -> None:
        """End ``watch``."""
        self.loop.watchers.remove(watcher)

    def break_at(self, address: int, action: Callable[[Vcpu], None], *, acts: bool = True) -> Breakpoint:
        """Call ``action`` whenever a vCPU is about to execute the instruction at a guest-virtual address.

        It may be called before there is anything at the address.

        Args:
            address: of the instruction.
            action: a handler like any other.
            acts: it may move RIP or stop the machine, before the instruction. While there are breakpoints that act, all
                code runs slower by some fifth. One that only looks costs nothing elsewhere; what it defers is done, and
                a stop that it asks for takes effect, at the end of its block of code.

        Raises:
            MachineError: a handler is running; defer it.
        """
        return self.breakpoints.add(address, action, acts=acts)

    def count_spans(self, spans: Sequence[tuple[int, int]]) -> SpanCounter:
        """Count executions of spans of guest text, (guest-virtual address, length) each, from now on.

        Raises:
            MachineError: there are none, two overlap, or a handler is running.
        """
        self._not_in_guest("count_spans")
        return count_spans(self._slots, spans)

    def watch_at(
        self, address: int, length: int, action: Callable[[Vcpu], None], *, loads: bool = False, stores: bool = True
    ) -> Watchpoint:
        """Call ``action`` whenever a vCPU touches memory that it has at a guest-virtual address, while it does.

        What Python code loads and stores for a vCPU, such as a hypercall's handler, is not told. While there is one all
        code runs several times slower.

        Args:
            address: of the first byte.
            length: bytes, 1 to 4,096.
            action: a stop or pause that it asks for takes effect before the vCPU's next instruction.
            loads: tell it of loads.
            stores: tell it of stores.

        Raises:
            MachineError: a handler is running, there are 4 already, or the length is none of these.
        """
        return self.watchpoints.add(Watchpoint(address, length, action, loads, stores))

    def remove(self, place: Breakpoint | Watchpoint) -> None:
        """End ``break_at`` or ``watch_at``; MachineError from inside a handler."""
        if isinstance(place, Breakpoint):
            self.breakpoints.remove(place)
        else:
            self.watchpoints.remove(place)

    def call(self, vcpu: Vcpu, until: int, *, blocks: int) -> bool:
        """Run one vCPU alone, without delivering interrupts, until it is about to execute the instruction at ``until``.

        The caller has set its registers, and keeps and restores what it needs. Not from inside a handler.

        Args:
            vcpu: who runs.
            until: guest-virtual address of an instruction.
            blocks: runs of straight code that it may take.

        Returns:
            False if it did not come there: too few blocks, or it halted, or the machine was stopped.
        """
        return self.loop.call(self._slots[vcpu.index], until, blocks)

    def hook_gates(self, begin: int, end: int) -> None:
        """Call gates for instructions in [begin, end], on every vCPU."""
        for slot in self._slots:
            slot.addresses.hook_gates(begin, end)

    def invalidate(self, ranges: Ranges | Sequence[tuple[int, int]]) -> None:
        """Drop translated code of virtual ranges [start, end) on every engine."""
        self._coherence.invalidate(np.asarray(ranges, dtype=np.uint64).reshape(-1, 2))

    def rewritten(self, vcpu: Vcpu, page: int, *, by_itself: bool) -> None:
        """From a handler: text of a page was rewritten. The others drop what they have translated before they next run.

        Args:
            vcpu: who executes; it drops it at once, unless nobody else has written there, nor has Python code.
            page: virtual address at which all vCPUs have the page.
            by_itself: nobody has, which is for the caller to know (``turn``).
        """
        self.loop.rewritten.note(page, self._slots[vcpu.index], self.counts, known=by_itself)

    @property
    def turn(self) -> int:
        """Another number for each vCPU that executes after another one has."""
        return self.loop.rewritten.turn

    def quiesce(self, ranges: Ranges | Sequence[tuple[int, int]]) -> tuple[int, ...]:
        """Bring every vCPU out of the inside of virtual ranges (start, end), by single steps; a start is not inside.

        One that stands at a gate is inside if it was called from there: it is served, and returns.

        Returns:
            The vCPUs that do not leave in a few steps.

        Raises:
            MachineError: a handler is running (defer the call instead).
        """
        return self._coherence.quiesce(np.asarray(ranges, dtype=np.uint64).reshape(-1, 2))

    def go_on(self, until: int) -> bool:
        """One turn of those who may run, not beyond virtual time ``until``: between two slices, or outside of a run.

        Who changes something that a vCPU stands in lets it leave so. What is deferred meanwhile waits; so does a stop.

        Returns:
            False if nobody may run, or the guest has come to its end.

        Raises:
            MachineError: a handler is running (defer the call instead).
            BaseException: whatever a handler raised.
        """
        self._not_in_guest("go_on")
        return self.loop.go_on(until)

    def step(self, vcpu: Vcpu) -> None:
        """Run one instruction of a vCPU, with the traps that it causes; not from inside a handler: defer it.

        It is nobody's turn, and nothing is delivered first; ``run`` makes steps that are.
        """
        self._not_in_guest("step")
        self.loop.step(self._slots[vcpu.index])

    def keep(self, owner: Stateful[Any]) -> None:
        """Make Python state part of snapshots from now on; in memory it need not be ``Plain``.

        Raises:
            TypeError: it has no methods ``save`` and ``load``.
        """
        for method in ("save", "load"):
            if not callable(getattr(owner, method, None)):
                raise TypeError(f"{type(owner).__name__} is to be kept in snapshots and has no method {method}")
        # Twice kept is once saved, though two parts of a platform may both ask for it.
        if owner not in self._keepers:
            self._keepers.append(owner)

    def _parts(self) -> tuple[Stateful[Any], ...]:
        return (self.clock, self.log, self.scheduler, self.loop, self.gates, self.breakpoints, *self._slots)

    def snapshot(self) -> Snapshot:
        """Everything that decides how the machine goes on; not from inside a handler."""
        self._not_in_guest("snapshot")
        return self._with(self.memory.save())

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this machine; not from inside a handler."""
        self._not_in_guest("restore")
        # Memory first: loading a vCPU's state looks at page tables in it.
        self.memory.load(snapshot.memory)
        self._load(snapshot)

    @contextmanager
    def undone(self) -> Iterator[MemorySnapshot]:
        """Undo at the end what is done to the machine inside, for much less than a snapshot costs; no handler runs.

        Gives what memory holds before.
        """
        self._not_in_guest("undone")
        with ExitStack() as stack:
            before = self._with(stack.enter_context(self.memory.undone()))
            try:
                yield before.memory
            finally:
                # Memory goes back before states are loaded, which read it; at an error too, so that nothing is half
                # undone.
                stack.close()
                self._load(before)

    @property
    def owners(self) -> dict[str, Stateful[Any]]:
        """Who has a part in snapshots, by a name that is the same in every machine that is made alike; in order."""
        named: dict[str, Stateful[Any]] = {}
        for owner in (*self._parts(), *self._keepers):
            # Names by class alone would not do where there are two of one; the number is the order of registration.
            called = f"vcpu{owner.vcpu.index}" if isinstance(owner, CpuSlot) else _class_name(owner)
            numbered = (f"{called}#{again}" for again in count(2))
            named[next(name for name in chain((called,), numbered) if name not in named)] = owner
        return named

    def assemble(self, memory: MemorySnapshot, states: Mapping[str, Any], counts: Mapping[str, int]) -> Snapshot:
        """A snapshot of states by their owners' names, such as another machine that was made alike has had.

        Raises:
            KeyError: there is no state of an owner.
        """
        # By the names of this machine, in its order: another's file may have them in any.
        named = [(owner, states[name]) for name, owner in self.owners.items()]
        own = len(self._parts())
        return Snapshot(memory, tuple(state for _owner, state in named[:own]), tuple(named[own:]), Counter(counts))

    def _with(self, memory: MemorySnapshot) -> Snapshot:
        return Snapshot(
            memory,
            tuple(part.save() for part in self._parts()),
            tuple((owner, owner.save()) for owner in self._keepers),
            self.counts.copy(),
        )

    def _load(self, snapshot: Snapshot) -> None:
        """All but memory, which holds what it held by now."""
        if not self.loop.running:
            self.loop.forget()
        for part, state in zip(self._parts(), snapshot.parts, strict=True):
            part.load(state)
        for owner, state in snapshot.keepers:
            owner.load(state)
        self.counts = snapshot.counts.copy()

    def _not_in_guest(self, what: str) -> None:
        if self.loop.in_guest:
            raise MachineError(f"{what} from inside a handler: defer it")


def _class_name(owner: object) -> str:
    return f"{type(owner).__module__}.{type(owner).__qualname__}"

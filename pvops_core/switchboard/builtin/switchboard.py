"""The switchboard: which implementation each op has now, and the one way to change it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
import numpy as np

from pvops_core.errors import MachineError, OccupiedError, PvopsError, SwitchError
from pvops_core.guest.stacks.spans import Spans
from pvops_core.machine.run.stateful import Beside
from pvops_core.ops import Slot, signature
from pvops_core.patching.poke import Poke, PokeBatch, Poker
from pvops_core.switchboard import dispatch
from pvops_core.switchboard.builtin.gates import GatesState  # noqa: TC001 - states are read by their types
from pvops_core.switchboard.builtin.sitepatcher import PATCH, PATCH_ARGUMENTS, SitePatcher
from pvops_core.switchboard.builtin.siteuse import SiteUses
from pvops_core.switchboard.choosing import chosen
from pvops_core.switchboard.findings import SiteUse, Switch, SwitchState
from pvops_core.switchboard.hookfaults import HookFaults
from pvops_core.switchboard.implementation import Form, Implementation, of_callable
from pvops_core.switchboard.offeredops import BoundBackend, OfferedOps
from pvops_core.switchboard.ops import SWITCH, SWITCH_REFUSED, Ops

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.machine import GuestFault, Machine, Vcpu
    from pvops_core.patching.context import PatchContext
    from pvops_core.switchboard.builtin.gates import GateAllocator
    from pvops_core.switchboard.builtin.text import SwitchableText


class SwitchboardState(NamedTuple):
    """A switchboard in a snapshot.

    Attributes:
        current: name of the implementation of each op.
        calls: how often each op was served, by the backend whose hook did.
        history: the switches.
        sites: which sites are patched.
        gates: whose gates are whose.
        methods: ops of the methods of backends' ops that were switched to, by the implementations' names.
    """

    current: dict[str, str]
    calls: dict[str, dict[str, int]]
    history: tuple[SwitchState, ...]
    sites: tuple[bytes, ...]
    gates: GatesState
    methods: dict[str, str]


class Switchboard(Ops):
    """Gives every op of a guest an implementation, serves the guest's calls, and switches while it runs.

    Args:
        machine: the machine.
        text: the guest's text.
        bound: the backend in force, its base, its base's base, each with its ops made for this machine.
        poker: writes guest text.
        gates: gates in guest text.
        fault: gives the guest a fault that an implementation ran into.
        forced: CPU features that the platform forces on, by number; see :meth:`features`.
    """

    def __init__(
        self,
        machine: Machine,
        text: SwitchableText,
        bound: Sequence[BoundBackend],
        poker: Poker,
        gates: GateAllocator,
        fault: Callable[[Vcpu, GuestFault], None],
        forced: frozenset[int] = frozenset(),
    ) -> None:
        self._machine = machine
        self._text = text
        self._chain = tuple(bound)
        self.poker = poker
        self._gates = gates
        self.faults = HookFaults(fault, text.symbol_at)
        self._patcher = SitePatcher(text, bound, poker, gates, forced)
        self._offers = OfferedOps(text.layout, bound)
        self._current = dict(self._offers.table(self._offers.backends[0]))
        self._methods: dict[str, Implementation] = {}
        self._beside = Beside[Implementation]("the implementation")
        for backend in self._offers.backends:
            # Named now, in the order of the chain: a saved session finds its implementations by these names.
            for each in self._offers.table(backend).values():
                self._beside.name(each, each.name)  # these have the same names in every session of these backends
        self._context: PatchContext | None = None
        # By whose hook served: gate handlers hold the counters themselves, so they are refilled and never replaced.
        self._calls: dict[str, Counter[str]] = {name: Counter() for name in ("", *self._offers.backends)}
        self._history: list[Switch] = []
        machine.keep(self)

    def save(self) -> SwitchboardState:
        """State for a snapshot: who implements what, and what has been counted and noted."""
        current = {op: self._beside.name(each, each.name) for op, each in self._current.items()}
        calls = {name: dict(served) for name, served in self._calls.items()}
        history = tuple(each.plain for each in self._history)
        sites, gates = self._text.sites.save(), self._gates.save(self._beside)
        methods = {name: each.op for name, each in self._methods.items()}
        return SwitchboardState(current, calls, history, sites, gates, methods)

    def load(self, state: SwitchboardState) -> None:
        """Go back to a saved state."""
        current, calls, history, sites, gates, methods = state
        for name, op in methods.items():
            self._method_named(op, name)
        self._current = {op: self._beside.thing(name) for op, name in current.items()}
        # Gate handlers hold the counters themselves, so they are refilled and not replaced.
        for name, served in self._calls.items():
            served.clear()
            served.update(calls.get(name, {}))
        self._history[:] = (Switch(*each) for each in history)
        self._text.sites.load(sites)
        self._gates.load(gates, self._beside, self._handler)
        # Made anew when it is asked for: it holds the addresses that the table has.
        self._context = None
        self.faults.forget()

    @property
    def calls(self) -> Counter[str]:
        """How often each op was served."""
        return sum(self._calls.values(), Counter())

    @property
    def own_calls(self) -> Counter[str]:
        """The same, served by the hooks of the backend in force and not by those of its bases."""
        return self._calls[self._chain[0].backend.name].copy()

    @property
    def history(self) -> list[Switch]:
        """The switches so far, in order."""
        return self._history

    # What is there -----------------------------------------------------------------------------------------------

    def implementation(self, op: str) -> Implementation:
        """The implementation of an op now; UsageError if the layout has no such op."""
        return self._current[self._text.layout.by_op(op).op.name]

    def offered(self, op: str, backend: str) -> Implementation:
        """The implementation that a backend of the chain has for an op; SwitchError if there is none."""
        try:
            return self._offers.table(backend)[op]
        except KeyError:
            there = ", ".join(self._offers.backends)
            raise SwitchError(f"no such backend here; there are {there}", op=op, implementation=backend) from None

    def features(self) -> frozenset[int]:
        """Numbers of the CPU features that the guest's ALTERNATIVE entries find forced on."""
        return self._patcher.features(self._current)

    def empty(self, op: str) -> Implementation:
        """An empty slot, to switch an op to: calling it is a bug of the guest."""
        return Implementation(op, "empty", "", Form.EMPTY)

    def site_forms_by_op(self) -> Mapping[str, Counter[str]]:
        """How many sites of each op are indirect, direct, nop or inlined now."""
        return self._text.sites.forms(self.poker, self._text.nops)

    def site_uses(self) -> Mapping[str, SiteUse]:
        """What has become of each op that the backend in force has itself and that nobody has switched since."""
        name = self._offers.backends[0]
        own = {op: one for op, one in self._current.items() if one.backend == name}
        uses = SiteUses(self._text, self._chain, self.poker, self.context(), self.features(), self._current[PATCH])
        return uses.of(own, self._calls[name])

    # Before the guest starts -------------------------------------------------------------------------------------

    def install(self) -> None:
        """Write the gates and fill the guest's tables, once, before its first instruction."""
        code = self._gates.code()
        self.poker.transaction((self._as_built(address, new) for address, new in code.items()), by="install")
        for implementation in self._current.values():
            self._open(implementation)
        slots = (self._as_built(*self._slot_value(op, each)) for op, each in self._current.items())
        self.poker.transaction((*slots, *self._data_pokes()), by="install")

    def _open(self, implementation: Implementation) -> None:
        if implementation.form is not Form.FUNCTION:
            return
        self._gates.open(implementation, self._handler(implementation), self._vacant)

    def _vacant(self, gate: int) -> bool:
        """Nobody is about to call what stood at a gate, not even when an interrupt has been served."""
        return not self.poker.returns.inside(Spans(np.array([[gate, gate + 2]], dtype=np.uint64), retired=[gate]))

    def _handler(self, implementation: Implementation) -> Callable[[Vcpu], None]:
        slot = self._text.layout.by_op(implementation.op)
        served = self._in_guest_patch(implementation) if implementation.op == PATCH else implementation
        calls, called = self._calls[implementation.backend], signature(slot, self._text.layout.kind)
        return dispatch.handler(self._machine, called, served, calls, self.faults)

    # Patching ----------------------------------------------------------------------------------------------------

    def context(self) -> PatchContext:
        """The table as it stands, for a ``patch`` hook."""
        if self._context is None:
            self._context = self._patcher.context(self._current)
        return self._context

    def _in_guest_patch(self, implementation: Implementation) -> Implementation:
        """The ``patch`` op as the guest calls it: with a buffer in its own memory."""

        def patch(vcpu: Vcpu, type: int, clobbers: int, insnbuf: int, addr: int, len: int) -> int:
            buffer = bytearray(vcpu.read_virtual(insnbuf, len))
            op = self._text.layout.by_type(type).op.name
            # Asked of whose op it is, not of who patches: each backend patches its own ops.
            used = self._patcher.patcher(self._current, op)(self.context(), type, clobbers, buffer, addr, len)
            vcpu.write_virtual(insnbuf, bytes(buffer[:len]))
            self._text.sites.mark(addr)
            return used

        return attrs.evolve(implementation, function=patch, arguments=PATCH_ARGUMENTS)

    def apply_paravirt(self, *, by: str = "apply_paravirt") -> int:
        """Patch every site from outside, in one transaction, as the guest's own boot would; sites written."""
        sites = self._text.sites
        batches = self._patcher.batches(sites.ops, self._current, every_site=True)
        written = self.poker.transaction(arrays=list(chain.from_iterable(batches.values())), by=by)
        # All of them were written, also those whose code came out as it was.
        for shape in chain.from_iterable(map(sites.of, sites.ops)):
            shape.patched[:] = True
        return written

    # Switching ---------------------------------------------------------------------------------------------------

    def switch(self, op: str, implementation: Implementation | Callable[..., Any] | str | None, *, by: str) -> None:
        """As :meth:`Ops.switch`; of the guest itself there are no implementations."""
        try:
            new = self._implementation(self._text.layout.by_op(op).op.name, implementation)
        except PvopsError as error:
            raise _switch_error(op, implementation, error) from error
        self._switch_soon({op: new}, by)

    def switch_backend(self, backend: str, *, by: str) -> None:
        """Give every op the implementation that a backend of the chain has for it, in one transaction.

        Raises:
            SwitchError: as for :meth:`switch`.
        """
        wanted = {op: self.offered(op, backend) for op in self._current}
        # By name: two objects that do the same are no switch.
        changes = {op: new for op, new in wanted.items() if new.name != self._current[op].name}
        self._switch_soon(changes, by)

    def use(self, *patterns: str, backend: str = "", by: str = "use") -> tuple[str, ...]:
        """As :meth:`Ops.use`."""
        name = backend or self._offers.backends[0]
        slots = chosen(self._text.layout, patterns, self._offers.together)
        wanted = {slot.op.name: self.offered(slot.op.name, name) for slot in slots if not slot.op.is_data}
        self._switch_soon({op: new for op, new in wanted.items() if new is not self._current[op]}, by)
        return tuple(slot.path for slot in slots if slot.op.name in wanted)

    def _implementation(self, op: str, wanted: Implementation | Callable[..., Any] | str | None) -> Implementation:
        if wanted is None:
            return Implementation(op, "nop", "", Form.NOP)
        if isinstance(wanted, str):
            return self.offered(op, wanted)
        if isinstance(wanted, Implementation):
            return wanted
        # A method of a backend's ops is that backend's, and its patchlets speak for it.
        for bound in self._chain:
            if bound.ops is not None and getattr(wanted, "__self__", None) is bound.ops:
                return self._method(op, bound.backend, wanted)
        return of_callable(op, wanted)

    def _method(self, op: str, backend: Backend, method: Callable[..., Any]) -> Implementation:
        made = of_callable(op, method, f"{backend.name}.{method.__name__}", backend.name, backend.source)
        # Asked for twice it is one implementation, which has one gate.
        return self._methods.setdefault(made.name, made)

    def _method_named(self, op: str, name: str) -> None:
        """Know a method that a saved session had switched to."""
        backend, _, method = name.rpartition(".")
        for bound in self._chain:
            if bound.backend.name == backend and callable(found := getattr(bound.ops, method, None)):
                self._beside.name(self._method(op, bound.backend, found), name)

    def _switch_soon(self, changes: Mapping[str, Implementation], by: str) -> None:
        if self._machine.running:
            self._machine.defer(lambda: self._switch_later(changes, by))
        else:
            self._switch(changes, by)

    def _switch_later(self, changes: Mapping[str, Implementation], by: str) -> None:
        """When the hook that asked has returned. That the guest is in the way is no fault of its run."""
        try:
            self._switch(changes, by)
        except SwitchError as error:
            # Only that somebody stands in the way is no error: whoever asked is told by the history.
            if not isinstance(error.__cause__, OccupiedError):
                raise
            for op, new in changes.items():
                old, now, why = self._current[op].name, self._machine.clock.ns, str(error.__cause__)
                self._history.append(Switch(op, old, new.name, by, now, self._machine.behalf, 0, why))
                self._machine.log.record(SWITCH_REFUSED, op=op, old=old, new=new.name, by=by, why=why)

    def _switch(self, changes: Mapping[str, Implementation], by: str) -> None:
        changes = {op: new for op, new in changes.items() if new is not self._current[op]}
        current = {**self._current, **changes}
        # Gates that were opened for this are closed again if nothing comes of it.
        opened = [new for new in changes.values() if not self._gates.has(new)]
        try:
            for implementation in opened:
                self._open(implementation)
            batches = self._patcher.batches(changes, current, every_site=False)
            arrays = list(chain.from_iterable(batches.values()))
            # Slots and sites in one transaction: no vCPU ever sees a table that its sites contradict.
            self.poker.transaction(self._slot_pokes(changes), arrays=arrays, by=by)
        except BaseException as error:
            for implementation in opened:
                self._gates.close(implementation)
            if isinstance(error, PvopsError):
                op, new = next(iter(changes.items()))
                raise _switch_error(op, new, error) from error
            raise
        self._record(changes, batches, by)
        # From outside, nobody else has it: its gate goes to the next. A backend's stays for the next switch.
        for op in changes:
            if not self._current[op].backend:
                self._gates.close(self._current[op])
        self._current = current
        self._context = None

    def _record(
        self, changes: Mapping[str, Implementation], batches: Mapping[str, Sequence[PokeBatch]], by: str
    ) -> None:
        for op, new in changes.items():
            old, sites = self._current[op], sum(len(batch.addresses) for batch in batches[op])
            ns, vcpu = self._machine.clock.ns, self._machine.behalf
            self._history.append(Switch(op, old.name, new.name, by, ns, vcpu, sites))
            self._machine.log.record(SWITCH, op=op, old=old.name, new=new.name, by=by, sites=sites)

    # Slots -------------------------------------------------------------------------------------------------------

    def _slot_value(self, op: str, implementation: Implementation) -> tuple[int, bytes]:
        """Where an op's slot is, and what it holds with an implementation."""
        value = self._gates.address(implementation)
        place = self._slot_address(self._text.layout.by_op(op))
        return place, value.to_bytes(self._text.layout.pointer_size, "little")

    def _slot_pokes(self, changes: Mapping[str, Implementation]) -> Iterator[Poke]:
        """What is expected is what the board itself has put there: a slot that the guest has written is left to it."""
        for op, implementation in changes.items():
            place, new = self._slot_value(op, implementation)
            yield Poke(place, self._slot_value(op, self._current[op])[1], new)

    def _data_pokes(self) -> Iterator[Poke]:
        """Values of the slots that are no functions; one that is text (``name``) stays as the guest was built."""
        size = self._text.layout.pointer_size
        for slot, value in self._offers.data_values():
            yield self._as_built(self._slot_address(slot), (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def _slot_address(self, slot: Slot) -> int:
        try:
            return self._text.symbols[slot.symbol] + slot.offset
        except KeyError:
            raise MachineError(f"the guest has no symbol {slot.symbol}", op=slot.op.name) from None

    def _as_built(self, address: int, new: bytes) -> Poke:
        return Poke(address, self._text.built(address, len(new)), new)


def _switch_error(op: str, wanted: object, error: PvopsError) -> SwitchError:
    if isinstance(error, SwitchError):
        return error
    name = wanted.name if isinstance(wanted, Implementation) else str(getattr(wanted, "__qualname__", wanted))
    return SwitchError(str(error), op=op, implementation=name)

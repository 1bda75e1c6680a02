"""Python hooks in front of, or in place of, ops of a running kernel.

A hook has an entrance in the padding of the kernel's text: a jump to what the slot held before, then a return. While
the hook stands the slot leads to the entrance, and every site of the op is as it was built: a call through the slot.
At the entrance Python is called with the op's arguments. A result makes the guest return at once, so that the kernel's
own implementation is not called; None lets the guest jump on to it.

The kernel goes on to write its table and its sites as if there was no hook, and the hook is put in again: in front of
what the kernel has put into the slot, between two slices; at the sites, when ``alternative_instructions`` has returned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from pvops_core.errors import OccupiedError, SwitchError
from pvops_core.machine.run.eventkinds import event_kind
from pvops_core.machine.run.stateful import Beside
from pvops_core.patching.fills import find_bug
from pvops_core.patching.holders import Hold
from pvops_core.patching.poke import Poke
from pvops_core.switchboard.choosing import chosen
from pvops_core.switchboard.implementations import Form, Implementation, of_callable
from pvops_core.switchboard.kernel.entering import GUEST, Entering
from pvops_core.switchboard.kernel.kernelsites import KernelSites
from pvops_core.switchboard.kernel.ophook import OpHook, OpHookState, arguments_of, told
from pvops_core.switchboard.kernel.ownslots import OwnSlots
from pvops_core.switchboard.kernel.padding import PIECE, SitePadding
from pvops_core.switchboard.kernel.seating import Seating
from pvops_core.switchboard.mishaps import Mishaps
from pvops_core.switchboard.ops import KERNEL, Ops, Switch, SwitchState

if TYPE_CHECKING:
    from pvops_core.backends.finding.found import Found
    from pvops_core.guest import GuestText
    from pvops_core.guest.points import Passed, Points
    from pvops_core.guest.types.structs import Structures
    from pvops_core.images import KernelImage
    from pvops_core.machine import GuestFault, Machine, Vcpu
    from pvops_core.ops import Slot
    from pvops_core.patching.poke import Poker
    from pvops_core.switchboard.implementations import OfferedOps
    from pvops_core.switchboard.kernel.slots import SlotWatch
    from pvops_core.switchboard.kernel.table import OpTable

_HOOK: Final = event_kind(
    "hook",
    "A hook in front of a kernel's op was installed or removed.",
    op="str: kernel path of the op",
    name="str: of the hook",
    action="str: what was done",
    sites="int: call sites that were written",
)
_HOOK_REFUSED: Final = event_kind(
    "hook refused",
    "A hook was asked for and cannot be installed.",
    op="str: kernel path of the op",
    name="str: of the hook",
    why="str: the reason",
)

_PATCHES_SITES: Final = ("apply_paravirt", "apply_alternatives")
"""What is given records of sites to patch, the kernel's own and each module's: to 6.7, and since."""
UNPATCHED_NS: Final = 100_000
"""Until the kernel has patched itself it may write its table at any time: with hooks in it, we look this often."""


class OpHooksState(NamedTuple):
    """The hooks that stand, by op, with their names; what has been switched; the padding that is free."""

    standing: dict[str, tuple[str, OpHookState]]
    switches: tuple[SwitchState, ...]
    padding: tuple[int, ...]


class OpHooks(Ops):
    """The ops of a kernel that fills its own table, and the hooks in front of them; part of the machine's snapshots.

    Args:
        kernel: the kernel.
        machine: the machine that it runs on.
        running: its text as it is now.
        poker: the writer of its text.
        table: its table of ops.
        slots: watches that table.
        points: notes how far its boot has come.
        structures: gives its memory by its own types, what a hook is given that takes ``guest``.
        offers: makes the backends' ops for it.
    """

    def __init__(
        self,
        kernel: KernelImage,
        machine: Machine,
        running: GuestText,
        poker: Poker,
        table: OpTable,
        slots: SlotWatch,
        points: Points,
        structures: Callable[[], Structures],
        offers: Callable[[], OfferedOps],
    ) -> None:
        self._image = kernel
        self._machine = machine
        self._poker = poker
        poker.hold(self)
        self._table = table
        self._slots = slots
        self._points = points
        self._structures = structures
        self._offers = cache(offers)
        self._named = cache(table.name)
        self._padding = SitePadding(kernel)
        self._sites = KernelSites(kernel, running, table, points)
        self._seating = Seating(machine, kernel.symbols, poker, table, slots, self._sites)
        self.mishaps = Mishaps(self._fault, kernel.symbol_at)
        self._entering = Entering(machine, table.layout, structures, self.mishaps)
        self._standing: dict[str, OpHook] = {}
        self._beside = Beside[OpHook]("the hook")
        self._switches: list[Switch] = []
        slots.own(self._written)
        patches = next((name for name in _PATCHES_SITES if name in kernel.symbols), None)
        if patches is not None:
            machine.break_at(kernel.symbols[patches], self._patching, acts=False)
            lend, take = (partial(self._fill, own=own) for own in (True, False))
            OwnSlots(machine, kernel.symbols, points, patches, lend, take)
        points.listen(self._at_point, acts=False)
        machine.watch(self._wish)
        machine.keep(self)

    @property
    def standing(self) -> tuple[OpHook, ...]:
        """The hooks that stand now, by the order in which they were put in."""
        return tuple(self._standing.values())

    # As of every switchboard -----------------------------------------------------------------------------------------

    @property
    def calls(self) -> Counter[str]:
        """How often each op's hook was called."""
        return Counter({op: hook.calls for op, hook in self._standing.items()})

    @property
    def history(self) -> list[Switch]:
        """Slots that the kernel has written, and hooks that were put in and taken out."""
        return sorted((*self._slots.history, *self._switches), key=lambda switch: switch.ns)

    def implementation(self, op: str) -> Implementation:
        """The hook that stands in front of an op, else the kernel's own function; UsageError if there is no such op."""
        slot = self._table.slot(op)
        hook = self._standing.get(slot.op.name)
        return hook.wanted if hook else self._own(slot, self._table.target(slot))

    def kernels_own(self, op: str) -> str:
        """The kernel's own function for an op: of one with a hook, what comes after that."""
        hook = self._standing.get(op)
        return self._named(hook.original if hook else self._table.target(self._table.slot(op)))

    def _own(self, slot: Slot, target: int) -> Implementation:
        return Implementation(slot.op.name, self._table.name(target), KERNEL, Form.GUEST if target else Form.EMPTY)

    def switch(self, op: str, implementation: Implementation | Callable[..., Any] | str | None, *, by: str) -> None:
        """As :meth:`Ops.switch`: a callable comes in front of the kernel's own function, a backend's hook in its place.

        Where a hook stood before, the new one comes in place of that. ``"kernel:xen_write_cr3"`` is another function of
        the kernel's, by its symbol; sites that were patched call through the slot from then on.
        """
        slot = self._table.slot(op)
        standing = self._standing.get(slot.op.name)
        if isinstance(implementation, Implementation) and implementation.form is Form.GUEST:
            implementation = KERNEL
        if isinstance(implementation, str) and implementation.startswith(f"{KERNEL}:"):
            self._switches.append(self._seating.seat(slot, implementation, by, hooked=standing is not None))
            return
        if implementation == KERNEL:
            if standing is not None:
                self.remove(standing, by=by)
            return
        wanted = self._wanted(op, implementation)
        if standing is None:
            self._install([(slot, wanted)], by)
        else:
            self._exchange(standing, wanted, by)

    def _wanted(self, op: str, implementation: Implementation | Callable[..., Any] | str | None) -> Implementation:
        if isinstance(implementation, str):
            implementation = self.offered(op, implementation)
        if isinstance(implementation, Implementation) and implementation.function is not None:
            return implementation
        if not callable(implementation):
            raise SwitchError("a kernel's op can be a function, or its own", op=op, implementation=str(implementation))
        return self.check(op, implementation)

    def offered(self, op: str, backend: str) -> Implementation:
        """The implementation that a backend of the chain has for an op; SwitchError if it has none in Python."""
        name, offers = self._table.slot(op).op.name, self._offers()
        if backend not in offers.backends:
            there = ", ".join((*offers.backends, KERNEL))
            raise SwitchError(f"no such backend here; there are {there}", op=op, implementation=backend)
        found = offers.table(backend).get(name)
        if found is None or found.form is not Form.FUNCTION:
            raise SwitchError(
                f"has no hook for it ({found.form.value if found else 'none'})", op=op, implementation=backend
            )
        return found

    def use(self, *patterns: str, backend: str = "", by: str = "use") -> tuple[str, ...]:
        """As :meth:`Ops.use`."""
        offers = self._offers()
        name = backend or offers.backends[0]
        wanted = []
        for slot in chosen(self._table.layout, patterns, offers.together):
            offer = (
                offers.table(name).get(slot.op.name) if name in offers.backends else self.offered(slot.op.name, name)
            )
            if offer is not None and offer.form is Form.FUNCTION and not slot.op.is_data:
                wanted.append((slot, offer))
        fresh = [each for each in wanted if each[0].op.name not in self._standing]
        for slot, offer in wanted:
            if (standing := self._standing.get(slot.op.name)) is not None:
                self._exchange(standing, offer, by)
        self._install(fresh, by)
        return tuple(slot.path for slot, _ in wanted)

    def _exchange(self, hook: OpHook, wanted: Implementation, by: str) -> None:
        """Another function at the same entrance, whose code changes where the one looks on and the other answers."""

        def exchange() -> None:
            before, old = hook.wanted, self._entrance(hook)
            hook.wanted = wanted
            try:
                if (new := self._entrance(hook)) != old:
                    poke = Poke(hook.entrance, old, new, retires=True)
                    self._poker.transaction([poke], by=f"hook {wanted.name}", holder=self)
            except BaseException:
                hook.wanted = before
                raise
            hook.name, hook.by = wanted.name, by
            self._entering.close([hook.entrance])
            self._entering.open([hook])
            self._switched(hook, before.name, wanted.name, 0)

        if self._machine.running:
            self._machine.defer(lambda: self._later([hook], exchange))
        else:
            exchange()

    def _switched(self, hook: OpHook, old: str, new: str, sites: int) -> None:
        ns, vcpu = self._machine.clock.ns, self._machine.behalf
        self._switches.append(Switch(hook.op, old, new, hook.by, ns, sites, vcpu=vcpu))

    # Putting in and taking out ---------------------------------------------------------------------------------------

    def install(
        self, op: str, function: Callable[..., int | None], name: str = "", *, by: str = "", source: Found | None = None
    ) -> OpHook:
        """Put a hook in, at once or, from inside a handler, when that has returned.

        Args:
            op: hook name of the op, or the kernel's path of it.
            function: called as a hook of that name is: ``f(cpu, …)`` with the op's arguments, of which it may leave out
                any. None goes on to the kernel's own implementation, a number is the op's result in place of it
                (of a void op, any number).
            name: what to call it; the function's own name unless given.
            by: who asks, for the history.
            source: where the function is from, for what is said of its errors.

        Raises:
            UsageError: the kernel's table has no such op, or the hook takes ``guest`` and the kernel has no types.
            SwitchError: the op has a hook already, is no function, or the function does not fit it.
            PatchError: there is no room for an entrance, or the text is not as it should be, held by somebody
                (HeldError) or in use for longer than a millisecond (OccupiedError); nothing is changed. From inside a
                handler the last of these is in ``refused``.
        """
        wanted, slot = attrs.evolve(self.check(op, function, name), source=source), self._table.slot(op)
        if slot.op.name in self._standing:
            raise SwitchError("has a hook already", op=op, implementation=wanted.name)
        return self._install([(slot, wanted)], by or "hook")[0]

    def _install(self, wanted: Sequence[tuple[Slot, Implementation]], by: str) -> list[OpHook]:
        """Hooks of ops that have none, all or none of them."""
        hooks: list[OpHook] = []
        try:
            for slot, each in wanted:
                hooks.append(OpHook(slot.op.name, each.name, slot, self._padding.take(), wanted=each, by=by))
        except BaseException:
            for hook in hooks:
                self._padding.give_back(hook.entrance)
            raise
        self._standing |= {hook.op: hook for hook in hooks}
        if hooks:
            self._when_stopped(hooks, self._put_in)
        return hooks

    def check(self, op: str, function: Callable[..., int | None], name: str = "") -> Implementation:
        """Whether a function could be a hook of an op: what it would be, or an error as of :meth:`install`."""
        slot = self._table.slot(op)
        wanted = of_callable(slot.op.name, function, name)
        if slot.op.is_data:
            raise SwitchError("is data, not a function", op=op, implementation=wanted.name)
        known = arguments_of(slot.op)
        if unknown := [each for each in wanted.arguments if each not in {*known, GUEST}]:
            message = f"takes {unknown[0]!r}; the op's arguments are {', '.join(known) or 'none'}"
            raise SwitchError(message, op=op, implementation=wanted.name)
        if GUEST in wanted.arguments:
            self._structures()  # that there are none is told before anything is changed
        return wanted

    def remove(self, *hooks: OpHook, by: str = "hook") -> None:
        """Take hooks out, at once or, from inside a handler, when that has returned; one that is out stays out.

        The slots hold what they held, and sites what the kernel had made of them.

        Raises:
            PatchError: as for :meth:`install`; nothing is changed.
        """
        if standing := [hook for hook in hooks if self._standing.get(hook.op) is hook]:
            for hook in standing:
                hook.by = by
            self._when_stopped(standing, self._take_out)

    def _when_stopped(self, hooks: list[OpHook], action: Callable[[list[OpHook]], None]) -> None:
        if self._machine.running:
            self._machine.defer(lambda: self._later(hooks, lambda: action(hooks)))
        else:
            action(hooks)

    def _later(self, hooks: list[OpHook], action: Callable[[], None]) -> None:
        """When the handler that asked has returned. That the kernel is in the way is no fault of its run."""
        try:
            action()
        except OccupiedError as error:
            for hook in hooks:
                hook.refused = str(error)
                self._machine.log.record(_HOOK_REFUSED, op=hook.op, name=hook.name, why=hook.refused)

    def called(self, address: int) -> bool:
        """Who goes on at an entrance, or at one of its returns, has just been called from a site."""
        return any(address in {hook.entrance, hook.onward, hook.back} for hook in self._standing.values())

    def holds(self) -> Iterator[Hold]:
        """Entrances, slots and the sites that were put back to calls through them."""
        size = self._table.layout.pointer_size
        for hook in self._standing.values():
            if self._entering.is_open(hook):
                slot = self._table.address(hook.slot)
                spans = [(hook.entrance, PIECE), (slot, size), *((at, len(code)) for at, code in hook.kept.items())]
                why = f"hook {hook.name} of {hook.op} stands here; remove it first"
                yield from (Hold(start, start + length, f"hook {hook.name}", why) for start, length in spans)

    def _put_in(self, hooks: list[OpHook]) -> None:
        self._slots.look()
        pokes, kept = [], {}
        try:
            for hook in hooks:
                hook.original = self._table.target(hook.slot)
                kept[hook.op] = self._sites.patched(hook.slot)
                pokes += [
                    Poke(hook.entrance, self._padding.filler(hook.entrance), self._entrance(hook)),
                    self._table.poke(hook.slot, hook.original, hook.entrance),
                    *self._built_again(kept[hook.op]),
                ]
            self._poker.transaction(pokes, by=told(hooks))
        except BaseException:
            for hook in hooks:
                del self._standing[hook.op]
                self._padding.give_back(hook.entrance)
            raise
        self._slots.accept()
        self._entering.open(hooks)
        for hook in hooks:
            hook.kept = kept[hook.op]
            hook.originals.append(self._table.name(hook.original))
            self._note(hook, "in")
            self._switched(hook, hook.originals[-1], hook.name, hook.sites)

    def _built_again(self, kept: Mapping[int, bytes]) -> Iterator[Poke]:
        return (Poke(at, code, self._sites.built(at, len(code))) for at, code in kept.items())

    def _take_out(self, asked: list[OpHook]) -> None:
        hooks = [hook for hook in asked if self._standing.get(hook.op) is hook]  # it may be asked for more than once
        self._slots.look()
        pokes: list[Poke] = []
        for hook in hooks:
            filler = self._padding.filler(hook.entrance)
            if not hook.spread:
                pokes.append(Poke(hook.entrance, self._entrance(hook), filler, retires=True))
            if self._table.target(hook.slot) != hook.original:  # as it is while the kernel is lent its own
                pokes.append(self._table.poke(hook.slot, hook.entrance, hook.original))
            pokes += (Poke(at, self._sites.built(at, len(code)), code) for at, code in self._left(hook).items())
        self._poker.transaction(pokes, by=told(hooks), holder=self)
        self._slots.accept()
        self._entering.close([hook.entrance for hook in hooks])
        for hook in hooks:
            if not hook.spread:
                self._padding.give_back(hook.entrance)
            del self._standing[hook.op]
            self._note(hook, "out")
            self._switched(hook, hook.name, self._table.name(hook.original), hook.sites)

    def _left(self, hook: OpHook, just: Iterable[tuple[int, bytes]] = ()) -> dict[int, bytes]:
        return self._sites.without(hook.slot, {**hook.kept, **dict(just)}, hook.entrance, hook.original)

    def text_without(self) -> dict[int, bytes]:
        """What would stand in the kernel's text without the hooks: sites that it has just patched with them, too."""
        found: dict[int, bytes] = {}
        for hook in self._standing.values():
            found |= self._left(hook, self._sites.patched(hook.slot).items())
            found[hook.entrance] = self._padding.filler(hook.entrance)
        return found

    def _note(self, hook: OpHook, action: str) -> None:
        self._machine.log.record(_HOOK, op=hook.op, name=hook.name, action=action, sites=hook.sites)

    def _entrance(self, hook: OpHook) -> bytes:
        """Bytes of the entrance; after the hook comes what the slot held, or what a kernel has for an empty one."""
        return hook.code(hook.original or find_bug(self._image) or 0)

    # While the kernel runs -------------------------------------------------------------------------------------------

    def _fault(self, vcpu: Vcpu, fault: GuestFault) -> None:
        self._machine.exception(vcpu, fault.vector, fault.error_code, fault.address)

    def _written(self, slot: Slot, value: int) -> bool:
        """Between slices: the kernel has written a slot. A hook stands in front of the new value from now on."""
        hook = self._standing.get(slot.op.name)
        if hook is None or not self._entering.is_open(hook):
            return False
        before, old = hook.original, self._entrance(hook)
        hook.original = value
        try:
            pokes = [Poke(hook.entrance, old, self._entrance(hook)), self._table.poke(hook.slot, value, hook.entrance)]
            self._poker.transaction(pokes, by=f"hook {hook.name}", holder=self)
        except BaseException:
            hook.original = before
            raise
        hook.originals.append(self._table.name(value))
        self._slots.note(slot, before, value)
        return True

    def _patching(self, vcpu: Vcpu) -> None:
        """The kernel patches sites. Those of records that are not its own are a module's: they may keep entrances."""
        records = vcpu.get("rdi" if self._image.pointer_size == 8 else "eax")
        if "patched" in self._points.passed and self._image.section_at(records) is None:
            for hook in self.standing:
                hook.spread = True

    def _fill(self, *, own: bool) -> None:
        """Slots of standing hooks get the kernel's own function, or the entrance again."""
        self._slots.look()
        pokes = []
        for hook in self._standing.values():
            old, new = (hook.entrance, hook.original) if own else (hook.original, hook.entrance)
            if self._entering.is_open(hook) and self._table.target(hook.slot) == old:
                pokes.append(self._table.poke(hook.slot, old, new))
        self._poker.transaction(pokes, by="hooks", holder=self)
        self._slots.accept()

    def _wish(self) -> int | None:
        if self._standing and "patched" not in self._points.passed:
            return self._machine.clock.ns + UNPATCHED_NS
        return None

    def _at_point(self, passed: Passed, _vcpu: Vcpu) -> None:
        if passed.name == "alternatives":
            self._machine.defer(self._slots.look)  # what the kernel now patches its sites with is our entrance
        if passed.name == "patched":
            self._machine.defer(self._again)

    def _again(self) -> None:
        """The kernel has patched its sites: put those of hooked ops back, in one transaction."""
        found = {hook.op: self._sites.patched(hook.slot) for hook in self.standing}
        pokes = [poke for kept in found.values() for poke in self._built_again(kept)]
        self._poker.transaction(pokes, by="hooks", holder=self)
        for hook in self.standing:
            hook.kept |= found[hook.op]
            self._note(hook, "again")

    # Snapshots -------------------------------------------------------------------------------------------------------

    def save(self) -> OpHooksState:
        """The hooks that stand, for a snapshot; they themselves stay here, by name."""
        standing = {op: (self._beside.name(hook, hook.name), hook.save()) for op, hook in self._standing.items()}
        return OpHooksState(standing, tuple(each.plain for each in self._switches), self._padding.save())

    def load(self, state: OpHooksState) -> None:
        """Go back to a saved state."""
        standing, switches, padding = state
        self.mishaps.forget()
        self._switches[:] = (Switch(*each) for each in switches)
        self._padding.load(padding)
        self._standing = {op: self._beside.thing(name) for op, (name, _fields) in standing.items()}
        for op, hook in self._standing.items():
            hook.load(standing[op][1])
        self._entering.only(self.standing)

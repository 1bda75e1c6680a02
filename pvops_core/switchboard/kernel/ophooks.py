"""Python hooks in front of, or in place of, ops of a running kernel.

A hook has an entry in the padding of the kernel's text: a jump to what the slot held before, then a return. While
the hook stands the slot leads to the entry, and every site of the op is as it was built: a call through the slot.
At the entry Python is called with the op's arguments. A result makes the guest return at once, so that the kernel's
own implementation is not called; None lets the guest jump on to it.

What is written for that, and what becomes of it while the kernel runs, is :mod:`.standing`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from pvops_core.errors import OccupiedError, SwitchError
from pvops_core.machine.run.eventkinds import event_kind
from pvops_core.machine.run.stateful import Beside
from pvops_core.switchboard.choosing import chosen
from pvops_core.switchboard.findings import Switch, SwitchState
from pvops_core.switchboard.hookfaults import HookFaults
from pvops_core.switchboard.implementation import Form, Implementation, of_callable
from pvops_core.switchboard.kernel.hookentries import GUEST, HookEntries
from pvops_core.switchboard.kernel.hooktext import HookText
from pvops_core.switchboard.kernel.kernelsites import KernelSites
from pvops_core.switchboard.kernel.ophook import OpHook, OpHookState, arguments_of
from pvops_core.switchboard.kernel.ownslots import OwnSlots
from pvops_core.switchboard.kernel.padding import SitePadding
from pvops_core.switchboard.kernel.slotwriter import SlotWriter
from pvops_core.switchboard.ops import KERNEL, Ops

if TYPE_CHECKING:
    from pvops_core.backends.finding.found import Found
    from pvops_core.guest import GuestText
    from pvops_core.guest.points import Passed, Points
    from pvops_core.guest.types.structs import Structures
    from pvops_core.images import KernelImage
    from pvops_core.machine import GuestFault, Machine, Vcpu
    from pvops_core.ops import Slot
    from pvops_core.patching.poke import Poker
    from pvops_core.switchboard.kernel.modulesites import ModuleSites
    from pvops_core.switchboard.kernel.slots import SlotWatch
    from pvops_core.switchboard.kernel.table import OpTable
    from pvops_core.switchboard.offeredops import OfferedOps

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
        modules: the sites of its modules.
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
        modules: ModuleSites,
        points: Points,
        structures: Callable[[], Structures],
        offers: Callable[[], OfferedOps],
    ) -> None:
        self._image = kernel
        self._machine = machine
        self._modules = modules
        self._table = table
        self._slots = slots
        self._points = points
        self._structures = structures
        self._offers = cache(offers)
        self._named = cache(table.name)
        self._padding = SitePadding(kernel)
        sites = KernelSites(kernel, running, table, points, modules)
        self._slot_writer = SlotWriter(machine, kernel.symbols, poker, table, slots, sites)
        self.faults = HookFaults(self._fault, kernel.symbol_at)
        self._entries = HookEntries(machine, table.layout, structures, self.faults)
        self._text = HookText(kernel, machine, poker, table, slots, sites, self._padding, self._entries)
        self.called, self.text_without = self._text.called, self._text.text_without
        self._beside = Beside[OpHook]("the hook")
        # The older step patches sites, the newer one alternatives: a kernel has one of them.
        patches = next((name for name in _PATCHES_SITES if name in kernel.symbols), None)
        if patches is not None:
            machine.break_at(kernel.symbols[patches], self._patching, acts=False)
            lend, take = (partial(self._text.fill, own=own) for own in (True, False))
            OwnSlots(machine, kernel.symbols, points, patches, lend, take)
        points.listen(self._at_point, acts=False)
        modules.listen(self._text.of_module)
        # Between slices, when no vCPU is in the kernel's text.
        machine.watch(self._wish)
        machine.keep(self)

    def _fault(self, vcpu: Vcpu, fault: GuestFault) -> None:
        self._machine.exception(vcpu, fault.vector, fault.error_code, fault.address)

    @property
    def standing(self) -> tuple[OpHook, ...]:
        """The hooks that stand now, by the order in which they were put in."""
        return tuple(self._text.hooks.values())

    # As of every switchboard -----------------------------------------------------------------------------------------

    @property
    def calls(self) -> Counter[str]:
        """How often each op's hook was called."""
        return Counter({op: hook.calls for op, hook in self._text.hooks.items()})

    @property
    def history(self) -> list[Switch]:
        """Slots that the kernel has written, and hooks that were put in and taken out."""
        # Two histories, in the order of time: the kernel's own writes among the hooks.
        return sorted((*self._slots.history, *self._text.switches), key=lambda switch: switch.ns)

    def implementation(self, op: str) -> Implementation:
        """The hook that stands in front of an op, else the kernel's own function; UsageError if there is no such op."""
        slot = self._table.slot(op)
        hook = self._text.hooks.get(slot.op.name)
        return hook.wanted if hook else self._own(slot, self._table.target(slot))

    def kernels_own(self, op: str) -> str:
        """The kernel's own function for an op: of one with a hook, what comes after that."""
        hook = self._text.hooks.get(op)
        return self._named(hook.original if hook else self._table.target(self._table.slot(op)))

    def _own(self, slot: Slot, target: int) -> Implementation:
        return Implementation(slot.op.name, self._table.name(target), KERNEL, Form.GUEST if target else Form.EMPTY)

    def switch(self, op: str, implementation: Implementation | Callable[..., Any] | str | None, *, by: str) -> None:
        """As :meth:`Ops.switch`: a callable comes in front of the kernel's own function, a backend's hook in its place.

        Where a hook stood before, the new one comes in place of that. ``"kernel:xen_write_cr3"`` is another function of
        the kernel's, by its symbol; sites that were patched call through the slot from then on.
        """
        slot = self._table.slot(op)
        standing = self._text.hooks.get(slot.op.name)
        # Back to the kernel's function is the same as taking the hook out.
        if isinstance(implementation, Implementation) and implementation.form is Form.GUEST:
            implementation = KERNEL
        if isinstance(implementation, str) and implementation.startswith(f"{KERNEL}:"):
            self._text.switches.append(
                self._slot_writer.write_slot(slot, implementation, by, hooked=standing is not None)
            )
            return
        if implementation == KERNEL:
            if standing is not None:
                self.remove(standing, by=by)
            return
        wanted = self._wanted(op, implementation)
        # One entry for both, whose code changes where one looks on and the other answers.
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
        # New ones together: one transaction, all or none.
        fresh = [each for each in wanted if each[0].op.name not in self._text.hooks]
        for slot, offer in wanted:
            if (standing := self._text.hooks.get(slot.op.name)) is not None:
                self._exchange(standing, offer, by)
        self._install(fresh, by)
        return tuple(slot.path for slot, _ in wanted)

    def _exchange(self, hook: OpHook, wanted: Implementation, by: str) -> None:
        """Another function at the same entry, whose code changes where the one looks on and the other answers."""

        def exchange() -> None:
            self._text.exchange(hook, wanted, by)

        if self._machine.running:
            self._machine.defer(lambda: self._later([hook], exchange))
        else:
            exchange()

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
            PatchError: there is no room for an entry, or the text is not as it should be, held by somebody
                (HeldError) or in use for longer than a millisecond (OccupiedError); nothing is changed. From inside a
                handler the last of these is in ``refused``.
        """
        wanted, slot = attrs.evolve(self.check(op, function, name), source=source), self._table.slot(op)
        if slot.op.name in self._text.hooks:
            raise SwitchError("has a hook already", op=op, implementation=wanted.name)
        return self._install([(slot, wanted)], by or "hook")[0]

    def _install(self, wanted: Sequence[tuple[Slot, Implementation]], by: str) -> list[OpHook]:
        """Hooks of ops that have none, all or none of them."""
        hooks: list[OpHook] = []
        try:
            for slot, each in wanted:
                hooks.append(OpHook(slot.op.name, each.name, slot, self._padding.take(), wanted=each, by=by))
        except BaseException:
            # Rooms that were taken for a hook that did not come about are free again.
            for hook in hooks:
                self._padding.give_back(hook.entry)
            raise
        self._text.hooks |= {hook.op: hook for hook in hooks}
        if hooks:
            self._when_stopped(hooks, self._text.put_in)
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
        # A hook that is out already is no reason to stop anybody.
        if standing := [hook for hook in hooks if self._text.hooks.get(hook.op) is hook]:
            for hook in standing:
                hook.by = by
            self._when_stopped(standing, self._text.take_out)

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

    # While the kernel runs -------------------------------------------------------------------------------------------

    def _patching(self, vcpu: Vcpu) -> None:
        """The kernel patches sites. Those of a module whose records could not be read may keep entries."""
        records = vcpu.get("rdi" if self._image.pointer_size == 8 else "eax")
        # Sites of a module that could not be read may have become calls of the entry: it must stay.
        if "patched" in self._points.passed and self._image.section_at(records) is None and not self._modules.whole:
            for hook in self.standing:
                hook.spread = True

    def _wish(self) -> int | None:
        if self._text.hooks and "patched" not in self._points.passed:
            return self._machine.clock.ns + UNPATCHED_NS
        return None

    def _at_point(self, passed: Passed, _vcpu: Vcpu) -> None:
        # The kernel patches from here on, and what it finds in the slots must be known.
        if passed.name == "alternatives":
            self._machine.defer(self._slots.look)  # what the kernel now patches its sites with is our entry
        if passed.name == "patched":
            self._machine.defer(self._text.again)

    # Snapshots -------------------------------------------------------------------------------------------------------

    def save(self) -> OpHooksState:
        """The hooks that stand, for a snapshot; they themselves stay here, by name."""
        standing = {op: (self._beside.name(hook, hook.name), hook.save()) for op, hook in self._text.hooks.items()}
        return OpHooksState(standing, tuple(each.plain for each in self._text.switches), self._padding.save())

    def load(self, state: OpHooksState) -> None:
        """Go back to a saved state."""
        standing, switches, padding = state
        self.faults.forget()
        self._text.switches[:] = (Switch(*each) for each in switches)
        self._padding.load(padding)
        self._text.hooks = {op: self._beside.thing(name) for op, (name, _fields) in standing.items()}
        for op, hook in self._text.hooks.items():
            hook.load(standing[op][1])
        self._entries.only(self.standing)

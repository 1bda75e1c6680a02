"""Python hooks in front of, or in place of, ops of a running kernel.

A hook has an entrance in the padding of the kernel's text: a jump to what the slot held before, then a return. While
the hook stands the slot leads to the entrance, and every site of the op is as it was built: a call through the slot.
At the entrance Python is called with the op's arguments. A result makes the guest return at once, so that the kernel's
own implementation is not called; None lets the guest jump on to it.

The kernel goes on to write its table and its sites as if there was no hook, and the hook is put in again: in front of
what the kernel has put into the slot, between two slices; at the sites, when ``alternative_instructions`` has returned.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from pvops_core.errors import OccupiedError, PatchError, SwitchError
from pvops_core.hookspecs.specs import specs
from pvops_core.machine.run.stateful import Beside
from pvops_core.ops import signature
from pvops_core.patching.altinstructions.alternatives import overlapping, read_alternatives
from pvops_core.patching.code.nops import kernel_nops
from pvops_core.patching.context import PatchContext
from pvops_core.patching.default import patch_default, patch_site
from pvops_core.patching.fills import find_bug, find_nop
from pvops_core.patching.holders import Hold
from pvops_core.patching.poke import Poke
from pvops_core.patching.text import BuiltText
from pvops_core.switchboard import dispatch
from pvops_core.switchboard.implementations import Form, Implementation, of_callable
from pvops_core.switchboard.mishaps import Mishaps
from pvops_core.switchboard.ophook import OpHook, OpHookState
from pvops_core.switchboard.ops import KERNEL, Ops, Switch, SwitchState
from pvops_core.switchboard.padding import PIECE, Padding

if TYPE_CHECKING:
    from pvops_core.backends import Platform
    from pvops_core.backends.found import Found
    from pvops_core.guest import GuestText
    from pvops_core.guest.points import Passed, Points
    from pvops_core.guest.structs import Structures
    from pvops_core.images import KernelImage
    from pvops_core.machine import Breakpoint, Machine, Vcpu
    from pvops_core.machine.cpu.faults import GuestFault
    from pvops_core.ops import Op, Slot
    from pvops_core.patching.poke import Poker
    from pvops_core.patching.sites import SiteRecord
    from pvops_core.switchboard.slots import SlotWatch
    from pvops_core.switchboard.table import OpTable

GUEST: Final = "guest"
"""The argument by which a hook is given the kernel's memory by its own types."""
_JUMP: Final = 5
_RETURN: Final = b"\xc3"
_BRANCHES: Final = (b"\xe8", b"\xe9")
_PATCHES_SITES: Final = ("apply_paravirt", "apply_alternatives")
"""What is given records of sites to patch, the kernel's own and each module's: to 6.7, and since."""
_FILLER: Final = b"\xcc" * PIECE
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
        platform: who gets the faults that hooks run into.
        running: its text as it is now.
        poker: the writer of its text.
        table: its table of ops.
        slots: watches that table.
        points: notes how far its boot has come.
        structures: gives its memory by its own types, what a hook is given that takes ``guest``.
    """

    def __init__(
        self,
        kernel: KernelImage,
        machine: Machine,
        platform: Platform,
        running: GuestText,
        poker: Poker,
        table: OpTable,
        slots: SlotWatch,
        points: Points,
        structures: Callable[[], Structures],
    ) -> None:
        self._image = kernel
        self._machine = machine
        self._platform = platform
        self._running = running
        self._poker = poker
        poker.hold(self)
        self._table = table
        self._slots = slots
        self._points = points
        self._structures = structures
        self._padding = Padding(kernel)
        self._text = BuiltText(kernel)
        self._entries: dict[int, Breakpoint] = {}
        self._standing: dict[str, OpHook] = {}
        self._beside = Beside[OpHook]("the hook")
        self._switches: list[Switch] = []
        self.mishaps = Mishaps(self._fault, kernel.symbol_at)
        self._mixed = self._mixed_sites()
        slots.own(self._written)
        patches = next((name for name in _PATCHES_SITES if name in kernel.symbols), None)
        if patches is not None:
            machine.break_at(kernel.symbols[patches], self._patching)
        points.listen(self._at_point)
        machine.watch(self._wish)
        machine.keep(self)

    def _mixed_sites(self) -> frozenset[int]:
        """Sites that an ALTERNATIVE touches without being just the site: those are left to the kernel."""
        spans = [(site.address, site.address + site.length) for site in self._table.sites]
        exact = dict(spans)
        entries = overlapping(read_alternatives(self._image), spans)
        odd = [(entry.address, entry.address + entry.length) for entry in entries]
        return frozenset(
            start
            for first, last in odd
            if exact.get(first) != last
            for start, end in spans
            if start < last and first < end
        )

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

    def _own(self, slot: Slot, target: int) -> Implementation:
        return Implementation(slot.op.name, self._table.name(target), KERNEL, Form.GUEST if target else Form.EMPTY)

    def switch(self, op: str, implementation: Implementation | Callable[..., Any] | str | None, *, by: str) -> None:
        """As :meth:`Ops.switch`: a callable comes in front of the kernel's own function, in place of one that did."""
        slot = self._table.slot(op)
        standing = self._standing.get(slot.op.name)
        if isinstance(implementation, Implementation):
            implementation = KERNEL if implementation.form is Form.GUEST else implementation.function
        if implementation == KERNEL:
            if standing is not None:
                self.remove(standing, by=by)
            return
        if not callable(implementation):
            raise SwitchError("a kernel's op can be a function, or its own", op=op, implementation=str(implementation))
        if standing is None:
            self.install(op, implementation, by=by)
        else:
            self._exchange(standing, self.check(op, implementation), by)

    def _exchange(self, hook: OpHook, wanted: Implementation, by: str) -> None:
        """Another function at the same entrance: no byte of text changes, so nobody can be in the way."""
        before = hook.wanted.name
        hook.name, hook.wanted, hook.by, hook.action = wanted.name, wanted, by, self._action(hook, wanted)

        def exchange() -> None:
            self._close(hook.entrance)
            self._open(hook)
            self._switched(hook, before, wanted.name)

        if self._machine.running:
            self._machine.defer(exchange)
        else:
            exchange()

    def _switched(self, hook: OpHook, old: str, new: str) -> None:
        self._switches.append(Switch(hook.op, old, new, hook.by, self._machine.clock.ns, hook.sites))

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
        hook = OpHook(slot.op.name, wanted.name, slot, self._padding.take(), wanted=wanted, by=by or "hook")
        hook.action = self._action(hook, wanted)
        self._standing[hook.op] = hook
        self._when_stopped(hook, self._put_in)
        return hook

    def check(self, op: str, function: Callable[..., int | None], name: str = "") -> Implementation:
        """Whether a function could be a hook of an op: what it would be, or an error as of :meth:`install`."""
        slot = self._table.slot(op)
        wanted = of_callable(slot.op.name, function, name)
        if slot.op.is_data:
            raise SwitchError("is data, not a function", op=op, implementation=wanted.name)
        known = _arguments(slot.op)
        if unknown := [each for each in wanted.arguments if each not in {*known, GUEST}]:
            message = f"takes {unknown[0]!r}; the op's arguments are {', '.join(known) or 'none'}"
            raise SwitchError(message, op=op, implementation=wanted.name)
        if GUEST in wanted.arguments:
            self._structures()  # that there are none is told before anything is changed
        return wanted

    def remove(self, hook: OpHook, *, by: str = "hook") -> None:
        """Take a hook out, at once or, from inside a handler, when that has returned; nothing happens if it is out.

        The slot holds what it held, and sites what the kernel had made of them.

        Raises:
            PatchError: as for :meth:`install`; nothing is changed.
        """
        if self._standing.get(hook.op) is hook:
            hook.by = by
            self._when_stopped(hook, self._take_out)

    def _when_stopped(self, hook: OpHook, action: Callable[[OpHook], None]) -> None:
        if self._machine.running:
            self._machine.defer(lambda: self._later(hook, action))
        else:
            action(hook)

    def _later(self, hook: OpHook, action: Callable[[OpHook], None]) -> None:
        """When the handler that asked has returned. That the kernel is in the way is no fault of its run."""
        try:
            action(hook)
        except OccupiedError as error:
            hook.refused = str(error)
            self._machine.log.record("hook refused", op=hook.op, name=hook.name, why=hook.refused)

    def called(self, address: int) -> bool:
        """Who goes on at an entrance, or at its ``ret``, has just been called from a site."""
        return any(address - hook.entrance in {0, _JUMP} for hook in self._standing.values())

    def holds(self) -> Iterator[Hold]:
        """Entrances, slots and the sites that were put back to calls through them."""
        size = self._table.layout.pointer_size
        for hook in self._standing.values():
            if hook.entrance in self._entries:
                slot = self._table.address(hook.slot)
                spans = [(hook.entrance, PIECE), (slot, size), *((at, len(code)) for at, code in hook.kept.items())]
                why = f"hook {hook.name} of {hook.op} stands here; remove it first"
                yield from (Hold(start, start + length, f"hook {hook.name}", why) for start, length in spans)

    def _put_in(self, hook: OpHook) -> None:
        self._slots.look()
        try:
            hook.original = self._table.target(hook.slot)
            kept = dict(self._patched(hook))
            self._poker.transaction(
                [
                    Poke(hook.entrance, _FILLER, self._entrance(hook)),
                    self._slot_poke(hook, hook.original, hook.entrance),
                    *(Poke(at, code, self._built(at, len(code))) for at, code in kept.items()),
                ],
                by=f"hook {hook.name}",
            )
        except BaseException:
            del self._standing[hook.op]
            self._padding.give_back(hook.entrance)
            raise
        self._slots.accept()
        hook.kept = kept
        hook.originals.append(self._table.name(hook.original))
        self._open(hook)
        self._note(hook, "in")
        self._switched(hook, hook.originals[-1], hook.name)

    def _take_out(self, hook: OpHook) -> None:
        if self._standing.get(hook.op) is not hook:
            return  # asked for more than once
        self._slots.look()
        sites = {site.address: site for site in self._sites(hook)}
        kept = {at: self._left(hook, sites[at], code) for at, code in hook.kept.items() if at in sites}
        gone = [] if hook.spread else [Poke(hook.entrance, self._entrance(hook), _FILLER, retires=True)]
        self._poker.transaction(
            [
                *gone,
                self._slot_poke(hook, hook.entrance, hook.original),
                *(Poke(at, self._built(at, len(code)), code) for at, code in kept.items()),
            ],
            by=f"hook {hook.name}",
            holder=self,
        )
        self._slots.accept()
        self._close(hook.entrance)
        if not hook.spread:
            self._padding.give_back(hook.entrance)
        del self._standing[hook.op]
        self._note(hook, "out")
        self._switched(hook, hook.name, self._table.name(hook.original))

    def _open(self, hook: OpHook) -> None:
        self._entries[hook.entrance] = self._machine.break_at(hook.entrance, hook.action)

    def _close(self, entrance: int) -> None:
        self._machine.remove(self._entries.pop(entrance))

    def _note(self, hook: OpHook, action: str) -> None:
        self._machine.log.record("hook", op=hook.op, name=hook.name, action=action, sites=hook.sites)

    def _entrance(self, hook: OpHook) -> bytes:
        """Bytes of the entrance: a jump to what the slot held, a return, and filler."""
        target = self._target(hook)
        distance = target - hook.entrance - _JUMP
        if not target or not -(1 << 31) <= distance < 1 << 31:
            where = self._table.name(target)
            raise PatchError(f"no jump leads from the hook's entrance to {where}", op=hook.op, address=hook.entrance)
        return (b"\xe9" + struct.pack("<i", distance) + _RETURN).ljust(PIECE, b"\xcc")

    def _target(self, hook: OpHook) -> int:
        """What comes after the hook: what the slot held, or what the kernel calls in place of an empty one."""
        return hook.original or find_bug(self._image) or 0

    def _slot_poke(self, hook: OpHook, old: int, new: int) -> Poke:
        size = self._table.layout.pointer_size
        return Poke(self._table.address(hook.slot), old.to_bytes(size, "little"), new.to_bytes(size, "little"))

    # Sites -----------------------------------------------------------------------------------------------------------

    def _sites(self, hook: OpHook) -> Iterator[SiteRecord]:
        passed = "free_initmem" in self._points.passed
        for site in self._table.sites:
            if site.type == hook.slot.type and site.address not in self._mixed and not (passed and _gone(site)):
                yield site

    def _built(self, address: int, length: int) -> bytes:
        return self._text.read(address, length)

    def _patched(self, hook: OpHook) -> Iterator[tuple[int, bytes]]:
        """Sites of the op that are not as they were built, and what they are."""
        for site in self._sites(hook):
            code = self._running.read(site.address, site.length)
            if code != self._built(site.address, site.length):
                yield site.address, code

    def _left(self, hook: OpHook, site: SiteRecord, code: bytes) -> bytes:
        """What a site is to be when the hook is gone: what the kernel made of it, or would have without the hook."""
        if code[:1] not in _BRANCHES or struct.unpack_from("<i", code, 1)[0] + site.address + _JUMP != hook.entrance:
            return code
        image, targets = self._image, list(self._table.targets())
        targets[hook.slot.type] = hook.original
        context = PatchContext(
            layout=self._table.layout,
            targets=targets,
            nop_address=find_nop(image) or -1,
            bug_address=find_bug(image) or 0,
            nops=kernel_nops(image),
            symbols=image.symbols,
        )
        built = self._built(site.address, site.length)
        return patch_site(context, patch_default, site.type, site.clobbers, built, site.address)

    # While the kernel runs -------------------------------------------------------------------------------------------

    def _action(self, hook: OpHook, wanted: Implementation) -> Callable[[Vcpu], None]:
        """What happens when the guest has come to the hook's entrance."""

        def answered(vcpu: Vcpu) -> None:
            hook.replaced += 1
            vcpu.rip = hook.entrance + _JUMP

        how = signature(hook.slot, self._table.layout.kind)
        return dispatch.handler(self._machine, how, self._with_guest(wanted), hook.counted, self.mishaps, answered)

    def _fault(self, vcpu: Vcpu, fault: GuestFault) -> None:
        self._machine.exception(vcpu, fault.vector, fault.error_code, fault.address)

    def _with_guest(self, wanted: Implementation) -> Implementation:
        """The same, called with the op's own arguments alone."""
        function = wanted.function
        if function is None or GUEST not in wanted.arguments:
            return wanted
        at, guest = wanted.arguments.index(GUEST), self._structures()
        own = tuple(name for name in wanted.arguments if name != GUEST)

        def with_guest(vcpu: Vcpu, *values: int) -> object:
            return function(vcpu, *values[:at], guest, *values[at:])

        return attrs.evolve(wanted, function=with_guest, arguments=own)

    def _written(self, slot: Slot, value: int) -> bool:
        """Between slices: the kernel has written a slot. A hook stands in front of the new value from now on."""
        hook = self._standing.get(slot.op.name)
        if hook is None or hook.entrance not in self._entries:
            return False
        before, old = hook.original, self._entrance(hook)
        hook.original = value
        try:
            pokes = [Poke(hook.entrance, old, self._entrance(hook)), self._slot_poke(hook, value, hook.entrance)]
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
        found = {hook.op: dict(self._patched(hook)) for hook in self.standing}
        pokes = [Poke(at, code, self._built(at, len(code))) for kept in found.values() for at, code in kept.items()]
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
        for entrance in tuple(self._entries):
            self._close(entrance)
        for op, hook in self._standing.items():
            hook.load(standing[op][1])
            self._open(hook)


def _arguments(op: Op) -> Sequence[str]:
    """What a hook of an op may take: what its specification says, unless the kernel calls it otherwise."""
    own, spec = [arg.name for arg in op.args], specs().get(op.name)
    return spec.arguments[1:] if spec is not None and {*own} <= {*spec.arguments} else own


def _gone(site: SiteRecord) -> bool:
    """The site is in text that a kernel gives back when it has booted."""
    return site.section.startswith((".init", ".exit"))

"""The hooks in a running kernel's text: put in and taken out, and followed while the kernel goes on to write there.

The kernel writes its table and its sites as if there was no hook, and the hook is put in again: in front of what the
kernel has put into the slot, between two slices; at the sites, when ``alternative_instructions`` has returned, and at a
module's before that begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from pvops_core.machine.run.eventkinds import event_kind
from pvops_core.patching.fills import find_bug
from pvops_core.patching.holders import Hold
from pvops_core.patching.poke import Poke
from pvops_core.switchboard.findings import Switch
from pvops_core.switchboard.kernel.ophook import OpHook, told
from pvops_core.switchboard.kernel.padding import PIECE

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.machine import Machine
    from pvops_core.ops import Slot
    from pvops_core.patching.poke import Poker
    from pvops_core.patching.records import SiteRecord
    from pvops_core.switchboard.implementation import Implementation
    from pvops_core.switchboard.kernel.hookentries import HookEntries
    from pvops_core.switchboard.kernel.kernelsites import KernelSites
    from pvops_core.switchboard.kernel.padding import SitePadding
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


class HookText:
    """Those of one kernel.

    Args:
        image: the kernel.
        machine: the machine that it runs on.
        poker: the writer of its text.
        table: its table of ops.
        slots: watches that table.
        sites: its annotated calls, its modules' among them.
        padding: where there is room for entries.
        entries: opens them.

    Attributes:
        hooks: the hooks by op, in the order in which they were put in.
        switches: what has been switched.
    """

    def __init__(
        self,
        image: KernelImage,
        machine: Machine,
        poker: Poker,
        table: OpTable,
        slots: SlotWatch,
        sites: KernelSites,
        padding: SitePadding,
        entries: HookEntries,
    ) -> None:
        self._image = image
        self._machine = machine
        self._poker = poker
        self._table = table
        self._slots = slots
        self._sites = sites
        self._padding = padding
        self._entries = entries
        self.hooks: dict[str, OpHook] = {}
        self.switches: list[Switch] = []
        poker.hold(self)
        slots.own(self._written)

    def called(self, address: int) -> bool:
        """Who goes on at an entry, or at one of its returns, has just been called from a site."""
        return any(address in {hook.entry, hook.onward, hook.back} for hook in self.hooks.values())

    def holds(self) -> Iterator[Hold]:
        """Entries, slots and the sites that were put back to calls through them."""
        size = self._table.layout.pointer_size
        for hook in self.hooks.values():
            if self._entries.is_open(hook):
                slot = self._table.address(hook.slot)
                spans = [(hook.entry, PIECE), (slot, size), *((at, len(code)) for at, code in hook.kept.items())]
                why = f"hook {hook.name} of {hook.op} stands here; remove it first"
                yield from (Hold(start, start + length, f"hook {hook.name}", why) for start, length in spans)

    def put_in(self, hooks: list[OpHook]) -> None:
        """Write entries, slots and sites of hooks that are among those that stand already, or PatchError."""
        self._slots.look()
        pokes, kept = [], {}
        try:
            for hook in hooks:
                hook.original = self._table.target(hook.slot)
                kept[hook.op] = self._sites.patched(hook.slot)
                pokes += [
                    Poke(hook.entry, self._padding.filler(hook.entry), self._entry(hook)),
                    self._table.poke(hook.slot, hook.original, hook.entry),
                    *self._built_again(kept[hook.op]),
                ]
            self._poker.transaction(pokes, by=told(hooks))
        except BaseException:
            for hook in hooks:
                del self.hooks[hook.op]
                self._padding.give_back(hook.entry)
            raise
        self._slots.accept()
        self._entries.open(hooks)
        for hook in hooks:
            hook.kept = kept[hook.op]
            hook.originals.append(self._table.name(hook.original))
            self._note(hook, "in")
            self.switched(hook, hook.originals[-1], hook.name, hook.sites)

    def _built_again(self, kept: Mapping[int, bytes]) -> Iterator[Poke]:
        return (Poke(at, code, self._sites.built(at, len(code))) for at, code in kept.items())

    def take_out(self, asked: list[OpHook]) -> None:
        """Put back what was there, and what the kernel has made of it meanwhile, or PatchError."""
        hooks = [hook for hook in asked if self.hooks.get(hook.op) is hook]  # it may be asked for more than once
        self._slots.look()
        pokes: list[Poke] = []
        for hook in hooks:
            filler = self._padding.filler(hook.entry)
            hook.spread = hook.spread or self._sites.in_the_making(hook.slot)
            if not hook.spread:
                pokes.append(Poke(hook.entry, self._entry(hook), filler, retires=True))
            if self._table.target(hook.slot) != hook.original:  # as it is while the kernel is lent its own
                pokes.append(self._table.poke(hook.slot, hook.entry, hook.original))
            pokes += (Poke(at, self._sites.built(at, len(code)), code) for at, code in self._left(hook).items())
        self._poker.transaction(pokes, by=told(hooks), holder=self)
        self._slots.accept()
        self._entries.close([hook.entry for hook in hooks])
        for hook in hooks:
            if not hook.spread:
                self._padding.give_back(hook.entry)
            del self.hooks[hook.op]
            self._note(hook, "out")
            self.switched(hook, hook.name, self._table.name(hook.original), hook.sites)

    def exchange(self, hook: OpHook, wanted: Implementation, by: str) -> None:
        """Another function at the same entry, whose code changes where the one looks on and the other answers."""
        before, old = hook.wanted, self._entry(hook)
        hook.wanted = wanted
        try:
            if (new := self._entry(hook)) != old:
                poke = Poke(hook.entry, old, new, retires=True)
                self._poker.transaction([poke], by=f"hook {wanted.name}", holder=self)
        except BaseException:
            hook.wanted = before
            raise
        hook.name, hook.by = wanted.name, by
        self._entries.close([hook.entry])
        self._entries.open([hook])
        self.switched(hook, before.name, wanted.name, 0)

    def switched(self, hook: OpHook, old: str, new: str, sites: int) -> None:
        """Note a switch in the history."""
        ns, vcpu = self._machine.clock.ns, self._machine.behalf
        self.switches.append(Switch(hook.op, old, new, hook.by, ns, vcpu, sites))

    def _left(self, hook: OpHook, just: Iterable[tuple[int, bytes]] = ()) -> dict[int, bytes]:
        return self._sites.without(hook.slot, {**hook.kept, **dict(just)}, hook.entry, hook.original)

    def text_without(self) -> dict[int, bytes]:
        """What would stand in the kernel's text without the hooks: sites that it has just patched with them, too."""
        found: dict[int, bytes] = {}
        for hook in self.hooks.values():
            found |= self._left(hook, self._sites.patched(hook.slot).items())
            found[hook.entry] = self._padding.filler(hook.entry)
        return found

    def _note(self, hook: OpHook, action: str) -> None:
        self._machine.log.record(_HOOK, op=hook.op, name=hook.name, action=action, sites=hook.sites)

    def _entry(self, hook: OpHook) -> bytes:
        """Bytes of the entry; after the hook comes what the slot held, or what a kernel has for an empty one."""
        return hook.code(hook.original or find_bug(self._image) or 0)

    def _written(self, slot: Slot, value: int) -> bool:
        """Between slices: the kernel has written a slot. A hook stands in front of the new value from now on."""
        hook = self.hooks.get(slot.op.name)
        if hook is None or not self._entries.is_open(hook):
            return False
        before, old = hook.original, self._entry(hook)
        hook.original = value
        try:
            pokes = [Poke(hook.entry, old, self._entry(hook)), self._table.poke(hook.slot, value, hook.entry)]
            self._poker.transaction(pokes, by=f"hook {hook.name}", holder=self)
        except BaseException:
            hook.original = before
            raise
        hook.originals.append(self._table.name(value))
        self._slots.note(slot, before, value)
        return True

    def fill(self, *, own: bool) -> None:
        """Slots of standing hooks get the kernel's own function, or the entry again."""
        self._slots.look()
        pokes = []
        for hook in self.hooks.values():
            old, new = (hook.entry, hook.original) if own else (hook.original, hook.entry)
            if self._entries.is_open(hook) and self._table.target(hook.slot) == old:
                pokes.append(self._table.poke(hook.slot, old, new))
        self._poker.transaction(pokes, by="hooks", holder=self)
        self._slots.accept()

    def again(self) -> None:
        """The kernel has patched its sites: put those of hooked ops back, in one transaction."""
        self._put_back({hook.op: self._sites.patched(hook.slot) for hook in self.hooks.values()})
        for hook in self.hooks.values():
            self._note(hook, "again")

    def of_module(self, sites: Iterable[SiteRecord]) -> None:
        """A module's sites are patched, and have not been executed: put those of hooked ops back."""
        there = {site.address for site in sites}
        found = {hook.op: self._sites.patched(hook.slot) for hook in self.hooks.values()}
        self._put_back({op: {at: code for at, code in of.items() if at in there} for op, of in found.items()})

    def _put_back(self, found: Mapping[str, Mapping[int, bytes]]) -> None:
        pokes = [poke for kept in found.values() for poke in self._built_again(kept)]
        self._poker.transaction(pokes, by="hooks", holder=self)
        for hook in self.hooks.values():
            hook.kept |= found[hook.op]

"""Live patching of one running guest: the registry, the rendezvous over the run loop, the act, the log."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs
import numpy as np

from pvops_core.errors import HeldError, MachineError, OccupiedError, PvopsError
from pvops_core.guest.stacks.spans import Spans
from pvops_core.livepatch.control.registry import Registry, RegistryState
from pvops_core.livepatch.errors import LivepatchError, PartialError
from pvops_core.livepatch.payload.area import PageRights
from pvops_core.livepatch.payload.description import Description
from pvops_core.livepatch.payload.model import Command, HookPhase, State
from pvops_core.livepatch.rendezvous import action, hookcalls
from pvops_core.livepatch.rendezvous.driver import RendezvousDriver, RendezvousDriverState
from pvops_core.livepatch.rendezvous.extable import Fixups
from pvops_core.livepatch.rendezvous.safepoints import SafePoints, TextSpan
from pvops_core.machine.run.eventkinds import event_kind
from pvops_core.machine.run.stateful import Beside
from pvops_core.patching.holders import Hold
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.livepatch.control.registry import Work
    from pvops_core.livepatch.guest import PatchedGuest
    from pvops_core.livepatch.payload.loading import Placed
    from pvops_core.livepatch.payload.model import Payload, Record
    from pvops_core.machine import Vcpu
    from pvops_core.patching.poke import Poke

_LIVEPATCH: Final = event_kind(
    "livepatch",
    "A payload was uploaded, unloaded or asked to change, or came to a phase of a change.",
    what="str: upload, unload, the action, its phase, or finished",
    payload="str: its name",
    rc="int: what a phase or the action gave: 0, or minus an errno",
    timeout="int: ns that the action may take",
)

Loader = Callable[["PatchedGuest", str, bytes, Registry, bool], "Placed"]
_STRIDE, _PATIENCE = 1000, 6000
"""A vCPU that is to run a hook goes on for so many blocks of code, so often, till it takes interrupts: 30 ms in all."""
_POST = {Command.APPLY: HookPhase.POSTAPPLY, Command.REVERT: HookPhase.POSTREVERT}


class LivepatchState(NamedTuple):
    """Live patches in a snapshot.

    Attributes:
        registry: the payloads' states.
        area: pages taken, by the first.
        placed: names of the payloads that are in the guest.
        driver: name and state of the one that is under way.
        messages: what has been warned of.
        prepared: the guest's pages have been made ready.
    """

    registry: RegistryState
    area: dict[int, int]
    placed: dict[str, str]
    driver: tuple[str, RendezvousDriverState] | None
    messages: tuple[str, ...]
    prepared: bool


class Livepatch:
    """Live patches of one guest. Operations are those of ``registry``; actions happen while the machine runs.

    Args:
        guest: the guest.
        loader: makes a payload of a file and puts it into the guest.
    """

    def __init__(self, guest: PatchedGuest, loader: Loader) -> None:
        self.guest = guest
        self.registry = Registry(self)
        self.messages: list[str] = []
        self._loader = loader
        self._placed: dict[str, Placed] = {}
        self._driver: RendezvousDriver | None = None
        self._payloads = Beside["Placed"]("the payload")
        self._drivers = Beside[RendezvousDriver]("the")
        self._prepared = False
        self._master: Vcpu | None = None
        self._fixups = Fixups(self._fixup, guest.pages.fault)
        self._agreed: Spans | None = None
        self._asked: Spans | None = None
        # The poker asks here before it writes anywhere: others must not write over a payload's jump.
        guest.poker.hold(self)
        guest.machine.keep(_LivepatchKeeper(self))

    # What the registry asks --------------------------------------------------------------------------------------

    @property
    def build_id(self) -> bytes:
        """The guest's."""
        return self.guest.build_id

    def load(self, name: str, data: bytes, registry: Registry, *, force: bool) -> Payload:
        """Read a payload file and place it into the guest."""
        self._not_running()
        # First the landing, which is written once: a file that is refused later leaves nothing else behind.
        self._prepare()
        placed = self._loader(self.guest, name, data, registry, force)
        self._placed[name] = placed
        self.guest.machine.log.record(_LIVEPATCH, what="upload", payload=name)
        return placed.payload

    def unload(self, payload: Payload) -> None:
        """Take a payload out of the guest."""
        self._not_running()
        self._placed.pop(payload.name).remove(self.guest)
        self.guest.machine.log.record(_LIVEPATCH, what="unload", payload=payload.name)

    def call(self, record: Record, phase: HookPhase) -> int:
        """Run the hooks of a phase as guest code; outside a quiet zone on a vCPU that is at a safe point, if any is."""
        hooks = record.payload.hooks.of(phase)
        if not hooks:
            return 0
        self._not_running()
        # In the quiet zone hooks run on the master, as in Xen; outside of it anyone will do who can be interrupted.
        vcpu = self._master or self._borrowed()
        argument = record.payload.handle if phase.takes_payload else 0
        result = 0
        # All of them: load and unload hooks are tables (LIVEPATCH_LOAD_HOOK).
        for hook in hooks:
            result = hookcalls.call(self.guest, vcpu, hook, argument)
            self.guest.machine.log.record(_LIVEPATCH, vcpu.index, what=phase.value, payload=record.name, rc=result)
        return result if phase.result else 0

    def schedule(self, work: Work) -> None:
        """Call the vCPUs together, from the next slice on."""
        self._not_running()
        machine = self.guest.machine
        # Once, when it is scheduled: a slice's end is too often to collect them again.
        spans = self._spans(work)
        points = SafePoints(self.guest, spans)
        self._agreed = Spans(np.array([(span.start, span.end) for span in spans], dtype=np.uint64).reshape(-1, 2))
        self._driver = RendezvousDriver(machine, points, work.timeout_ns)
        machine.log.record(_LIVEPATCH, what=work.command.name, payload=work.record.name, timeout=work.timeout_ns)
        # At once: Xen schedules its tasklet on the present CPU, which may be idle now.
        machine.watch(self._between, at_once=True)

    def _not_running(self) -> None:
        # A handler runs on a vCPU whose registers are half out; text must not change under it.
        if self.guest.machine.running:
            raise MachineError("live patching from inside a handler: defer it")

    def _prepare(self) -> None:
        """Put the landing into the first of the pages set aside, once."""
        # Late, not when the session begins: a kernel has not mapped its text by then.
        if not self._prepared:
            guest = self.guest
            guest.pages.prepare()
            guest.pages.protect(guest.area.landing, PAGE, PageRights.TEXT)
            guest.write_text(guest.area.landing, hookcalls.LANDING, "livepatch")
            guest.machine.observe(self._fixups.exception)
            self._prepared = True

    def _fixup(self, address: int) -> int | None:
        """Where the exception table of a payload wants to go on after a fault."""
        # Only faults of payloads' own code: the guest's own table serves the rest.
        if address not in self.guest.area:
            return None
        tables = (placed.fixups for placed in self._placed.values())
        return next((table[address] for table in tables if address in table), None)

    def _borrowed(self) -> Vcpu:
        """A vCPU that would take an interrupt: one that does so now, or the first that soon does.

        Raises:
            LivepatchError: EAGAIN, there is none: what the guest does with interrupts off is not to be broken into.
        """
        points = SafePoints(self.guest, ())
        # Whoever can be borrowed as it stands costs no virtual time.
        online = [vcpu for vcpu in self.guest.machine.vcpus if not points.offline(vcpu)]
        for vcpu in online:
            if not points.objection(vcpu):
                return vcpu
        for vcpu in online:
            for _ in range(_PATIENCE):
                self.guest.machine.call(vcpu, self.guest.area.landing, blocks=_STRIDE)
                if not points.objection(vcpu):
                    return vcpu
        raise LivepatchError("no vCPU takes interrupts now, to run a hook on", errno=errno.EAGAIN)

    def _spans(self, work: Work) -> list[TextSpan]:
        """Text that nobody may be inside of: what is rewritten, and what is no longer going to be reached."""
        records = [work.record]
        if work.command is Command.REPLACE:
            records += self.registry.applied
        spans: list[TextSpan] = []
        # Its own text too: nobody may be left inside of what is about to be unreachable.
        for record in records:
            spans += (TextSpan(f.old_address, f.old_address + f.old_size, f.name) for f in record.payload.functions)
            if record.state is State.APPLIED:
                start, end = self._placed[record.name].text
                spans.append(TextSpan(start, end, f"payload {record.name}"))
        return spans

    # The rendezvous ----------------------------------------------------------------------------------------------

    def _between(self) -> int | None:
        """Between two slices: who comes in, whether all are quiet, whether it is too late."""
        driver, work = self._driver, self.registry.work
        assert driver is not None, "nobody watches without a rendezvous"
        assert work is not None, "a rendezvous is about something"
        # Not None: the time of the next look; the vCPUs go on till then.
        again = driver.proceed()
        if again is not None:
            return again
        # Before the act: a hook that runs the machine must not find itself watched.
        self.guest.machine.unwatch(self._between)
        self._driver = None
        try:
            self._finish(work, driver, *self._act(work, driver))
        finally:
            self._master = None
            # Whatever happened, nobody stays held and no action stays under way: the guest must be able to go on.
            driver.release()
            if self.registry.work is work:
                self.registry.finish(-errno.EIO)
        return None

    def _act(self, work: Work, driver: RendezvousDriver) -> tuple[int, tuple[Record, ...]]:
        """The result, and which payloads an action that was aborted has reverted."""
        # Late is Xen's EBUSY (livepatch_spin()).
        if driver.lateness:
            self._say(f"{work.record.name}: {driver.lateness}")
            return -errno.EBUSY, ()
        self._master = driver.master
        # Writes by the act are to text that the rendezvous has cleared already, so the poker need not ask again.
        self._asked = self._agreed
        try:
            action.perform(work, tuple(self.registry.applied), self)
        except LivepatchError as error:
            self._say(str(error))
            return -error.errno, error.reverted if isinstance(error, action.AbortedError) else ()
        except PvopsError as error:
            # Xen panics here (was_action_consistent()).
            if isinstance(error, PartialError):
                self.guest.machine.stop("crash", error.message)
            self._say(str(error))
            # Somebody else's writes are in the way: to try again later may help.
            return -errno.EBUSY if isinstance(error, HeldError | OccupiedError) else -errno.EIO, ()
        finally:
            self._master = self._asked = None
        return 0, ()

    def _finish(self, work: Work, driver: RendezvousDriver, rc: int, reverted: tuple[Record, ...]) -> None:
        """Note the result, show it to the guest, and run the hook that comes after."""
        record, applied_before = work.record, tuple(self.registry.applied)
        self.registry.finish(rc, reverted)
        # Each once, in case the record was applied already.
        for each in {id(each): each for each in (record, *applied_before)}.values():
            self.publish(each)
        self.guest.machine.log.record(_LIVEPATCH, what="finished", payload=record.name, rc=rc)
        self._say(f"{record.name} finished {work.command.name} with rc={rc}")
        # After the quiet zone, and only if there was one: check_for_livepatch_work() has action_done for it.
        if work.command in _POST and not driver.lateness:
            self._master = driver.master
            try:
                self.call(record, _POST[work.command])
            except LivepatchError as error:
                self._say(str(error))

    def _say(self, message: str) -> None:
        self.messages.append(f"livepatch: {message}")

    # What the act asks -------------------------------------------------------------------------------------------

    def read(self, address: int, length: int) -> bytes:
        """Bytes of guest text."""
        return self.guest.read(address, length)

    def write(self, pokes: Sequence[Poke], by: str) -> None:
        """Write guest text in one transaction."""
        self.guest.poker.transaction(pokes, by=by, holder=self, asked=self._asked)

    def holds(self) -> Iterator[Hold]:
        """Applied payloads' jumps: written over they would be lost, and a revert would write old bytes."""
        # From the registry, not from memory: what a hook wrote on its own is not known here.
        for record in self.registry.applied:
            for function in record.payload.functions:
                yield Hold(
                    function.place,
                    function.place + len(function.new),
                    f"live patch {record.name}",
                    f"live patch {record.name} has replaced {function.name} here; revert it first",
                )

    def warn(self, message: str) -> None:
        """Keep a message."""
        self._say(message)

    def publish(self, record: Record) -> None:
        """Write what has changed into the guest's description of a payload."""
        # 0: the payload has no description, as in tests.
        if record.payload.handle:
            Description(self.guest, record).publish()

    def applied_flags(self, record: Record) -> Sequence[bool]:
        """The flags of the guest's description."""
        return Description(self.guest, record).applied()

    # Snapshots ---------------------------------------------------------------------------------------------------

    def save_state(self) -> LivepatchState:
        """State for a snapshot; payloads, and the rendezvous that is under way, stay here by name."""
        driver = None
        if self._driver is not None:
            driver = self._drivers.name(self._driver, "rendezvous"), self._driver.save()
        placed = {name: self._payloads.name(each, name) for name, each in self._placed.items()}
        registry, area = self.registry.save(), self.guest.area.save()
        return LivepatchState(registry, area, placed, driver, tuple(self.messages), self._prepared)

    def load_state(self, state: LivepatchState) -> None:
        """Go back to a saved state."""
        registry, area, placed, met, messages, self._prepared = state
        self._agreed = None  # it is asked once more then
        self.registry.load(registry)
        self.guest.area.load(area)
        self._placed = {name: self._payloads.thing(beside) for name, beside in placed.items()}
        self.messages = list(messages)
        # Watching is not part of the machine's state, so it follows from whether there is a driver.
        watched = self._driver is not None
        self._driver = driver = None if met is None else self._drivers.thing(met[0])
        if met is not None and driver is not None:
            driver.load(met[1])
        if watched and driver is None:
            self.guest.machine.unwatch(self._between)
        if not watched and driver is not None:
            self.guest.machine.watch(self._between)


@attrs.frozen
class _LivepatchKeeper:
    """The live patches as a part of machine snapshots; the registry has another ``load``."""

    livepatch: Livepatch

    def save(self) -> LivepatchState:
        """State for a snapshot."""
        return self.livepatch.save_state()

    def load(self, state: LivepatchState) -> None:
        """Go back to a saved state."""
        self.livepatch.load_state(state)

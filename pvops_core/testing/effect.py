"""What one call in a guest came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from pvops_core.session.calls import CallFault

if TYPE_CHECKING:
    from pvops_core.backends import HypercallMade
    from pvops_core.machine import Event
    from pvops_core.session import Session
    from pvops_core.switchboard import Switch
    from pvops_core.testing.changes import Changes

__all__ = ("CallFault", "Effect", "EffectCounter")


@attrs.frozen(eq=False)
class Effect:
    """What a call did.

    Attributes:
        what: the op or function that was called.
        result: its result as an unsigned number: of an op as wide as its type, and 0 where that is void; of a function
            the first result register.
        changes: registers, and words of memory by guest-virtual address, that are not what they were, without what the
            calling convention gives up and the stack below its pointer.
        hypercalls: how often each hypercall was made, by name, those of multicalls among them.
        made: the hypercalls themselves, in order, where the platform tells of them; each entry of a multicall before
            the multicall.
        traps: how often each trap was taken by the platform, by name.
        calls: how often Python code served other ops meanwhile, by name.
        flushes: TLB flushes, those of the platform's and of the vCPUs' own.
        table_updates: page-table entries written through the platform.
        switches: ops that were given another implementation.
        events: what the machine logged.
        console: what the guest printed.
        faults: the exceptions that the platform was told of, those that it dealt with among them.
        ns: virtual time that it took.
    """

    what: str
    result: int
    changes: Changes
    hypercalls: Counter[str]
    made: tuple[HypercallMade, ...]
    traps: Counter[str]
    calls: Counter[str]
    flushes: int
    table_updates: int
    switches: tuple[Switch, ...]
    events: tuple[Event, ...]
    console: str
    faults: tuple[CallFault, ...]
    ns: int

    def events_of(self, kind: str) -> tuple[Event, ...]:
        """The events of one kind that it logged, in order: ``done.events_of("memblock-reserve")[0]["start"]``."""
        return tuple(event for event in self.events if event.kind == kind)

    @property
    def multicalls(self) -> tuple[HypercallMade, ...]:
        """The entries of the multicalls it made, in order."""
        return tuple(call for call in self.made if call.inner)


class EffectCounter:
    """A session's counters from when it is made until it is closed."""

    def __init__(self, session: Session) -> None:
        platform, machine = session.platform, session.machine
        self._session = session
        self._hypercalls, self._traps = Counter(platform.hypercalls), Counter(platform.traps)
        self._ops = session.ops if session.table is not None else None
        self._calls, self._switches = self._served(), len(self._switched())
        self._flushes, self._updates = self._flushed(), platform.page_table_updates
        self._events, self._console, self._ns = len(machine.log), len(platform.console), machine.clock.ns
        self._made: list[HypercallMade] = []
        platform.observe(self._made.append)

    def _flushed(self) -> int:
        return self._session.platform.flushes + self._session.machine.counts["tlb_flushes"]

    def close(self) -> None:
        """Observe no more."""
        self._session.platform.ignore(self._made.append)

    def _served(self) -> Counter[str]:
        return Counter(self._ops.calls) if self._ops is not None else Counter()

    def _switched(self) -> Sequence[Switch]:
        return self._ops.history if self._ops is not None else ()

    def effect(self, what: str, result: int, changed: Changes, faults: tuple[CallFault, ...]) -> Effect:
        """What has happened since."""
        platform, machine = self._session.platform, self._session.machine
        return Effect(
            what=what,
            result=result,
            changes=changed,
            hypercalls=platform.hypercalls - self._hypercalls,
            made=tuple(self._made),
            traps=platform.traps - self._traps,
            calls=self._served() - self._calls - Counter({what: 1}),
            flushes=self._flushed() - self._flushes,
            table_updates=platform.page_table_updates - self._updates,
            switches=tuple(self._switched()[self._switches :]),
            events=machine.log.since(self._events),
            console=platform.console[self._console :].decode(errors="replace"),
            faults=faults,
            ns=machine.clock.ns - self._ns,
        )

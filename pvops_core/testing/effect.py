"""What one call in a guest came to."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pvops_core.machine import Event
    from pvops_core.session import Session
    from pvops_core.switchboard import Switch
    from pvops_core.testing.changes import Changes


@attrs.frozen
class Fault:
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


@attrs.frozen(eq=False)
class Effect:
    """What a call did.

    Attributes:
        what: the op or function that was called.
        result: its result as an unsigned number; 0 for a void function.
        changes: registers and memory that are not what they were, without what the calling convention gives up.
        hypercalls: how often each hypercall was made, by name.
        traps: how often each trap was taken by the platform, by name.
        calls: how often other ops were called meanwhile, by name.
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
    traps: Counter[str]
    calls: Counter[str]
    flushes: int
    table_updates: int
    switches: tuple[Switch, ...]
    events: tuple[Event, ...]
    console: str
    faults: tuple[Fault, ...]
    ns: int


@attrs.frozen(eq=False)
class Tally:
    """A session's counters at one time."""

    hypercalls: Counter[str]
    traps: Counter[str]
    calls: Counter[str]
    flushes: int
    table_updates: int
    switches: int
    events: int
    console: int
    ns: int

    @classmethod
    def of(cls, session: Session) -> Tally:
        """Read them."""
        platform, machine, board = session.platform, session.machine, session.switchboard
        return cls(
            hypercalls=Counter(platform.hypercalls),
            traps=Counter(platform.traps),
            calls=Counter(board.calls),
            flushes=platform.flushes + machine.counts["tlb_flushes"],
            table_updates=platform.page_table_updates,
            switches=len(board.history),
            events=len(machine.log),
            console=len(platform.console),
            ns=machine.clock.ns,
        )

    def effect(self, session: Session, what: str, result: int, changed: Changes, faults: tuple[Fault, ...]) -> Effect:
        """What has happened since."""
        now = Tally.of(session)
        return Effect(
            what=what,
            result=result,
            changes=changed,
            hypercalls=now.hypercalls - self.hypercalls,
            traps=now.traps - self.traps,
            calls=now.calls - self.calls - Counter({what: 1}),
            flushes=now.flushes - self.flushes,
            table_updates=now.table_updates - self.table_updates,
            switches=tuple(session.switchboard.history[self.switches :]),
            events=session.machine.log.since(self.events)[:-1],  # the last is the end of the call itself
            console=session.platform.console[self.console :].decode(errors="replace"),
            faults=faults,
            ns=now.ns - self.ns,
        )

"""Traces a boot: how often each op was called, each hypercall made, each trap taken, and the virtual time it took.

Ops are counted at their sites, so that it makes no difference what a site has become: a call through the slot, a direct
call, inlined code or nothing. Calls that are not annotated are not seen. Nothing of this costs anything unless a trace
is made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pvops_core.session.findings import TimedCount, Traced, TracedSite

if TYPE_CHECKING:
    from pvops_core.backends import HypercallMade
    from pvops_core.machine import Vcpu
    from pvops_core.session import Session

_VECTORS: Final = (
    *("#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9", "#TS", "#NP", "#SS", "#GP", "#PF"),
    *("#15", "#MF", "#AC", "#MC", "#XM"),
)
"""Names of the exceptions by vector (Intel SDM volume 3, table 6-1)."""


TimedCounts = dict[str, TimedCount]


class Trace:
    """The trace of one session, from when it is made until it is closed.

    Args:
        session: the session, which does not run.

    Raises:
        UsageError: the kernel has no table of ops that is known here.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._table = session.known_table
        self._spans = session.machine.count_spans([(site.address, site.length) for site in self._table.sites])
        self.hypercalls: TimedCounts = {}
        self.traps: TimedCounts = {}
        self._busy = False
        session.platform.observe(self._made)
        for name, naming in _NAMINGS.items():
            self._time(name, naming)
        session.machine.attach(session.platform)

    def _time(self, method: str, naming: Callable[..., str]) -> None:
        """Time a method of the platform's, unless it is called by another that is timed."""
        platform = self._session.platform
        inner = getattr(platform, method, None)
        if inner is None:
            return
        clock = self._session.machine.clock

        @functools.wraps(inner)
        def timed(vcpu: Vcpu, *arguments: Any) -> object:  # noqa: ANN401 - whatever the method takes
            # Before anything else: a span that a trap leaves is not over.
            if method == "exception":
                self._spans.interrupted(vcpu, vcpu.rip)
            # Nested calls are part of the outer one's time.
            if self._busy:
                return inner(vcpu, *arguments)
            self._busy, begun = True, clock.ns
            try:
                return inner(vcpu, *arguments)
            finally:
                self._busy = False
                _add(self.traps, naming(*arguments), clock.ns - begun)

        # On the object, not the class: other sessions have the same platform's class.
        vars(platform)[method] = timed

    def _made(self, made: HypercallMade) -> None:
        _add(self.hypercalls, made.name, self._session.machine.clock.ns - made.ns)

    def close(self) -> None:
        """Trace no more; what was found stays."""
        platform = self._session.platform
        # In reverse: what was put in is taken out, and the loop told.
        platform.ignore(self._made)
        for name in _NAMINGS:
            vars(platform).pop(name, None)
        self._session.machine.attach(platform)
        self._spans.close()

    @property
    def ops(self) -> TimedCounts:
        """Ops by the kernel's path, those that were called."""
        found: TimedCounts = {}
        for site, count, ns in zip(self._table.sites, self._spans.counts, self._spans.times, strict=True):
            if count:
                path = self._table.layout.by_type(site.type).path
                found[path] = found.get(path, TimedCount()).more(count, ns)
        return found

    def found(self) -> Traced:
        """The result."""
        slots, name = self._table.layout, self._table.name
        counted = zip(self._table.sites, self._spans.counts, self._spans.times, strict=True)
        sites = (
            TracedSite(f"{site.address:#x}", name(site.address), slots.by_type(site.type).path, count, ns)
            for site, count, ns in counted
            if count
        )
        return Traced(self.ops, dict(self.hypercalls), dict(self.traps), tuple(sites))


def _add(shares: TimedCounts, name: str, ns: int) -> None:
    shares[name] = shares.get(name, TimedCount()).more(1, ns)


def _exception(vector: int, *_rest: object) -> str:
    return _VECTORS[vector] if vector < len(_VECTORS) else f"#{vector}"


_NAMINGS: Final[dict[str, Callable[..., str]]] = {
    "exception": _exception,
    "software_interrupt": lambda vector: f"int {vector:#x}",
    "syscall": lambda: "syscall",
    "syscall_in_place": lambda *_values: "syscall in place",
    "sysenter": lambda: "sysenter",
    "cpuid": lambda *_leaf: "cpuid",
    "io_in": lambda *_port: "in",
    "io_out": lambda *_port: "out",
    "halted": lambda: "hlt",
}
"""What is timed of a platform: methods of the machine's ``TrapHandler``, and what a call of each is called."""

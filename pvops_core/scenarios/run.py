"""What a scenario looks at when a run is over, whichever the guest: the built-in one, or a kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from pvops_core.guest import Guest
    from pvops_core.machine import Event, Stop
    from pvops_core.patching.sites import SiteRecord
    from pvops_core.scenarios.acts import Value
    from pvops_core.scenarios.witness import Fault
    from pvops_core.session import Session
    from pvops_core.switchboard import Switch

Prepare = Callable[["Session"], None]
"""What is done with a session before it runs."""


def unprepared(_session: Session) -> None:
    """A run that needs no preparation."""


@attrs.frozen(eq=False, kw_only=True)
class Run(ABC):
    """What one run came to.

    Attributes:
        guest: the guest.
        backend: name of the backend in force.
        cmdline: the guest's command line.
        stop: how it ended.
        done: the guest came to its own end.
        console: what it printed.
        faults: its exceptions.
        events: the machine's event log.
        history: switches of ops.
        rip: where the first vCPU stood at the end.
        text: address and bytes of each piece of the guest's text, as it was patched or at the end.
        gates: address to the op whose implementation it calls.
    """

    guest: Guest
    backend: str
    cmdline: str
    stop: Stop
    done: bool
    console: str
    faults: tuple[Fault, ...]
    events: tuple[Event, ...]
    history: tuple[Switch, ...]
    rip: int
    text: tuple[tuple[int, bytes], ...]
    gates: Mapping[int, str]

    @property
    @abstractmethod
    def name(self) -> str:
        """What people call the guest."""

    @property
    @abstractmethod
    def sites(self) -> tuple[SiteRecord, ...]:
        """Its calls of ops."""

    @property
    @abstractmethod
    def ending(self) -> str:
        """How it ended, in a few words."""

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, Value]:
        """Figures of a sound run."""

    @property
    def title(self) -> str:
        """Guest, backend and command line."""
        return " ".join(filter(None, (self.name, "on", self.backend, self.cmdline and f"({self.cmdline})")))

    @property
    def crashed(self) -> bool:
        """The run ended because the guest could not go on."""
        return self.stop.reason == "crash" and not self.done

    def now(self, address: int, length: int) -> bytes:
        """Bytes of the guest's text as the run left them; fewer beyond its end."""
        for start, code in self.text:
            if start <= address < start + len(code):
                return code[address - start : address - start + length]
        return b""

    def built(self, address: int, length: int) -> bytes:
        """The same as built."""
        return self.guest.image.read(address, length)

    def in_text(self, address: int) -> bool:
        """Whether an address lies in the guest's text."""
        return any(start <= address < start + len(code) for start, code in self.text)

    def site_at(self, address: int) -> SiteRecord | None:
        """The site in which an address lies."""
        return next((site for site in self.sites if 0 <= address - site.address < site.length), None)

    def named(self, kind: str) -> Iterable[Mapping[str, Any]]:
        """Fields of the logged events of a kind."""
        return [dict(event.fields) for event in self.events if event.kind == kind]

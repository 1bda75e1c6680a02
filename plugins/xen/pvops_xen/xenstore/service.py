"""The daemon behind a domain's shared page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from pvops_xen.hypervisor.ring import BITS, BadRingError, ByteRing
from pvops_xen.public import IO
from pvops_xen.xenstore import saved
from pvops_xen.xenstore.daemon import MOST_UNREAD, Daemon
from pvops_xen.xenstore.wire import BadClientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import PhysicalMemory

_PAGE: Final = IO["xenstore_domain_interface"]
REQUESTS: Final = ByteRing(_PAGE, "req")
REPLIES: Final = ByteRing(_PAGE, "rsp")
_FEATURE_ERROR: Final = 2  # XENSTORE_SERVER_FEATURE_ERROR, and XENSTORE_ERROR_* (public/io/xs_wire.h)
_ERROR_COMM, _ERROR_RINGIDX, _ERROR_PROTO = 1, 2, 3


def _no_log(message: str) -> None:
    del message


class StoreState(NamedTuple):
    """Xenstore in a snapshot: its page and event channel, and the daemon with its tree."""

    page: int
    port: int
    daemon: saved.DaemonState


@attrs.define
class StoreService:
    """Xenstore for one domain.

    Attributes:
        domid: the domain.
        log: takes why a client is not listened to any more.
        page: machine address of the shared page; 0 for none.
        port: event channel of the page; 0 for none.
        daemon: the daemon.
    """

    domid: int
    log: Callable[[str], None] = _no_log
    page: int = 0
    port: int = 0
    daemon: Daemon = attrs.field(factory=Daemon)

    def open(self, memory: PhysicalMemory, page: int, port: int) -> None:
        """Begin to serve a domain's page."""
        self.page, self.port = page, port
        self.daemon.introduce(self.domid)
        memory.set_u32(page + _PAGE.offset("server_features", BITS), _FEATURE_ERROR)

    def exchange(self, memory: PhysicalMemory) -> bool:
        """Answer what the domain has asked: whether it has to be told of anything."""
        if not self.page:
            return False
        client = self.daemon.clients[self.domid]
        if client.ignored:
            return False
        try:
            asked = REQUESTS.take(memory, self.page) if len(client.received) < MOST_UNREAD else b""
            self.daemon.receive(client, asked)
            given = REPLIES.put(memory, self.page, bytes(client.unread)) if client.unread else 0
        except BadRingError as bad:
            return self._ignore(memory, str(bad), _ERROR_RINGIDX)
        except BadClientError as bad:
            return self._ignore(memory, str(bad), _ERROR_PROTO)
        del client.unread[:given]
        return bool(asked or given)

    def _ignore(self, memory: PhysicalMemory, reason: str, code: int) -> bool:
        """The domain talks nonsense: it is told so, and not listened to any more."""
        self.daemon.clients[self.domid].ignored = reason
        self.log(f"xenstore ring: {reason}; the domain is not listened to any more")
        memory.set_u32(self.page + _PAGE.offset("error", BITS), code)
        return True

    def save(self) -> StoreState:
        """State for a snapshot."""
        return StoreState(self.page, self.port, saved.save(self.daemon))

    def load(self, state: StoreState) -> None:
        """Take over what ``save`` gave."""
        self.page, self.port = state.page, state.port
        self.daemon = saved.load(state.daemon)

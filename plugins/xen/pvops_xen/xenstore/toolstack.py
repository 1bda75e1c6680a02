"""What a toolstack writes for a new domain, and how it asks one to end (libxl_create.c, libxl_dom.c of Xen)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.guest.places import find_time
from pvops_xen.hypervisor.policy import uuid_of
from pvops_xen.xenstore.tree import READ, Permission

if TYPE_CHECKING:
    from pvops_xen.xenstore.daemon import Daemon

_GUESTS_OWN: Final = (
    "control/shutdown",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
    "control/sysrq",
    "device/suspend/event-channel",
    "data",
    "drivers",
    "feature",
    "attr",
    "error",
)
_READ_ONLY: Final = ("cpu", "memory", "device", "control")
SHUTDOWN_WORDS: Final = frozenset({"poweroff", "reboot", "halt", "suspend", "crash"})
REQUEST: Final = f"nothing, or {', '.join(sorted(SHUTDOWN_WORDS))} and when, as in poweroff@3600s"


@attrs.frozen
class DomainFacts:
    """What is written of a domain.

    Attributes:
        domid: its number.
        name: its name.
        memory_kib: its memory.
        vcpus: how many it has.
        store: port and frame of xenstore's page.
        console: port and frame of the console's page; None where the domain has none.
    """

    domid: int
    name: str
    memory_kib: int
    vcpus: int
    store: tuple[int, int]
    console: tuple[int, int] | None

    @property
    def uuid(self) -> str:
        """As xenstore's paths have it."""
        text = uuid_of(self.domid).hex()
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def write_domain(daemon: Daemon, facts: DomainFacts) -> None:
    """Make the domain's part of the tree, with the rights that it has there."""
    tree = daemon.as_toolstack()
    home, machine = f"/local/domain/{facts.domid}", f"/vm/{facts.uuid}"
    readable = (Permission(0, 0), Permission(READ, facts.domid))
    own = (Permission(0, facts.domid),)
    tree.mkdir("/local/domain/0")
    for path in (home, machine, *(f"{home}/{name}" for name in _READ_ONLY)):
        tree.mkdir(path)
        tree.set_permissions(path, readable)
    for name in _GUESTS_OWN:
        tree.mkdir(f"{home}/{name}")
        tree.set_permissions(f"{home}/{name}", own)
    values = {f"{machine}/uuid": facts.uuid, f"{machine}/name": facts.name, f"{home}/vm": machine}
    values |= {f"{home}/{name}": value for name, value in _values(facts).items()}
    for path, value in values.items():
        tree.write(path, value.encode())


def _values(facts: DomainFacts) -> dict[str, str]:
    """What is below the domain's own path."""
    found = {
        "name": facts.name,
        "domid": str(facts.domid),
        "control/platform-feature-multiprocessor-suspend": "1",
        "control/platform-feature-xs_reset_watches": "1",
        "memory/static-max": str(facts.memory_kib),
        "memory/target": str(facts.memory_kib),
        "memory/videoram": "0",
        "store/port": str(facts.store[0]),
        "store/ring-ref": str(facts.store[1]),
    }
    if facts.console is not None:
        port, frame = facts.console
        found |= {
            "console/backend": f"/local/domain/0/backend/console/{facts.domid}/0",
            "console/backend-id": "0",
            "console/limit": "1048576",
            "console/type": "xenconsoled",
            "console/output": "pty",
            "console/tty": "",
            "console/port": str(port),
            "console/ring-ref": str(frame),
        }
    return found | {f"cpu/{index}/availability": "online" for index in range(facts.vcpus)}


def read_request(text: str) -> tuple[str, int] | None:
    """What a toolstack is to ask, and when, in ns, of a text such as ``poweroff@3600s``; None of an empty one.

    Raises:
        ValueError: it is no such text.
    """
    if not text:
        return None
    word, _, time = text.partition("@")
    ns = find_time(time)
    if word not in SHUTDOWN_WORDS:
        raise ValueError(f"{word!r} is nothing that a guest can be asked")
    if ns is None:
        raise ValueError(f"{time!r} is no virtual time")
    return word, ns


def request_shutdown(daemon: Daemon, domid: int, word: str) -> None:
    """Ask a domain to end: it has to watch ``control/shutdown`` for that."""
    daemon.as_toolstack().write(f"/local/domain/{domid}/control/shutdown", word.encode())

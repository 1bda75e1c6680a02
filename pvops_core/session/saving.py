"""A session's way to disk and back: what it is of, and its machine's snapshot."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from pvops_core.backends import chain
from pvops_core.backends.loading.loader import load_needed
from pvops_core.beside import replacing
from pvops_core.errors import PvopsError, unknown
from pvops_core.guests import BuiltinGuest, Kernel, builtin_guest, read_kernel
from pvops_core.saved import container, states
from pvops_core.saved.errors import SavedError, other
from pvops_core.saved.front import Head, Making, read_head
from pvops_core.saved.key import Key
from pvops_core.sources import source_hashes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pvops_core.backends import Backend
    from pvops_core.guest import Guest
    from pvops_core.session.session import Session, SessionSettings

_LATER = frozenset({"until", "stop_at", "keyboard"})
"""Settings that may be other than those of the session that was saved."""


def key_of(session: Session, backends: tuple[Backend, ...]) -> Key:
    """What a file of the session is of, or one that it is to go on from must be."""
    guest, machine = session.guest, session.machine
    settings = attrs.asdict(session.platform.settings, recurse=False)
    initrd = guest.initrd if isinstance(guest, Kernel) else b""
    modules = [kind.__module__ for each in backends for kind in (each.ops, each.platform) if kind is not None]
    return Key(
        guest=f"builtin {guest.layout}" if isinstance(guest, BuiltinGuest) else guest.boot_protocol,
        kernel=guest.image.sha256,
        initrd=hashlib.sha256(initrd).hexdigest() if initrd else "",
        cmdline=guest.cmdline,
        backends=tuple(each.name for each in backends),
        settings={name: str(value) for name, value in settings.items()},
        machine=machine.kind.value,
        cpus=len(machine.vcpus),
        memory=machine.memory.size,
        seed=machine.seed,
        slice=guest.slice_blocks,
        counted=machine.count_instructions,
        tool_frames=session.tool_frames,
        engine=machine.engine,
        # Of the code too: state of another version may mean something else.
        sources=source_hashes(modules),
    )


def save(session: Session, backends: tuple[Backend, ...], path: Path, place: str, vcpu: int) -> None:
    """Write a session, which stands still, to a file: all of it, or the file is as it was before.

    Raises:
        MachineError: a handler is running.
        SavedError: it has something that cannot be saved; HostError, the file cannot be written.
    """
    machine = session.machine
    snapshot = machine.snapshot()
    data = states.encode(machine, snapshot)
    origin = _origin(session)
    with replacing(path, "a saved session") as file:
        head = (key_of(session, backends), origin, place, vcpu, machine.clock.ns)
        container.write(file.fileno(), head, data, snapshot.memory)


def _origin(session: Session) -> Making:
    guest = session.guest
    if isinstance(guest, Kernel):
        files = (os.path.realpath(guest.image.path), guest.initrd_path and os.path.realpath(guest.initrd_path))
    else:
        files = ("", "")
    return Making(*files, dict(session.options), session.platform.guest_memory)


def guest_of(head: Head, path: str) -> Guest:
    """The guest that a file says it is of, read from where it was.

    Raises:
        SavedError: it is of no guest that can be found so.
        ImageError: the kernel cannot be read.
    """
    protocol, _, layout = head.key.guest.partition(" ")
    if protocol == "builtin":
        return builtin_guest(layout, head.key.cmdline)
    if not head.origin.kernel or (head.key.initrd and not head.origin.initrd):
        raise SavedError("does not say where its kernel and ramdisk are: give them", path, field="origin")
    return read_kernel(head.origin.kernel, head.origin.initrd or None, head.key.cmdline)


def load(session: Session, backends: tuple[Backend, ...], path: Path) -> Head:
    """Have a session that was made alike, and has not run, go on from a file; gives what the file says of itself.

    Raises:
        SavedError: the file is damaged, or is of another session. The session is then of no use.
    """
    opened = container.read(path)
    opened.head.key.check(key_of(session, backends), path)
    machine, owners = session.machine, session.machine.owners
    # A file of one's own making may say anything.
    if opened.head.vcpu >= len(machine.vcpus):
        raise other(str(path), "vcpu", opened.head.vcpu, f"of {len(machine.vcpus)}")
    found, counts = states.decode(opened.states, owners, str(path))
    try:
        for owner in owners.values():
            owner.save()  # tells the names of what stands beside its state
        machine.restore(machine.assemble(opened.memory, found, counts))
    except PvopsError as failure:
        raise SavedError(f"does not fit: {failure}", str(path), field="states") from failure
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as failure:
        told = f"does not fit: {type(failure).__name__}: {failure}"
        raise SavedError(told, str(path), field="states") from failure
    return opened.head


def made_for(
    kind: type[Session],
    path: Path,
    guest: Guest | None,
    backends: Mapping[str, Backend] | None,
    prepare: Callable[[Session], None] | None,
    settings: SessionSettings,
) -> Session:
    """The session that a file is of, made and loaded; see ``Session.load``."""
    head = read_head(path)
    key, origin = head.key, head.origin
    # What the file says is not to be said again.
    if strange := sorted(settings.keys() - _LATER):
        raise TypeError(f"a session is loaded with the {strange[0]} that it had")
    name = key.backends[0] if key.backends else ""
    there = load_needed(name).backends if backends is None else backends
    if name not in there:
        raise unknown("backend", name, sorted(there))
    made: SessionSettings = {
        **settings,
        "vcpus": key.cpus,
        "seed": key.seed,
        "memory": origin.memory,
        "options": origin.options,
        "count_instructions": key.counted,
        "tool_frames": key.tool_frames,
        "resumed": prepare is None,  # who puts hooks in looks at the text
    }
    place = made.pop("stop_at", "")
    links = chain(there[name], there)
    session = kind(guest or guest_of(head, str(path)), links, **made)
    try:
        if prepare is not None:
            prepare(session)
        load(session, links, path)
        if place:
            session.end_at(place)
    except BaseException:
        session.close()
        raise
    return session

"""What kernels tests boot, and how one comes to stand where tests begin: booted, or loaded from the user's shelf."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from pvops_core.backends import chain
from pvops_core.errors import HostError
from pvops_core.guests import Kernel, read_kernel
from pvops_core.saved.errors import SavedError
from pvops_core.session import Session, hosted
from pvops_core.session.saving import key_of, load
from pvops_core.testing.fixtures.choices import Choices

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.machine import Vcpu
    from pvops_core.saved.shelf import Shelf

PLACE: Final = "init"
"""Where tests begin unless they say otherwise: all is set up, interrupts are on, a kernel thread is about to become the
first process."""
MAX_SECONDS: Final = 300


@attrs.frozen
class Recipe:
    """What to boot, and how far.

    Attributes:
        image: path of the kernel.
        backend: name of the backend.
        initrd: path of the initial ramdisk; empty for one that has nothing but an executable ``/init``, which is
            enough to come to the beginning of the first process.
        cmdline: command line; the platform's console is added where it names none.
        place: a function of the kernel's or a named point of its boot.
        vcpus: number of virtual CPUs.
        seed: of the run.
        choices: settings of the backend's platform.
    """

    image: str
    backend: str
    initrd: str = ""
    cmdline: str = ""
    place: str = PLACE
    vcpus: int = 1
    seed: int = 0
    choices: Choices = attrs.field(factory=Choices)


def standing(
    recipe: Recipe, backends: Mapping[str, Backend], shelf: Shelf | None, *, fresh: bool
) -> tuple[Session, Vcpu]:
    """A session of a kernel that stands at its place, and the vCPU that has come there.

    It is loaded even where it has just been booted and kept: what tests see is the same in every run.

    Args:
        recipe: what to boot, and how far.
        backends: all that are loaded.
        shelf: where booted kernels are kept for other processes; None for nowhere.
        fresh: boot it, whatever is kept.

    Raises:
        PvopsError: it cannot be booted, or did not come to the place.
    """
    links = chain(backends[recipe.backend], backends)
    kernel = _kernel(recipe, links)
    chosen = dict(recipe.choices.settings)

    def made(*, resumed: bool = True) -> Session:
        return Session(kernel, links, vcpus=recipe.vcpus, seed=recipe.seed, options=chosen, resumed=resumed)

    session = made(resumed=shelf is not None)
    try:
        if shelf is None:
            return session, session.run_to(recipe.place, max_seconds=MAX_SECONDS)
        name = hashlib.sha256(msgspec.msgpack.encode((key_of(session, links), recipe.place))).hexdigest()[:32]
        path = shelf.path(name)
        if not fresh and path.exists():
            return session, _loaded(session, links, shelf, name)
        with shelf.held(name) as place:
            if place and not fresh and path.exists():  # somebody else has made it meanwhile
                return session, _loaded(session, links, shelf, name)
            session.close()
            session = made(resumed=False)
            vcpu = session.run_to(recipe.place, max_seconds=MAX_SECONDS)
            if not place or not _kept(session, shelf, name, recipe.place, vcpu):
                return session, vcpu
        session.close()
        session = made()
        return session, _loaded(session, links, shelf, name)
    except SavedError:  # a damaged file, and the session may have half of it
        session.close()
        assert shelf is not None
        shelf.drop(name)
        return standing(recipe, backends, None if path.exists() else shelf, fresh=fresh)
    except BaseException:
        session.close()
        raise


def _kernel(recipe: Recipe, links: tuple[Backend, ...]) -> Kernel:
    """The kernel with its ramdisk, and the platform's console on its command line."""
    kernel = read_kernel(recipe.image, recipe.initrd or None, recipe.cmdline)
    words = recipe.cmdline.split()
    if not any(word.startswith("console=") for word in words):
        words.append(f"console={hosted(kernel.boot_protocol, kernel.kinds, links)[0].console_name}")
    return attrs.evolve(kernel, initrd=kernel.initrd or SMALLEST_RAMDISK, cmdline=" ".join(words))


def _loaded(session: Session, links: tuple[Backend, ...], shelf: Shelf, name: str) -> Vcpu:
    """The vCPU that has come to the place; SavedError if the file is damaged."""
    head = load(session, links, shelf.path(name))
    shelf.used(name)
    return session.machine.vcpus[head.vcpu]


def _kept(session: Session, shelf: Shelf, name: str, place: str, vcpu: Vcpu) -> bool:
    """Put a session on the shelf; whether that could be done."""
    try:
        session.save(shelf.path(name), place, vcpu.index)
    except (HostError, SavedError):
        return False
    shelf.trim(name)
    return True


def _cpio(name: str, mode: int, data: bytes) -> bytes:
    """One member of an archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


SMALLEST_RAMDISK: Final = _cpio("init", 0o100755, struct.pack("<I", 0)) + _cpio("TRAILER!!!", 0, b"")

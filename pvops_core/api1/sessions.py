"""Sessions as API 1 had them: one for the built-in guest, one for kernels."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from pvops_core import session
from pvops_core.backends import chain
from pvops_core.errors import unknown
from pvops_core.guests import BuiltinGuest, Kernel, Report, builtin_guest
from pvops_core.livepatch.payload.pages import FRAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pvops_core.backends import Backend, Platform
    from pvops_core.guest import GuestText
    from pvops_core.kinds import MachineKind


def parse_report(guest: BuiltinGuest, read: Callable[[int, int], bytes]) -> Report:
    """What the built-in guest wrote into its report."""
    return Report.read(guest.symbols, read)


def kernel_platform(kind: MachineKind, backends: tuple[Backend, ...]) -> type[Platform]:
    """Who hosts a kernel of this kind."""
    return session.platform_for(Kernel.boot_protocol, kind, backends)


class _Builtin:
    """``Session.builtin(...)`` makes a session; a session's ``builtin`` is its guest."""

    def __get__(self, instance: Session | None, owner: type[Session]) -> Any:  # noqa: ANN401 - one or the other
        return partial(_of_builtin, owner) if instance is None else session.Session.builtin.__get__(instance)


class Session(session.Session):
    """The built-in guest on a backend; ``cmdline`` is an argument of the session."""

    builtin = _Builtin()

    def __init__(self, guest: BuiltinGuest, backends: tuple[Backend, ...], **settings: Any) -> None:  # noqa: ANN401
        cmdline = settings.pop("cmdline", guest.cmdline)
        super().__init__(attrs.evolve(guest, cmdline=cmdline), backends, **settings)


def _of_builtin(
    kind: type[Session],
    layout: str,
    backend: str,
    *,
    backends: Mapping[str, Backend],
    **settings: Any,  # noqa: ANN401 - those of the session
) -> Session:
    if backend not in backends:
        raise unknown("backend", backend, sorted(backends))
    return kind(builtin_guest(layout), chain(backends[backend], backends), **settings)


class BootSession(session.Session):
    """A kernel on a backend; ``livepatch`` gives the machine memory for payloads."""

    def __init__(self, kernel: Kernel, backends: tuple[Backend, ...], **settings: Any) -> None:  # noqa: ANN401
        self.livepatch: bool = settings.pop("livepatch", False)
        if self.livepatch:
            settings["tool_frames"] = FRAMES
        super().__init__(kernel, backends, **settings)

    @property
    def image_memory(self) -> GuestText:
        """The kernel's image as it is in memory."""
        return self.text

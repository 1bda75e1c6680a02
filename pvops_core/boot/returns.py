"""Who returns where, in a booted kernel: what its session gives to find that out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pvops_core.boot.space import KernelSpace
from pvops_core.boot.tasks import Tasks, read_linux
from pvops_core.errors import ImageError
from pvops_core.guest.linux import LinuxReturns
from pvops_core.guest.returns import TaskStack, user_mode_of

if TYPE_CHECKING:
    from pvops_core.boot.session import BootSession


def returns_of(session: BootSession) -> LinuxReturns:
    """Who returns where in a session's kernel; its type information is read when that is first asked."""
    return LinuxReturns(
        session.machine,
        session.kernel.image,
        in_user_mode=user_mode_of(session.platform),
        find_tasks=lambda: _find_tasks(session),
        word=lambda at: KernelSpace(session).word(at),
    )


def _find_tasks(session: BootSession) -> Callable[[], Sequence[TaskStack]] | None:
    try:
        linux = read_linux(session.kernel.image)
    except ImageError:  # its symbols or types are damaged
        return None
    return Tasks(session, KernelSpace(session), linux) if linux is not None else None

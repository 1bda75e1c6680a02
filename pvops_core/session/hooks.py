"""The switchboard of a session whose guest is a kernel: it stands in front of ops that the kernel fills in itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.errors import SwitchError
from pvops_core.guests.linux.names import LinuxNames
from pvops_core.session.boundops import bound_ops
from pvops_core.switchboard.kernel.ophooks import OpHooks
from pvops_core.switchboard.offeredops import OfferedOps

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.guest.types.structs import Structures
    from pvops_core.session.session import Session


def make_hooks(session: Session, backends: tuple[Backend, ...]) -> OpHooks:
    """Make it; the backends' ops are made for the session when one is first asked for.

    Raises:
        SwitchError: the kernel has no table of ops that is known here.
    """
    table, slots, modules = session.table, session.slots, session.modules
    if table is None or slots is None or modules is None:
        raise SwitchError("the kernel has no table of ops that is known here")

    def structures() -> Structures:
        return session.structures

    def function(op: str) -> str:
        return hooks.kernels_own(op)

    def offers() -> OfferedOps:
        names = LinuxNames(session.kernel, session.machine, session.text, session.space, structures, function)
        return OfferedOps(table.layout, bound_ops(session, table.layout, names, backends))

    hooks = OpHooks(
        session.guest.image,
        session.machine,
        session.text,
        session.poker,
        table,
        slots,
        modules,
        session.points,
        structures,
        offers,
    )
    # Who stands in a hook's call is found by this when stacks are walked.
    session.returns.called = hooks.called
    return hooks

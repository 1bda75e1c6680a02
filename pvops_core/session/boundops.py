"""The backends' ops, made for a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.backends import Environment
from pvops_core.backends.blame import making
from pvops_core.switchboard.offeredops import BoundBackend

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pvops_core.backends import Backend
    from pvops_core.guest.names import Names
    from pvops_core.ops import Layout
    from pvops_core.session.session import Session


def bound_ops(session: Session, layout: Layout, names: Names, backends: Iterable[Backend]) -> list[BoundBackend]:
    """Each backend with its ops, made for a session's machine and guest; PluginError if they could not be made."""
    environment = Environment(
        machine=session.machine,
        layout=layout,
        platform=session.platform,
        symbols=session.guest.symbols,
        switch=lambda op, implementation, by: session.ops.switch(op, implementation, by=by),
        guest=names,
    )
    return [BoundBackend(backend, _ops_of(backend, environment)) for backend in backends]


def _ops_of(backend: Backend, environment: Environment) -> object | None:
    if backend.ops is None:
        return None
    # An error in an author's constructor is told as the author's.
    with making(backend.source, f"making {backend.ops.__qualname__}"):
        made: object = backend.ops(environment)
        return made

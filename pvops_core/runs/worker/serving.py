"""A backend's own hooks serve a real kernel's ops, or are told to be of no use there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.backends import implemented
from pvops_core.errors import SwitchError, UsageError
from pvops_core.runs.inside import ServedOp, ServedOps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvops_core.backends import Backend
    from pvops_core.session import Session
    from pvops_core.switchboard.kernel.ophook import OpHook


class Serving:
    """The hooks of one session's backends.

    Args:
        patterns: of the ops that they are to serve; None for no op.
        session: has not run yet.
        backends: its backend, that one's base, its base's base.

    Raises:
        UsageError: the kernel has no table of ops that is known, or a pattern means no op of it.
        PvopsError: they cannot be put in.
    """

    def __init__(self, patterns: tuple[str, ...] | None, session: Session, backends: Sequence[Backend]) -> None:
        self._session = session
        self._backend = backends[0]
        if patterns is None:
            return
        if session.known_table and not session.ops.use(*patterns, by="--ops"):
            names = ", ".join(patterns) or "any op"
            raise UsageError(f"backend {self._backend.name!r} and its bases have no hook for {names}")

    def _standing(self) -> list[OpHook]:
        hooks = self._session.made_hooks  # a switch may have put them in as well
        return [] if hooks is None else [hook for hook in hooks.standing if hook.wanted.backend]

    def calls(self, *, own: bool = False) -> dict[str, int]:
        """Op name -> calls that a backend's hook has served, those of the base's too unless ``own``."""
        name = self._backend.name
        return {hook.op: hook.calls for hook in self._standing() if not own or hook.wanted.backend == name}

    def found(self) -> ServedOps | None:
        """Who served what, and which hooks of the backend's were not used; None where there is nothing to say."""
        table = self._session.table
        if table is None:
            return None
        standing = self._standing()
        own = implemented(self._backend)
        unknown = sorted(op for op in own if not table.layout.has_slot(op))
        own -= {hook.op for hook in standing}
        if standing:
            own = frozenset(op for op in own if table.layout.has_slot(op) and self._has(op))
        unused = [slot.path for slot in table.layout.slots if slot.op.name in own and not slot.op.is_data]
        if not (standing or unused):
            return None
        return ServedOps(self._backend.name, tuple(map(_served, standing)), tuple(unused), tuple(unknown))

    def _has(self, op: str) -> bool:
        """Whether the backend has a hook of its own for an op on this machine, whatever it declares."""
        try:
            return self._session.ops.offered(op, self._backend.name).backend == self._backend.name
        except SwitchError:
            return False


def _served(hook: OpHook) -> ServedOp:
    return ServedOp(
        hook.slot.path, hook.wanted.name, hook.calls, dict(hook.passed), hook.sites, originals=tuple(hook.originals)
    )

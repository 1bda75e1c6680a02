"""Those who look inside a real kernel's boot, in the process that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvops_core.boot.records import find_records
from pvops_core.boot.verify import PatchingCheck

if TYPE_CHECKING:
    from pvops_core.boot import BootSession
    from pvops_core.compare.wire import Inside
    from pvops_core.hookspecs import Backend


class Insight:
    """Those who look at one session.

    Args:
        asked: what for.
        session: has not run yet.
        backends: its backend, that one's base, its base's base.

    Raises:
        PvopsError: something that was asked for cannot be had of this kernel.
    """

    def __init__(self, asked: Inside, session: BootSession, backends: Sequence[Backend]) -> None:
        self._check: PatchingCheck | None = None
        if asked.verify_patching:
            fills = [backend.kernel for backend in reversed(backends) if backend.kernel is not None]
            folder = Path(asked.records) if asked.records else None
            records = find_records(folder, session.kernel.image.sha256) if folder else ()
            self._check = PatchingCheck(session, fills, records)

    def found(self) -> dict[str, Any]:
        """What was seen: ``patching``, where that was asked for."""
        return {"patching": self._check.to_json()} if self._check else {}

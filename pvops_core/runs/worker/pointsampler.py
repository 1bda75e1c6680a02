"""Looks at a real kernel while it boots: what had been counted when it came to each named point, and its call sites."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from pvops_core.runs.costs import port_accesses
from pvops_core.runs.inside import BootPoint

if TYPE_CHECKING:
    from pvops_core.guest.points import Passed
    from pvops_core.machine import Vcpu
    from pvops_core.runs.worker.sitecodes import SiteCodes
    from pvops_core.session import Session

LAST_MOMENT: Final = "free_initmem"
"""The point at which a kernel frees the text that it needed for booting alone; it has long patched itself then."""


class PointSampler:
    """What is seen of one session; to be made just before it runs, since its stopwatch starts then.

    Args:
        session: what will run.
        sites: whether to read the kernel's call sites, and to count its accesses to model-specific registers.
    """

    def __init__(self, session: Session, *, sites: bool) -> None:
        self._session = session
        self._sites: SiteCodes | None = None
        if sites:
            from pvops_core.runs.worker.msrs import count_msrs  # noqa: PLC0415 - seldom wanted
            from pvops_core.runs.worker.sitecodes import SiteCodes  # noqa: PLC0415

            self._sites = SiteCodes(session)
            count_msrs(session)
        self._points: dict[str, BootPoint] = {}
        session.points.listen(self._note, acts=False)
        self._start = time.perf_counter()
        self._wall_s = 0.0

    def stop(self) -> None:
        """The session has run."""
        self._wall_s = time.perf_counter() - self._start

    def found(self) -> dict[str, Any]:
        """The fields of the observation that this knows of."""
        fields = {"points": self._points, "wall_s": self._wall_s}
        if self._sites is None:
            return fields
        if not self._sites.codes:
            self._sites.read()
        codes, note, forms = self._sites.codes, self._sites.note, self._sites.forms()
        return fields | {"site_codes": codes, "sites_note": note, "sites": forms}

    def _note(self, passed: Passed, _vcpu: Vcpu) -> None:
        platform, machine = self._session.platform, self._session.machine
        self._points[passed.name] = BootPoint(
            virtual_ns=passed.ns,
            wall_s=round(time.perf_counter() - self._start, 3),
            vcpu=passed.vcpu,
            traps=platform.traps.total(),
            hypercalls=platform.hypercalls.total(),
            page_table_updates=platform.page_table_updates,
            ports=port_accesses(machine.counts),
        )
        if passed.name == LAST_MOMENT and self._sites is not None:
            self._sites.read(f"at {LAST_MOMENT}")

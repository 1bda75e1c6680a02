"""All that is counted of a session, at any moment of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.records import like
from pvops_core.runs.counts import Counts, PlatformCounts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.session import Session


def counts_of(session: Session, others: Mapping[str, Mapping[str, int]]) -> Counts:
    """The counters of platform and machine, beside others by their fields."""
    return Counts(
        platform=like(session.platform, PlatformCounts),
        machine=dict(session.machine.counts),
        switches=sum(not switch.refused for switch in session.switches),
        **others,
    )

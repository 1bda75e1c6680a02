"""What entering the host costs."""

from __future__ import annotations

from pvops_lguest.host.costs import DIRECT_TRAP_NS, HOST_TRIP_NS, QUEUED_CALL_NS


def test_a_reflected_system_call_takes_what_lguest_s_author_measured() -> None:
    assert 2 * HOST_TRIP_NS + DIRECT_TRAP_NS == 1750
    assert QUEUED_CALL_NS < DIRECT_TRAP_NS < HOST_TRIP_NS

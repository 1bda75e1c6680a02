"""Why Xen refused something is in the result of the run."""

from __future__ import annotations

from pvops_xen.hypervisor.abi import MmuExt
from pvops_xen.testing.guests import SmallGuest


def test_refusals_say_why() -> None:
    with SmallGuest(64) as guest:
        messages = guest.session.platform.messages
        assert messages == []
        guest.update_va_mapping(guest.va(0), guest.table(1) << 12 | 3)
        assert "not to be written" in messages[-1]
        snapshot = guest.session.machine.snapshot()
        for _ in range(150):
            guest.mmuext((MmuExt.UNPIN_TABLE, guest.table(1), 0))
        assert messages == [f"mfn {guest.table(1):x} not pinned"] * 100
        guest.session.machine.restore(snapshot)
        assert "not to be written" in messages[-1]

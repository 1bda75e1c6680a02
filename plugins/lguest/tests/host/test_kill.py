"""How a guest ends: switched off, crashed or started anew."""

from __future__ import annotations

from pvops_lguest.host.abi import Call

from plugins.lguest.tests.launcher_rig import EVERY
from plugins.lguest.tests.small import DATA, SmallGuest


@EVERY
def test_another_message_is_a_crash(name: str) -> None:
    with SmallGuest(name).end("no init found").session() as session:
        stop = session.run(max_ns=10_000_000)
        assert (stop.reason, stop.detail) == ("crash", "CRASH: no init found")


def test_a_restart_is_a_reboot() -> None:
    guest = SmallGuest("2.6.31")
    guest.texts[DATA + 0x1000] = b"again\0"
    with guest.call(Call.SHUTDOWN, DATA + 0x1000, 2).session() as session:
        assert session.run(max_ns=10_000_000).reason == "reboot"

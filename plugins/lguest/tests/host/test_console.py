"""Text from before there is a driver."""

from __future__ import annotations

from pvops_lguest.host.abi import Call

from plugins.lguest.tests.launcher_rig import VIRTIO
from plugins.lguest.tests.small import DATA, RAM, SmallGuest


@VIRTIO
def test_early_text_and_what_waits_for_text(name: str) -> None:
    guest = SmallGuest(name)
    guest.texts[DATA + 0x1800] = b"Linux version 2.6\n\0"
    with guest.call(Call.NOTIFY, DATA + 0x1800).end().session() as session:
        session.platform.until = b"version"
        assert session.run(max_ns=10_000_000).reason == "until"
        session.platform.until = b""
        assert session.run(max_ns=10_000_000).reason == "poweroff"
        assert bytes(session.platform.console) == b"Linux version 2.6\n"


def test_notify_of_nothing_kills_with_the_launchers_words() -> None:
    with SmallGuest("2.6.25").call(Call.NOTIFY, RAM + (200 << 12)).session() as session:
        assert session.run(max_ns=10_000_000).detail == f"Bad NOTIFY {RAM + (200 << 12):#x}"

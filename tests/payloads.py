"""A payload for the built-in guest that tests of commands and schemas share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.guests import builtin_guest
from pvops_core.livepatch.guest import build_id_of
from pvops_core.livepatch.payload.builder import PayloadBuilder

if TYPE_CHECKING:
    from pathlib import Path


def quiet_payload(folder: Path) -> Path:
    """The file of one by which ``report`` of the 6.1 guest becomes a function that does nothing."""
    guest = builtin_guest("6.1-64")
    host = build_id_of(guest.image)
    made = PayloadBuilder(guest.kind, build_id=b"quiet", depends=host, host=host)
    made.text("no_report", b"\xc3")
    made.replace("report", "no_report", old_size=16)
    path = folder / "quiet.livepatch"
    path.write_bytes(made.build())
    return path

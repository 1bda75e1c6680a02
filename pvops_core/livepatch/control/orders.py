"""What is to be done to a machine's live patches while it runs, as plain data."""

from __future__ import annotations

from pvops_core.records import JsonRecord


class PatchOrders(JsonRecord, frozen=True):
    """What is to be done to a kernel's live patches.

    Attributes:
        script: timed commands, as text; empty for none.
        path: what the script is called in messages.
        socket: path of a socket to listen at; empty for none.
    """

    script: str = ""
    path: str = ""
    socket: str = ""

    @property
    def wanted(self) -> bool:
        """Whether there is anything."""
        return bool(self.script or self.socket)


NOTHING = PatchOrders()

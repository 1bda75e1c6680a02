"""That a debugger may come, and where, as plain data."""

from __future__ import annotations

import re
from typing import Final

from pvops_core.errors import UsageError
from pvops_core.records import JsonRecord

LOOPBACK: Final = "127.0.0.1"
_PLACE: Final = re.compile(r"(?:(?:\[(?P<six>[0-9a-fA-F:.%\w]+)\]|(?P<host>[^:\[\]\s]*)):)?(?P<port>\d{1,5})\Z")
_PORTS: Final = 1 << 16


class DebugOrders(JsonRecord, frozen=True):
    """Where a debugger is waited for.

    Attributes:
        host: name or address to listen at.
        port: TCP port; 0 for one that is free.
        wait: the guest's first instruction waits for the debugger.
    """

    host: str
    port: int
    wait: bool = False

    @classmethod
    def parse(cls, text: str, *, wait: bool = False) -> DebugOrders:
        """The orders of ``[HOST:]PORT``: without a host, the loopback alone.

        Raises:
            UsageError: it is none.
        """
        match = _PLACE.match(text)
        if match is None or int(match["port"]) >= _PORTS:
            raise UsageError(f"--gdb takes PORT or HOST:PORT, such as 1234 or 0.0.0.0:1234, not {text!r}")
        return cls(match["six"] or match["host"] or LOOPBACK, int(match["port"]), wait)

"""What is told of backends and their plugins."""

from __future__ import annotations

from pvops_core.records import JsonRecord


class BrokenPlugin(JsonRecord, frozen=True):
    """A broken plugin.

    Attributes:
        distribution: Distribution, file or folder that it came from.
        version: Its version, if known.
        entry_point: The entry point.
        hook: The hook concerned; empty if none.
        message: What is wrong.
    """

    distribution: str
    version: str
    entry_point: str
    hook: str
    message: str

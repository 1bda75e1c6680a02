"""The JSON of ``pvops shell``."""

from __future__ import annotations

from pvops_core.records import Count, JsonRecord, Sha256


class ShellResult(JsonRecord, frozen=True):
    """Where a guest stood when a prompt was left or a script had ended.

    Attributes:
        kernel: The kernel's image.
        exit_code: The command's.
        where: Where each vCPU was, by symbol.
        console: All that the guest had printed.
        virtual_ns: Virtual time, in nanoseconds.
        event_log_sha256: Hash of all that had happened, in order.
    """

    kernel: str
    exit_code: Count
    where: str
    console: str
    virtual_ns: Count
    event_log_sha256: Sha256

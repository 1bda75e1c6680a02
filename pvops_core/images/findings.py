"""What is told of a kernel image."""

from __future__ import annotations

from typing import Literal

from pvops_core.records import JsonRecord, Sha256


class Image(JsonRecord, frozen=True):
    """A kernel image.

    Attributes:
        path: The file.
        sha256: Hash of the unpacked vmlinux.
        machine: `x86_64` or `i386`.
        release: Release that the kernel says it is; empty if it says none.
    """

    path: str
    sha256: Sha256
    machine: Literal["x86_64", "i386"]
    release: str

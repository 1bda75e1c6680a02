"""What is told of a ramdisk that was made."""

from __future__ import annotations

from typing import Literal

from pvops_core.records import Count, JsonRecord, Sha256


class ArchivedFile(JsonRecord, frozen=True):
    """A file of a ramdisk.

    Attributes:
        path: Where it lies in the guest.
        mode: Type and permissions, as in `st_mode`.
        bytes: Of its contents; of a symbolic link of the path that it points to.
    """

    path: str
    mode: Count
    bytes: Count


class InitrdResult(JsonRecord, frozen=True):
    """An initial ramdisk that was made.

    Attributes:
        initrd: The file.
        sha256: Hash of its bytes.
        bytes: How many it has.
        machine: What its programs are for.
        busybox: The file that its busybox was read from.
        files: What lies in it, as it was given; folders that these need are there besides.
    """

    initrd: str
    sha256: Sha256
    bytes: Count
    machine: Literal["x86_64", "i386"]
    busybox: str
    files: tuple[ArchivedFile, ...]

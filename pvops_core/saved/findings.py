"""What is told of the user's shelf of saved sessions."""

from __future__ import annotations

from pvops_core.records import Count, JsonRecord


class KeptSession(JsonRecord, frozen=True):
    """A booted kernel that is kept for tests.

    Attributes:
        path: The file.
        bytes: What it takes of the disk.
        used: When it was last used, in seconds since 1970.
        backend: Backend that it was booted on; empty if the file is damaged.
        vcpus: Virtual CPUs.
        place: Where it stands.
        kernel: The kernel's file.
    """

    path: str
    bytes: Count
    used: Count
    backend: str = ""
    vcpus: Count = 0
    place: str = ""
    kernel: str = ""


class KeptKind(JsonRecord, frozen=True):
    """What is kept of a kind, since it takes long to make.

    Attributes:
        name: Of the kind, and of its folder.
        meaning: What that is.
        files: How many.
        bytes: What they take of the disk.
    """

    name: str
    meaning: str
    files: Count
    bytes: Count


class CacheList(JsonRecord, frozen=True):
    """The booted kernels that are kept, and what else is.

    Attributes:
        folder: Where they are.
        limit: Bytes of disk that they may take.
        sessions: Each, that used longest ago first.
        others: What is kept beside them, by kind.
    """

    folder: str
    limit: Count
    sessions: tuple[KeptSession, ...]
    others: tuple[KeptKind, ...]


class CacheCleared(JsonRecord, frozen=True):
    """What was taken away.

    Attributes:
        removed: Number of sessions.
        freed: Bytes of disk, of all together.
        others: Number of files of other kinds.
    """

    removed: Count
    freed: Count
    others: Count

"""What Xen remembers of a domain's grants, and the numbers of the interface (xen/include/public/grant_table.h)."""

from __future__ import annotations

import enum
from typing import Final

import attrs

MAX_FRAMES: Final = 64  # what the toolstack allows a domain unless told otherwise
MAX_MAPTRACK_FRAMES: Final = 1024  # gnttab_max_maptrack_frames (common/grant_table.c)
HANDLES_A_FRAME: Final = 256
# GNTTAB_NR_RESERVED_ENTRIES (public/grant_table.h): for the toolstack, of which two are used
RESERVED_ENTRIES: Final = 8
CONSOLE_REF: Final = 0
XENSTORE_REF: Final = 1
ENTRY_SIZE: Final = {1: 8, 2: 16}  # bytes, by version
_MOST_PINS: Final = 0x80  # GNTPIN_incr2oflow_mask: of a counter's eight bits the top one says that it is full
_STATUS_WORDS_A_FRAME: Final = 2048  # grant_status_t has 16 bits


class GrantOp(enum.IntEnum):
    """``GNTTABOP_*``."""

    MAP_GRANT_REF = 0
    UNMAP_GRANT_REF = 1
    SETUP_TABLE = 2
    DUMP_TABLE = 3
    TRANSFER = 4
    COPY = 5
    QUERY_SIZE = 6
    UNMAP_AND_REPLACE = 7
    SET_VERSION = 8
    GET_STATUS_FRAMES = 9
    GET_VERSION = 10
    SWAP_GRANT_REF = 11
    CACHE_FLUSH = 12


class GrantStatus(enum.IntEnum):
    """``GNTST_*``: what became of one element of a call."""

    OKAY = 0
    GENERAL_ERROR = -1
    BAD_DOMAIN = -2
    BAD_GNTREF = -3
    BAD_HANDLE = -4
    BAD_VIRT_ADDR = -5
    BAD_DEV_ADDR = -6
    NO_DEVICE_SPACE = -7
    PERMISSION_DENIED = -8
    BAD_PAGE = -9
    BAD_COPY_ARG = -10
    ADDRESS_TOO_BIG = -11
    EAGAIN = -12
    NO_SPACE = -13


class GrantRefusedError(Exception):
    """An element of a call fails with this status."""

    def __init__(self, status: GrantStatus) -> None:
        super().__init__(status.name)
        self.status = status


class Gtf(enum.IntFlag):
    """``GTF_*``: flags of an entry; the lowest two bits are its type."""

    PERMIT_ACCESS = 1
    ACCEPT_TRANSFER = 2
    TRANSITIVE = 3
    TYPE_MASK = 3
    READONLY = 4
    READING = 8
    WRITING = 16
    SUB_PAGE = 256
    TRANSFER_COMMITTED = 4
    TRANSFER_COMPLETED = 8


class GntMap(enum.IntFlag):
    """``GNTMAP_*``: how a grant is mapped."""

    DEVICE_MAP = 1
    HOST_MAP = 2
    READONLY = 4
    APPLICATION_MAP = 8
    CONTAINS_PTE = 16


@attrs.define
class Active:
    """A grant that is in use (``struct active_grant_entry``).

    Attributes:
        domid: who uses it.
        mfn: the frame.
        start, length: the part of it that may be used, in bytes.
        partial: it may be copied, not mapped.
        readers, writers: mappings and copies going on, by processors.
        device_readers, device_writers: mappings for devices.
    """

    domid: int
    mfn: int
    start: int = 0
    length: int = 4096
    partial: bool = False
    readers: int = 0
    writers: int = 0
    device_readers: int = 0
    device_writers: int = 0

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Uses of each kind."""
        return self.readers, self.writers, self.device_readers, self.device_writers

    @property
    def full(self) -> bool:
        """A counter is so high that the next use might overflow it."""
        return any(count >= _MOST_PINS for count in self.counts)

    @property
    def written(self) -> bool:
        """Somebody may write."""
        return bool(self.writers or self.device_writers)

    def pin(self, flags: int, step: int = 1) -> None:
        """Count a mapping (``GntMap``), or take one away."""
        if flags & GntMap.DEVICE_MAP:
            if flags & GntMap.READONLY:
                self.device_readers += step
            else:
                self.device_writers += step
        if flags & GntMap.HOST_MAP:
            if flags & GntMap.READONLY:
                self.readers += step
            else:
                self.writers += step


@attrs.define
class Mapping:
    """``struct grant_mapping``: whose, which, and how (``GntMap``; 0 when it is gone)."""

    domid: int
    ref: int
    flags: int


@attrs.define
class GrantTable:
    """A domain's grants.

    Attributes:
        spare: machine frames kept for the table to grow into.
        version: of the entries' layout, 1 or 2.
        frames: machine frames of the entries.
        status: machine frames of the status words of version 2.
        active: grants in use, by reference.
        mappings: grants that this domain has mapped, by handle.
        handles: handles handed out so far, in whole pages of them.
        free: each vCPU's free handles.
    """

    spare: list[int] = attrs.field(factory=list)
    version: int = 1
    frames: list[int] = attrs.field(factory=list)
    status: list[int] = attrs.field(factory=list)
    active: dict[int, Active] = attrs.field(factory=dict)
    mappings: dict[int, Mapping] = attrs.field(factory=dict)
    handles: int = 0
    free: dict[int, list[int]] = attrs.field(factory=dict)

    @property
    def entries(self) -> int:
        """How many there are."""
        return len(self.frames) * 4096 // ENTRY_SIZE[self.version]

    def take_handle(self, vcpu: int) -> int | None:
        """A free handle; None if there is none. The last of a vCPU's list marks its end and is never handed out."""
        free = self.free.setdefault(vcpu, [])
        if len(free) > 1:
            # From the front, as ``_get_maptrack_handle`` takes them: a run hands out the same handles each time.
            return free.pop(0)
        if self.handles < MAX_MAPTRACK_FRAMES * HANDLES_A_FRAME:
            first = self.handles
            self.handles += HANDLES_A_FRAME
            # The first of a new frame's goes to the caller, the others join the list in order.
            free[:0] = range(first + 1, self.handles)
            return first
        # A vCPU that has none left steals another's (``steal_maptrack_handle``).
        other = next((each for each in self.free.values() if len(each) > 1), None)
        return other.pop(0) if other else None

    def give_handle(self, vcpu: int, handle: int) -> None:
        """put_maptrack_handle(): take a handle back."""
        self.mappings.pop(handle, None)
        self.free.setdefault(vcpu, []).append(handle)


def status_frames(frames: int) -> int:
    """grant_to_status_frames(): status words that so many frames of entries of version 2 need."""
    entries = frames * 4096 // ENTRY_SIZE[2]
    return (entries + _STATUS_WORDS_A_FRAME - 1) // _STATUS_WORDS_A_FRAME

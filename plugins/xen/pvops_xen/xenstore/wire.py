"""The wire protocol: requests, replies and what can be wrong with them (xen/include/public/io/xs_wire.h)."""

from __future__ import annotations

import enum
from typing import Final

import attrs

from pvops_xen.public import IO

PAYLOAD_MAX: Final = 4096  # XENSTORE_PAYLOAD_MAX, XENSTORE_ABS_PATH_MAX (public/io/xs_wire.h)
ABS_PATH_MAX: Final = 3072
_HEADER: Final = IO["xsd_sockmsg"].whole("type", "req_id", "tx_id", "len")
_BITS: Final = 64
"""Of the header, which is the same in both widths."""
OK: Final = b"OK\0"


class Type(enum.IntEnum):
    """``enum xsd_sockmsg_type``."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21
    DIRECTORY_PART = 22


class XsError(enum.Enum):
    """Errors as they go over the wire: by name."""

    EINVAL = "EINVAL"
    EACCES = "EACCES"
    EEXIST = "EEXIST"
    ENOENT = "ENOENT"
    ENOSPC = "ENOSPC"
    ENOSYS = "ENOSYS"
    EBUSY = "EBUSY"
    EAGAIN = "EAGAIN"
    E2BIG = "E2BIG"
    EPERM = "EPERM"


class RequestError(Exception):
    """A request is refused, with an error that the client is told."""

    def __init__(self, error: XsError) -> None:
        super().__init__(error.value)
        self.error = error


class BadClientError(Exception):
    """What the client sends is no protocol; it is not listened to any more."""


@attrs.frozen
class Message:
    """A request or reply."""

    type: int
    request: int
    transaction: int
    payload: bytes

    def pack(self) -> bytes:
        """Its bytes."""
        return _HEADER.at(_BITS).form.pack(self.type, self.request, self.transaction, len(self.payload)) + self.payload


def split(data: bytearray) -> Message | None:
    """Take the first message off the bytes received; None if it is not all there.

    Raises:
        BadClientError: it is longer than any may be.
    """
    header = _HEADER.at(_BITS).form
    if len(data) < header.size:
        return None
    kind, request, transaction, length = header.unpack_from(data)
    if length > PAYLOAD_MAX:
        raise BadClientError(f"a message of {length} bytes; {PAYLOAD_MAX} are the most")
    if len(data) < header.size + length:
        return None
    message = Message(kind, request, transaction, bytes(data[header.size : header.size + length]))
    del data[: header.size + length]
    return message


def refuse(error: XsError) -> RequestError:
    """The exception for an error."""
    return RequestError(error)


def strings(payload: bytes) -> list[str]:
    """The strings of a payload; what follows the last NUL is no string."""
    return [part.decode("latin-1") for part in payload.split(b"\0")[:-1]]


def one_string(payload: bytes) -> str:
    """The one string that a payload holds.

    Raises:
        RequestError: it holds none, more, or one without an end.
    """
    if payload.count(b"\0") != 1 or not payload.endswith(b"\0"):
        raise refuse(XsError.EINVAL)
    return payload[:-1].decode("latin-1")

"""The guest's console: bytes written by hypercall, and the shared ring of the paravirtual console (io/console.h)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, Protocol

import attrs

_INDEX: Final = struct.Struct("<I")
OUT: Final = 1024
OUT_SIZE: Final = 2048
OUT_CONS: Final = 3080
OUT_PROD: Final = 3084


class _Memory(Protocol):
    def read(self, pa: int, length: int, /) -> bytes: ...
    def write(self, pa: int, data: bytes, /) -> None: ...


@attrs.define
class Console:
    """Takes what the guest prints.

    Attributes:
        emit: gets the bytes, in order.
        ring: machine address of the ring page; 0 for none.
        port: event channel of the ring; 0 for none.
    """

    emit: Callable[[bytes], None]
    ring: int = 0
    port: int = 0

    def write(self, data: bytes) -> None:
        """Bytes from the console hypercall."""
        self.emit(data)

    def drain(self, memory: _Memory) -> None:
        """Take what the guest put into the ring; its indices run free and wrap at 32 bits."""
        if not self.ring:
            return
        consumed = _INDEX.unpack(memory.read(self.ring + OUT_CONS, 4))[0]
        produced = _INDEX.unpack(memory.read(self.ring + OUT_PROD, 4))[0]
        count = produced - consumed & 0xFFFF_FFFF
        if count > OUT_SIZE:  # nonsense from the guest: nothing can be trusted
            return
        data = memory.read(self.ring + OUT, OUT_SIZE)
        start = consumed % OUT_SIZE
        self.emit((data + data)[start : start + count])
        memory.write(self.ring + OUT_CONS, _INDEX.pack(produced))

    def save(self) -> object:
        """State for a snapshot."""
        return self.ring, self.port

    def load(self, saved: object) -> None:
        """Take over what ``save`` gave."""
        if not isinstance(saved, tuple):
            raise TypeError("not a snapshot of a console")
        self.ring, self.port = saved

"""A payload as its hooks see it: ``struct livepatch_payload`` and its ``struct livepatch_fstate`` in guest memory.

``livepatch.h``, which ``pvops livepatch build`` gives to the compiler, declares the same.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvops_core.livepatch.payload.model import OPAQUE_SIZE

if TYPE_CHECKING:
    from pvops_core.livepatch.guest import PatchedGuest
    from pvops_core.livepatch.payload.model import Record

STATE = struct.Struct(f"<BB{OPAQUE_SIZE}s")
"""``struct livepatch_fstate``: patch_offset, applied, insn_buffer."""
HEAD = {8: struct.Struct("<QIiIIQQ"), 4: struct.Struct("<IIiIIII")}
"""``struct livepatch_payload`` by pointer size: name, state, rc, nfuncs, reserved, funcs, fstate."""


def size_of(pointer_size: int, functions: int, name: bytes) -> int:
    """Bytes of a description with everything it points to but the functions."""
    return HEAD[pointer_size].size + functions * STATE.size + len(name)


def pack(pointer_size: int, address: int, name: bytes, functions: int, table: int) -> bytes:
    """A new payload's description.

    Args:
        pointer_size: 4 or 8.
        address: guest-virtual address where it is put.
        name: with its NUL.
        functions: how many there are.
        table: guest-virtual address of ``.livepatch.funcs``.
    """
    states = address + HEAD[pointer_size].size
    text = states + functions * STATE.size
    # CHECKED, no result yet.
    head = HEAD[pointer_size].pack(text, 1, 0, functions, 0, table, states)
    return head + bytes(functions * STATE.size) + name


class Description:
    """The description of one payload.

    Args:
        guest: the guest.
        record: the payload, which has a handle.
    """

    def __init__(self, guest: PatchedGuest, record: Record) -> None:
        self._guest = guest
        self._record = record
        self._size = guest.machine.kind.pointer_size
        self._states = record.payload.handle + HEAD[self._size].size

    def publish(self) -> None:
        """Write state, result and what is applied."""
        record = self._record
        # Behind the pointer to the name.
        self._guest.write_data(record.payload.handle + self._size, struct.pack("<Ii", record.state, record.rc))
        states = (
            STATE.pack(function.offset, saved is not None, saved or b"")
            for function, saved in zip(record.payload.functions, record.saved, strict=True)
        )
        self._guest.write_data(self._states, b"".join(states))

    def applied(self) -> list[bool]:
        """Which functions are applied, as the guest has it."""
        data = self._guest.read(self._states, STATE.size * len(self._record.saved))
        return [bool(applied) for _, applied, _ in STATE.iter_unpack(data)]

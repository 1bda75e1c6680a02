"""A payload as its hooks see it."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.kinds import MachineKind
from pvops_core.livepatch.payload.description import Description, pack, size_of
from pvops_core.livepatch.payload.model import Function, Payload, Record, State

AT = 0x100


@pytest.mark.parametrize("kind", [MachineKind.X86_64, MachineKind.PAE])
@given(
    saved=st.lists(st.one_of(st.none(), st.binary(min_size=1, max_size=31)), min_size=1, max_size=4),
    rc=st.integers(-40, 0),
)
def test_what_is_published_is_what_the_guest_reads(kind: MachineKind, saved: list[bytes | None], rc: int) -> None:
    name, memory = b"name\0", bytearray(0x1000)
    packed = pack(kind.pointer_size, AT, name, len(saved), 0x5000)
    assert len(packed) == size_of(kind.pointer_size, len(saved), name)
    memory[AT : AT + len(packed)] = packed
    (text,) = struct.unpack_from("<Q" if kind.bits == 64 else "<I", packed)
    assert memory[text : text + len(name)] == name

    def write(va: int, data: bytes) -> None:
        memory[va : va + len(data)] = data

    guest: Any = SimpleNamespace(
        machine=SimpleNamespace(kind=kind), write_data=write, read=lambda va, length: bytes(memory[va : va + length])
    )
    functions = tuple(Function(str(number), 0, 16, 0, 0, b"\x90") for number in range(len(saved)))
    record = Record(Payload(name="name", build_id=b"", depends=b"", functions=functions, handle=AT))
    record.saved, record.state, record.rc = list(saved), State.APPLIED, rc
    description = Description(guest, record)
    assert description.applied() == [False] * len(saved)
    description.publish()
    assert description.applied() == [each is not None for each in saved]
    assert struct.unpack_from("<Ii", memory, AT + kind.pointer_size) == (State.APPLIED, rc)
    assert memory[text : text + len(name)] == name

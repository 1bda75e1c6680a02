"""Rings of bytes: what is put in comes out, in order, wherever the indices stand; indices that lie are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pvops_xen.hypervisor.console import IN, OUT
from pvops_xen.hypervisor.ring import BadRingError, ByteRing

from pvops_core.machine import PhysicalMemory

PAGE = 0x1000


def guest_puts(memory: PhysicalMemory, ring: ByteRing, data: bytes) -> bytes:
    """What a guest's frontend does; what of the data there was room for."""
    consumer, producer = memory.u32(PAGE + ring.consumer), memory.u32(PAGE + ring.producer)
    data = data[: ring.size - (producer - consumer) % (1 << 32)]
    for at, byte in enumerate(data, producer):
        memory.write(PAGE + ring.data + at % ring.size, bytes([byte]))
    memory.set_u32(PAGE + ring.producer, (producer + len(data)) % (1 << 32))
    return data


@given(st.integers(0, (1 << 32) - 1), st.lists(st.binary(max_size=3000), max_size=8))
def test_what_the_guest_puts_in_is_taken(start: int, pieces: list[bytes]) -> None:
    memory = PhysicalMemory(0x3000)
    for index in (OUT.consumer, OUT.producer):
        memory.set_u32(PAGE + index, start)
    for piece in pieces:
        given_away = guest_puts(memory, OUT, piece)
        assert OUT.take(memory, PAGE) == given_away
        assert OUT.take(memory, PAGE) == b""


@given(st.integers(0, (1 << 32) - 1), st.lists(st.tuples(st.binary(max_size=1500), st.integers(0, 1500)), max_size=8))
def test_what_is_put_in_reaches_the_guest(start: int, turns: list[tuple[bytes, int]]) -> None:
    memory, waiting = PhysicalMemory(0x3000), b""
    for index in (IN.consumer, IN.producer):
        memory.set_u32(PAGE + index, start)
    for data, read in turns:
        count = IN.put(memory, PAGE, data)
        assert count == min(len(data), IN.size - len(waiting))
        waiting += data[:count]
        consumer = memory.u32(PAGE + IN.consumer)
        taken = min(read, len(waiting))
        seen = bytes(memory.read(PAGE + IN.data + (consumer + at) % IN.size, 1)[0] for at in range(taken))
        assert seen == waiting[:taken]
        waiting = waiting[taken:]
        memory.set_u32(PAGE + IN.consumer, (consumer + taken) % (1 << 32))


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1))
def test_more_than_a_ring_holds_is_refused_and_nothing_moves(consumer: int, producer: int) -> None:
    for ring in (IN, OUT):
        memory = PhysicalMemory(0x3000)
        memory.set_u32(PAGE + ring.consumer, consumer)
        memory.set_u32(PAGE + ring.producer, producer)
        if (producer - consumer) % (1 << 32) <= ring.size:
            continue
        before = memory.array.tobytes()
        with pytest.raises(BadRingError, match="more than the"):
            ring.take(memory, PAGE)
        with pytest.raises(BadRingError, match="more than the"):
            ring.put(memory, PAGE, b"word")
        assert memory.array.tobytes() == before

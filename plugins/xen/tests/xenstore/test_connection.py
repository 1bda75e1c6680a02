"""A ring of bytes: messages of any kind, indices that lie, a guest that never reads."""

from __future__ import annotations

import contextlib
import itertools
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_xen.xenstore.service import REPLIES, REQUESTS
from pvops_xen.xenstore.wire import BadClientError, Message, Type, split

if TYPE_CHECKING:
    from pvops_xen.hypervisor.ring import ByteRing
from plugins.xen.tests.xenstore_rig import DOMID, Client, Guest


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_bytes_of_any_kind_end_in_an_answer_or_a_reason(data: bytes, cuts: list[int]) -> None:
    client = Client()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    with contextlib.suppress(BadClientError):
        for start, end in itertools.pairwise([*places, len(data)]):
            client.daemon.receive(client.connection, data[start:end])


@pytest.mark.parametrize("start", [0, 1000, (1 << 32) - 10])
def test_replies_longer_than_the_ring_come_as_room_comes(guest: Guest, start: int) -> None:
    for ring in (REQUESTS, REPLIES):
        guest.index(ring.consumer, start)
        guest.index(ring.producer, start)
    value = bytes(range(256)) * 7
    message = Message(Type.WRITE, 1, 0, b"data\0" + value).pack()
    for at in range(0, len(message), 1000):
        guest.put(REQUESTS, message[at : at + 1000])
        assert guest.service.exchange(guest.memory)
    guest.put(REQUESTS, Message(Type.READ, 2, 0, b"data\0").pack())
    received = b""
    while guest.service.exchange(guest.memory):
        received += guest.take(REPLIES)
    buffer = bytearray(received)
    assert split(buffer) == Message(Type.WRITE, 1, 0, b"OK\0")
    assert split(buffer) == Message(Type.READ, 2, 0, value)
    assert not buffer


@pytest.mark.parametrize(
    ("ring", "consumer", "producer"), [(REQUESTS, 0, 1025), (REQUESTS, 1, 0), (REPLIES, 5, 4), (REPLIES, 0, 1 << 31)]
)
def test_indices_that_make_no_sense_are_named_and_end_the_conversation(
    guest: Guest, ring: ByteRing, consumer: int, producer: int
) -> None:
    said: list[str] = []
    guest.service.log = said.append
    guest.put(REQUESTS, Message(Type.READ, 2, 0, b"name\0").pack())
    guest.index(ring.consumer, consumer)
    guest.index(ring.producer, producer)
    assert guest.service.exchange(guest.memory)
    assert "more than the 1024 bytes of a ring" in said[0]
    assert guest.index(2072) == 2
    assert not guest.service.exchange(guest.memory)


def test_a_message_too_long_is_named_too(guest: Guest) -> None:
    guest.put(REQUESTS, struct.pack("<4I", Type.READ, 0, 0, 5000))
    assert guest.service.exchange(guest.memory)
    assert guest.index(2072) == 3
    assert "5000 bytes" in guest.service.daemon.clients[DOMID].ignored


def test_a_guest_that_never_reads_is_not_answered_for_ever(guest: Guest) -> None:
    request = Message(Type.READ, 2, 0, b"name\0").pack()
    for _ in range(20_000):
        guest.index(REQUESTS.producer, guest.index(REQUESTS.consumer))
        guest.put(REQUESTS, request * 40)
        guest.service.exchange(guest.memory)
        if guest.index(REQUESTS.producer) != guest.index(REQUESTS.consumer):
            break
    client = guest.service.daemon.clients[DOMID]
    assert len(client.unread) + len(client.received) < 1 << 18

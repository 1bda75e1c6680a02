"""The protocol of xenstore: messages come out as they went in, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pvops_xen.xenstore.wire import PAYLOAD_MAX, BadClientError, Message, RequestError, one_string, split, strings

WORDS = st.integers(0, (1 << 32) - 1)
MESSAGES = st.builds(Message, WORDS, WORDS, WORDS, st.binary(max_size=PAYLOAD_MAX))


@given(st.lists(MESSAGES, max_size=5), st.integers(1, 5000))
def test_messages_are_found_in_whatever_pieces_they_come(messages: list[Message], piece: int) -> None:
    stream, waiting, found = b"".join(message.pack() for message in messages), bytearray(), []
    for at in range(0, len(stream), piece):
        waiting += stream[at : at + piece]
        while (message := split(waiting)) is not None:
            found.append(message)
    assert found == messages
    assert not waiting


@given(st.integers(PAYLOAD_MAX + 1, (1 << 32) - 1))
def test_one_that_is_too_long_is_refused_before_it_is_there(length: int) -> None:
    head = Message(2, 0, 0, b"").pack()[:-4] + length.to_bytes(4, "little")
    with pytest.raises(BadClientError, match=str(length)):
        split(bytearray(head))


@given(st.binary(max_size=64))
def test_a_payload_is_one_string_if_its_only_nul_ends_it(payload: bytes) -> None:
    if payload.count(0) == 1 and payload[-1] == 0:
        assert one_string(payload) == payload[:-1].decode("latin-1")
        assert strings(payload) == [one_string(payload)]
    else:
        with pytest.raises(RequestError, match="EINVAL"):
            one_string(payload)

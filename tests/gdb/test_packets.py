"""The protocol's bytes: what was framed is found again, however it is cut, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pvops_core.gdb.packets import PACKET_SIZE, Framer, Sign, framed

PAYLOADS = st.binary(max_size=200) | st.text("#$}*+-\x03", max_size=40).map(str.encode)


@given(st.lists(PAYLOADS | st.sampled_from([Sign.ACK, Sign.NAK, Sign.INTERRUPT]), max_size=8), st.integers(1, 50))
def test_packets_and_signs_are_found_in_order_however_they_are_cut(said: list[bytes | Sign], size: int) -> None:
    data = b"".join(framed(each) if isinstance(each, bytes) else each.value.encode() for each in said)
    framer = Framer()
    found = [token for at in range(0, len(data), size) for token in framer.feed(data[at : at + size])]
    assert found == said


@given(st.binary(max_size=2000))
def test_any_bytes_end_in_payloads_and_signs_and_leave_it_sound(noise: bytes) -> None:
    framer = Framer()
    assert all(isinstance(token, bytes | Sign) for token in framer.feed(noise))
    *_, last = framer.feed(b"#00$#00" + framed(b"g"))
    assert last == b"g"


@given(st.binary(min_size=1, max_size=100), st.integers(1, 255), st.data())
def test_a_byte_that_was_changed_is_noticed(payload: bytes, change: int, data: st.DataObject) -> None:
    packet = bytearray(framed(payload))
    at = data.draw(st.integers(1, len(packet) - 4)) if len(packet) > 4 else 1
    packet[at] ^= change
    found = Framer().feed(bytes(packet))
    assert payload not in found


def test_a_packet_without_end_is_lost_and_costs_no_memory() -> None:
    framer = Framer()
    assert framer.feed(b"$m0,4" + framed(b"g")) == [Sign.BROKEN, b"g"]
    for _ in range(20):
        assert framer.feed(b"$" + b"x" * PACKET_SIZE) in ([], [Sign.BROKEN])
    assert framer.feed(b"y" * 3 * PACKET_SIZE) == []
    assert len(framer._body or b"") <= 2 * PACKET_SIZE + 1
    assert framer.feed(b"#00" + framed(b"?")) == [Sign.BROKEN, b"?"]


def test_checksums_are_two_hexadecimal_digits() -> None:
    for checksum in (b"+7", b"0x", b" 7", b"_7", b"\xff7"):
        assert Framer().feed(b"$g#" + checksum) == [Sign.BROKEN]
    assert Framer().feed(b"$j#6A$j#6a") == [b"j", b"j"]

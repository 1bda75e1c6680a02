"""Text as it is going to be, and the way back."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.livepatch.errors import PartialError
from pvops_core.livepatch.rendezvous.action import Journal, Overlay

if TYPE_CHECKING:
    from pvops_core.patching.poke import Poke

SIZE = 32


@attrs.define
class Text:
    """A quiet zone that is nothing but bytes; writing fails at the number given."""

    data: bytearray = attrs.field(factory=lambda: bytearray(range(SIZE)))
    fails_at: int = -1
    writes: int = 0

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.data[address : address + length])

    def write(self, pokes: list[Poke], by: str) -> None:
        assert by
        self.writes += 1
        if self.writes == self.fails_at:
            raise OSError("cannot")
        for poke in pokes:
            assert self.read(poke.address, len(poke.expected)) == poke.expected
            self.data[poke.address : poke.address + len(poke.new)] = poke.new


WRITES = st.lists(st.tuples(st.integers(0, SIZE - 8), st.binary(min_size=1, max_size=8)), max_size=8)


@given(writes=WRITES)
def test_an_overlay_reads_as_memory_will_and_touches_only_what_changes(writes: list[tuple[int, bytes]]) -> None:
    text = Text()
    overlay, model = Overlay(text.read), bytearray(text.data)
    for address, data in writes:
        overlay.write(address, data, overlay.read(address, len(data)))
        model[address : address + len(data)] = data
        assert overlay.read(0, SIZE) == bytes(model)
    pokes = overlay.pokes()
    assert text.data == bytearray(range(SIZE))
    text.write(pokes, "test")
    assert text.data == model
    ends = [(poke.address, poke.address + len(poke.new)) for poke in pokes]
    assert all(end < start for (_, end), (start, _) in pairwise(ends))


@given(rounds=st.lists(WRITES, max_size=4))
def test_what_was_flushed_is_undone_to_the_last_byte(rounds: list[list[tuple[int, bytes]]]) -> None:
    zone: Any = Text()
    journal = Journal(zone, "test")
    for writes in rounds:
        for address, data in writes:
            journal.text.write(address, data, journal.text.read(address, len(data)))
        journal.flush()
    journal.undo()
    assert zone.data == bytearray(range(SIZE))


def test_what_cannot_be_undone_ends_the_guest_and_what_was_committed_stays() -> None:
    zone: Any = Text(fails_at=2)
    journal = Journal(zone, "test")
    journal.text.write(0, b"\xff", b"\0")
    journal.flush()
    with pytest.raises(PartialError, match="partially applied"):
        journal.undo()
    zone = Text()
    journal = Journal(zone, "test")
    journal.text.write(0, b"\xff", b"\0")
    journal.commit()
    journal.undo()
    assert zone.data[0] == 0xFF

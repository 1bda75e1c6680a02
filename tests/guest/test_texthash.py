"""The hash of a guest's text is that of its bytes, piece by piece, hooks' bytes in place of what is there."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from pvops_core.guest import text

START, SIZE = 0x1000, 100


@given(
    piece=st.integers(1, 120),
    at=st.integers(START - 10, START + SIZE + 10),
    code=st.binary(min_size=1, max_size=40),
)
def test_it_is_that_of_all_bytes(piece: int, at: int, code: bytes) -> None:
    held = bytes(range(SIZE))
    guest: Any = SimpleNamespace(text_range=(START, START + SIZE))
    there = text.GuestText(SimpleNamespace(), guest, lambda pa: pa)  # type: ignore[arg-type]
    expected = bytearray(held)
    if at >= START and at + len(code) <= START + SIZE:
        expected[at - START : at - START + len(code)] = code
    with (
        patch.object(text, "_HASHED", piece),
        patch.object(there, "read", lambda va, length: held[va - START : va - START + length]),
    ):
        assert there.sha256({at: code}) == hashlib.sha256(expected).hexdigest()
        assert there.sha256() == hashlib.sha256(held).hexdigest()

"""What is closed at the end of a ``with`` statement."""

from __future__ import annotations

import pytest

from pvops_core.closing import Closing


class Counted(Closing):
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_it_is_closed_once_however_the_statement_ends() -> None:
    fine, broken = Counted(), Counted()
    with fine as same:
        assert same is fine
        assert fine.closed == 0
    with pytest.raises(KeyError), broken:
        raise KeyError
    assert (fine.closed, broken.closed) == (1, 1)

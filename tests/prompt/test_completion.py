"""Completion: Python's names outside of quotes, the guest's inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.prompt.completion import Completer, GuestNames, quoted

if TYPE_CHECKING:
    from pvops_core.session import Session


@pytest.mark.parametrize(
    ("line", "inside"),
    [
        ("", False),
        ('read("', True),
        ('read("a")', False),
        ('read("a", \'b', True),
        ("read('it\\'s", True),
        ('x = "it\'s"', False),
    ],
)
def test_quotes_are_seen(line: str, inside: object) -> None:
    assert quoted(line) is inside


@pytest.mark.parametrize(
    ("text", "found"),
    [("start_k", "start_kernel"), ("write_c", "write_cr3"), ("power", "power-off"), ("free_in", "free_initmem")],
)
def test_symbols_ops_and_points_are_found(session: Session, text: str, found: str) -> None:
    assert found in GuestNames(session).beginning(text)


def test_nothing_is_found_of_nothing(session: Session) -> None:
    assert GuestNames(session).beginning("zzz") == []


def test_the_line_decides_whose_names_are_offered(session: Session) -> None:
    completer = Completer(session, {"start_here": 1})
    assert completer.complete("start_", 0, "") == "start_here"
    assert completer.complete("start_k", 0, 'read("') == "start_kernel"
    assert completer.complete("start_k", 1, 'read("') is None

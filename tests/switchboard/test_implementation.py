"""A callable as an implementation: which of an op's arguments it takes is read off its signature."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from pvops_core.errors import SwitchError
from pvops_core.switchboard.implementation import Form, of_callable


class _Many:
    def method(self, cpu: object, cr3: int) -> None: ...

    def __call__(self, cpu: object) -> None: ...


def _all(cpu: object, cr3: int, /, more: int, *rest: int, named: int = 0, **others: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (lambda cpu: None, ()),  # noqa: ARG005
        (lambda cpu, b, a: None, ("b", "a")),  # noqa: ARG005
        (_Many().method, ("cr3",)),
        (_Many(), ()),
        (_all, ("cr3", "more")),
        (partial(_all, 1), ("more",)),
    ],
)
def test_it_is_given_what_it_names(function: Callable[..., object], arguments: tuple[str, ...]) -> None:
    found = of_callable("write_cr3", function)
    assert (found.op, found.form, found.function, found.arguments) == ("write_cr3", Form.FUNCTION, function, arguments)


def test_it_is_called_by_its_name_or_the_one_given() -> None:
    assert of_callable("write_cr3", _all).name == "_all"
    assert of_callable("write_cr3", _all, "mine.write_cr3").name == "mine.write_cr3"


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (3, "is not callable"),
        (lambda: None, "takes no argument; the first is the vCPU"),
        (lambda *_: None, "takes no argument; the first is the vCPU"),
        (min, "its signature cannot be read"),
    ],
)
def test_what_cannot_serve_is_refused(function: Callable[..., object], why: str) -> None:
    with pytest.raises(SwitchError, match=why) as refused:
        of_callable("write_cr3", function)
    assert refused.value.op == "write_cr3"

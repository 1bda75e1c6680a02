"""What a child is in the midst of is read when it is gone, and no later child is said to be at it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pvops_core.child.calls import call_apart
from pvops_core.child.limits import Limits
from pvops_core.child.marks import VARIABLE, Marks, marks
from pvops_core.child.supervised import Child, ChildLostError, finish, python
from tests.child.test_supervised import asked


def at_work(names: list[str], standing: list[int], status: int) -> None:
    numbers = [marks().number(name) for name in names]
    for number in numbers:
        marks().bytes[number] = 3
    for number in numbers:
        marks().bytes[number] = 0
    for at in standing:
        marks().bytes[numbers[at]] = at + 1
    os._exit(status)


def test_what_stood_when_it_ended_is_told() -> None:
    with pytest.raises(ChildLostError, match=r"^exit status 9, in second \(é\), vcpu 1$"):
        call_apart(at_work, ["first", "second (é)", "third"], [1], 9, limits=Limits())
    with pytest.raises(ChildLostError, match=r"^exit status 1$"):
        call_apart(at_work, ["first"], [], 1, limits=Limits())


def test_one_inside_the_other_is_told_of_both() -> None:
    with pytest.raises(ChildLostError, match=r"^exit status 9, in outer, vcpu 0, in inner, vcpu 1$"):
        call_apart(at_work, ["outer", "inner"], [0, 1], 9, limits=Limits())


def test_names_without_end_get_one_name() -> None:
    own = Marks()
    numbers = [own.number(f"{number:01024}") for number in range(6000)]
    assert len(set(numbers)) < 2000
    own.bytes[numbers[0]] = own.bytes[numbers[-1]] = 1
    assert [name[-4:] for name, _ in own.standing()] == ["name", "0000"]
    assert own.number(f"{1:01024}") == numbers[1]
    own.clear()
    assert own.standing() == []


def test_a_name_of_several_lines_is_one() -> None:
    own = Marks()
    own.number("one\ntwo")
    own.bytes[own.number("three")] = 1
    assert own.standing() == [("three", 1)]


def test_a_child_of_the_child_has_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is handed on, to a process that has another file under the number or none, means nothing."""
    for value in (f"{os.open(os.devnull, os.O_RDWR)}:1", "900:1", "x", "3"):
        monkeypatch.setenv(VARIABLE, value)
        code = "from pvops_core.child.marks import marks; m = marks(); m.bytes[m.number('a')] = 1; print(m.standing())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "[('a', 1)]\n"


def test_one_that_stays_begins_anew() -> None:
    child = Child(python(f"{__name__}:stay"))
    assert finish(twice(child)) == ["", b"next\n"]


def stay() -> None:
    marks().bytes[marks().number("something")] = 1
    for line in sys.stdin:
        print(line.strip(), flush=True)  # noqa: T201 - its answer


async def twice(child: Child) -> list[str | bytes]:
    await child.start()
    await child.say(b"first\n")
    await child.within(Limits(), child.answer())
    assert child.midst == ", in something, vcpu 0"
    await child.start()
    return [child.midst, await asked(child, Limits(), b"next\n")]

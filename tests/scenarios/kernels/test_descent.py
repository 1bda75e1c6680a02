"""A kernel that goes down its stack without end is stopped; what looks like it is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pvops_core.scenarios.kernels.descent import LONGEST_STACK, Descent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pvops_core.machine import Vcpu

HIGH = 0xFFFF880000100000


def stops(
    stack: Iterable[int], *, cpl: int = 0, index: int = 0, descent: Descent | None = None
) -> list[tuple[str, str]]:
    """What is said to the machine when exceptions come with these stack pointers."""
    said: list[tuple[str, str]] = []
    machine = SimpleNamespace(stop=lambda reason, detail: said.append((reason, detail)))
    noted = descent or Descent()
    for at in stack:
        vcpu = SimpleNamespace(rsp=at, rip=0x1000, cpl=cpl, index=index, machine=machine)
        noted.note(cast("Vcpu", vcpu), 6, None, None)
    return said


@pytest.mark.parametrize(("top", "cpl"), [(HIGH, 0), (HIGH, 3), (0xC1100000, 1), (0xC1100000, 0)])
def test_a_fault_in_the_handler_of_a_fault_and_so_on(top: int, cpl: int) -> None:
    step = 168
    down = range(top, top - LONGEST_STACK - step, -step)
    (told,) = stops(down, cpl=cpl)
    assert told[0] == "crash"
    assert told[1].startswith(f"the kernel runs off its stack at 0x1000: {LONGEST_STACK // step + 2} exceptions, each")
    assert not stops(down[:-1], cpl=cpl)


def test_a_program_whose_stack_grows() -> None:
    assert not stops(range(0xBFFF0000, 0xBFF00000, -4096), cpl=3)


def test_tasks_one_below_the_other() -> None:
    assert not stops(range(HIGH, HIGH - (1 << 20), -8192))


def test_handlers_that_come_back() -> None:
    assert not stops([HIGH - depth * 168 for _ in range(200) for depth in range(100)])
    assert not stops([HIGH - depth * 168 + up for depth in range(300) for up in (0, 50_000)])


def test_each_vcpu_has_its_own_stack() -> None:
    descent = Descent()
    for number in range(300):
        for index, top in enumerate((HIGH, HIGH + 1000)):
            assert not stops([top - number * 168], index=index, descent=descent)

"""Where an lguest guest may be stopped, and how its kernel is entered from outside."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pvops_lguest.host.segments import GUEST_PL, KERNEL_CS
from pvops_lguest.livepatching import LguestCallsIn


def calls(enabled: int, *, halted: bool = False, ss1: int = 0x69) -> LguestCallsIn:
    made = LguestCallsIn()
    state: Any = SimpleNamespace(
        interrupts=SimpleNamespace(halted=halted, noirq=(0x100, 0x110)),
        data=SimpleNamespace(irq_enabled=enabled),
        stack=SimpleNamespace(ss1=ss1, esp1=0x9000),
    )
    made.state = state
    return made


@pytest.mark.parametrize(
    ("enabled", "halted", "rip", "expected"),
    [(0x200, False, 0x50, True), (0, False, 0x50, False), (0x200, False, 0x108, False), (0, True, 0x108, True)],
)
def test_the_flag_counts_outside_of_the_way_back(enabled: int, halted: bool, rip: int, expected: bool) -> None:  # noqa: FBT001 - given
    vcpu: Any = SimpleNamespace(rip=rip)
    assert calls(enabled, halted=halted).interruptible(vcpu) is expected


def test_kernel_mode_is_ring_1_with_interrupts_off_until_it_ends() -> None:
    entered: list[tuple[int, ...]] = []
    user: Any = SimpleNamespace(cpl=3, rsp=0x1000, set_segments=lambda *values: entered.append(values))
    made = calls(0x200)
    with made.kernel_mode(user) as stack:
        assert (stack, made.state.data.irq_enabled) == (0x9000, 0)
    assert entered == [(GUEST_PL, KERNEL_CS, 0x69)]
    assert made.state.data.irq_enabled == 0x200
    kernel: Any = SimpleNamespace(cpl=1, rsp=0x1000, set_segments=entered.append)
    with made.kernel_mode(kernel) as stack:
        assert stack == 0x1000
    assert made.state.data.irq_enabled == 0x200
    assert len(entered) == 1

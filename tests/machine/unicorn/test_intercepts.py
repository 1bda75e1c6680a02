"""The engine hands over what is chosen, and is refused where it would not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from pvops_core.errors import MachineError
from pvops_core.machine import MachineKind
from pvops_core.machine.exits import instructions as exits
from pvops_core.machine.unicorn import controlarea, intercepts
from pvops_core.machine.unicorn.probe import context_layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine.conftest import Rig


def test_this_build_of_the_library_is_one_that_is_known() -> None:
    intercepts.check.__wrapped__()


def test_one_that_keeps_its_words_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = context_layout()
    monkeypatch.setattr(intercepts, "context_layout", lambda: attrs.evolve(layout, exception=layout.exception + 16))
    with pytest.raises(MachineError, match="is not one that pvops knows: its exits are"):
        intercepts.check.__wrapped__()


@pytest.mark.parametrize("number", [0x2000, 0x40000000, 0xBFFFFFFF, 0xC0002000, 0xFFFFFFFF])
def test_registers_that_are_always_left_at_are_not_asked_of_the_engine(rig: Rig, number: int) -> None:
    assert not controlarea.held(number)
    rig.cpu.set_msr(number, 5)
    assert rig.cpu.msr(number) == 0


def test_time_stamps_and_their_register_need_no_exit(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64)
    rig.cpu.insn.wrmsr(0xC0000103, 7)
    rig.code("b9030100c0 0f32 89c3 0f01f9 f4")
    assert rig.run() == "poweroff"
    assert (rig.cpu.get("rbx"), rig.cpu.get("rcx")) == (7, 7)
    assert rig.machine.counts["msr_reads"] == 0


def test_an_exit_that_nobody_chose_is_an_error(rig: Rig) -> None:
    with pytest.raises(AssertionError, match="nobody chose"):
        exits.answer(rig.cpu, intercepts.EXITS + 0x72, 0)


def test_software_interrupts_and_exits_follow_each_other(rig: Rig) -> None:
    """The engine would go to the return address of the interrupt."""
    rig.platform.software_interrupt = lambda _vcpu, _vector: None  # type: ignore[method-assign]
    rig.code("cd80 0f32 cd80 0f32 ffc3 f4")
    rig.cpu.set("ecx", 0x1B)
    rig.cpu.set("ebx", 0)
    assert rig.run() == "poweroff"
    assert rig.cpu.get("ebx") == 1
    assert rig.machine.counts["msr_reads"] == 2

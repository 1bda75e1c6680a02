"""Kinds of machines: widths, and which kernel runs on which."""

from __future__ import annotations

import pytest

from pvops_core.kinds import MachineKind, kind_of, will_do


@pytest.mark.parametrize("kind", list(MachineKind))
def test_widths_agree_with_each_other(kind: MachineKind) -> None:
    assert kind.pointer_size * 8 == kind.bits
    assert kind.mask.bit_count() == kind.bits
    assert 4096 % kind.entry_size == 0
    assert kind.entry_size >= kind.pointer_size


def test_a_kernel_s_best_machine_is_the_first_that_will_do() -> None:
    for machine in ("x86_64", "i386"):
        best = kind_of(machine)
        assert will_do(best)[0] is best
        assert {kind.bits for kind in will_do(best)} == {best.bits}
    assert MachineKind.I386 in will_do(MachineKind.PAE)
    assert MachineKind.PAE not in will_do(MachineKind.I386)

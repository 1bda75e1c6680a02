"""Whether a vCPU is quiescent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pvops_core.livepatch.rendezvous import quiescence


@pytest.mark.parametrize("halted", [True, False])
@pytest.mark.parametrize("interruptible", [True, False])
def test_who_takes_interrupts_is_quiescent_and_who_takes_none_and_halts_is_offline(
    *, halted: bool, interruptible: bool
) -> None:
    calls: Any = SimpleNamespace(interruptible=lambda _vcpu: interruptible)
    vcpu: Any = SimpleNamespace(halted=halted)
    assert (quiescence.objection(calls, vcpu) == "") is interruptible
    assert quiescence.offline(calls, vcpu) is (halted and not interruptible)

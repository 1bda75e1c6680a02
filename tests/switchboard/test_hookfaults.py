"""A fault that a hook ran into is told of while the guest is at it, and not when it has gone on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.hookspecs import hookimpl
from tests.switchboard.conftest import LAYOUTS, Make

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_core.machine import Vcpu

NOWHERE = 0x7777_1234


class Deadly:
    """The guest's guarded read_pmc gets a #GP; the page fault in flush_tlb_user has no handler."""

    deadly = True

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.faulted = False

    @hookimpl
    def read_pmc(self, cpu: Vcpu, counter: int) -> int:
        del counter
        self.faulted = True
        return cpu.insn.rdpmc(1 << 20)

    @hookimpl
    def flush_tlb_user(self, cpu: Vcpu) -> None:
        if self.faulted and self.deadly:
            cpu.u32(NOWHERE)
        elif self.faulted:
            self.env.machine.stop("crash", "for another reason")


class Harmless(Deadly):
    deadly = False


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_that_the_guest_has_gone_on_from_is_not_blamed(make: Make, layout: str) -> None:
    session = make(layout, Harmless)
    assert session.run().detail == "for another reason"
    assert session.last_hook_fault == ""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_that_it_died_of_is(make: Make, layout: str) -> None:
    session = make(layout, Deadly)
    assert session.run().reason == "crash"
    assert session.last_hook_fault.startswith("other.flush_tlb_user ran into this at ")

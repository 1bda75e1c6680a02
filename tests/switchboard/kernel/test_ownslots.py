"""A kernel that looks at its table sees its own functions there, and hooks before and after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pvops_core.guests import Kernel
from pvops_core.session import Session
from tests.session.selfpatching import SelfPatching

if TYPE_CHECKING:
    from pvops_core.backends import Backend

OP = "mmu.write_cr3"
PLACES = ("start_kernel", "alternative_instructions", "apply_paravirt", "machine_power_off")
RETURN = b"\xc3"


@contextmanager
def looking(native: Backend, function: str) -> Iterator[tuple[Session, list[str]]]:
    """A session of a kernel with a function of a name, and what its slot held where it came by the places."""
    image = SelfPatching.of(OP).build(functions={function: RETURN})
    seen: list[str] = []
    with Session(Kernel(image), (native,), memory=32 << 20) as session:
        hook = session.hooks.install(OP, lambda _cpu: None)
        table = session.table
        assert table is not None

        def look(_cpu: object) -> None:
            target = table.target(table.slot(OP))
            seen.append("hook" if target == hook.entry else table.name(target))

        for place in PLACES:
            session.machine.break_at(image.symbols[place], look, acts=False)
        yield session, seen


@pytest.mark.parametrize(
    ("function", "meanwhile"), [("paravirt_set_cap", "native_write_cr3"), ("paravirt_other", "hook")]
)
def test_slots_are_the_kernel_s_while_it_looks(native: Backend, function: str, meanwhile: str) -> None:
    with looking(native, function) as (session, seen):
        assert session.run().reason == "poweroff"
        assert seen == ["hook", "hook", meanwhile, "hook"]
        assert [(switch.old, switch.new) for switch in session.ops.history if switch.by == "kernel"] == []


def test_gone_back_to_its_start_the_kernel_is_lent_them_again(native: Backend) -> None:
    with looking(native, "paravirt_set_cap") as (session, seen):
        start = session.machine.snapshot()
        for _ in range(2):
            session.machine.restore(start)
            assert session.run().reason == "poweroff"
        assert seen[4:] == seen[:4]


def test_from_a_snapshot_in_between_the_hooks_come_back(native: Backend) -> None:
    with looking(native, "paravirt_set_cap") as (session, seen):
        session.run_to("apply_paravirt")
        between = session.machine.snapshot()
        for _ in range(2):
            session.machine.restore(between)
            assert session.run().reason == "poweroff"
            assert seen[-1] == "hook"


def test_a_hook_that_comes_meanwhile_stays(native: Backend) -> None:
    with looking(native, "paravirt_set_cap") as (session, _seen):
        session.run_to("apply_paravirt")
        session.hooks.remove(*session.hooks.standing)
        hook = session.hooks.install(OP, lambda _cpu: None)
        assert session.run().reason == "poweroff"
        table = session.table
        assert table is not None
        assert table.target(table.slot(OP)) == hook.entry

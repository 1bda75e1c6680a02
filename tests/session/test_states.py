"""What a session's snapshots are made of: plain data, whoever keeps it, which goes back in and comes out the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import load_backends
from pvops_core.guests import Kernel
from pvops_core.machine.run.stateful import where_not_plain
from pvops_core.session import Session
from tests.session.test_ophooks import patching

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.machine import Machine

CELLS = (
    *(("native", layout) for layout in ("2.6.24", "2.6.24-pae", "6.1-64")),
    *(("xen", layout) for layout in ("2.6.24-pae", "6.1-64")),
    ("lguest", "2.6.24"),
    ("kvm", "6.1-64"),
)


def odd_places(state: object, path: str) -> Iterator[str]:
    """Where a state is not plain: of a named tuple each field of its own."""
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        for name, each in zip(state._fields, state, strict=True):
            yield from odd_places(each, f"{path}.{name}")
    elif found := where_not_plain(state, path):
        yield found


def check(machine: Machine) -> None:
    """All states are plain, and what was loaded is saved again."""
    snapshot = machine.snapshot()
    for owner, state in (*((machine, part) for part in snapshot.parts), *snapshot.keepers):
        assert not list(odd_places(state, type(owner).__qualname__))
    machine.restore(snapshot)
    again = machine.snapshot()
    assert again.parts == snapshot.parts
    for (owner, before), (_owner, after) in zip(snapshot.keepers, again.keepers, strict=True):
        assert after == before, type(owner).__qualname__


@pytest.fixture(scope="module")
def backends() -> dict[str, Backend]:
    """Those installed, and the example of a hypervisor under a PC."""
    example = Path(__file__).parents[2] / "examples/pvops-kvm"
    return dict(load_backends([str(example)]).backends)


@pytest.mark.parametrize(("backend", "layout"), CELLS)
def test_the_built_in_guest_s_states_are_plain(backends: dict[str, Backend], backend: str, layout: str) -> None:
    vcpus = 1 if backend == "lguest" else 2
    ends = set()
    for looked_at in (True, False):
        with Session.of_builtin(layout, backend, backends=backends, vcpus=vcpus) as session:
            board = session.switchboard
            check(session.machine)
            for number in range(6):
                session.run(max_ns=session.machine.clock.ns + 40_000)
                if number % 2:
                    own = board.offered("save_fl", backend)
                    board.switch("save_fl", [own, own.function][number == 1], by="test")
                if looked_at:
                    check(session.machine)
            ends.add((session.run().reason, session.machine.log.sha256, session.machine.clock.ns))
    assert len(ends) == 1


def test_a_kernel_s_states_are_plain_with_hooks_in_it(backends: dict[str, Backend]) -> None:
    with Session(Kernel(patching()), (backends["native"],), memory=32 << 20) as session:
        for place in ("start_kernel", "patched"):
            session.run_to(place)
            check(session.machine)
        hooks = [session.hooks.install(op, lambda _cpu: None) for op in ("write_cr3", "read_cr3")]
        check(session.machine)
        session.run_to("machine_power_off")
        check(session.machine)
        session.hooks.remove(hooks[0])
        check(session.machine)

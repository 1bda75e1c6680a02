"""Every op is not only annotated at two sites but called from two."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import load_backends
from pvops_core.ops import Convention, Slot
from pvops_core.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Vcpu

BACKENDS = load_backends().backends
UNPATCHED = "noreplace-paravirt noreplace-alternatives"
POPS = {6: 0, 10: 2, 13: 3}
"""Bytes between the call and the end of a site of each length: a call returns that much before the end."""


def call_sites(layout: str, backend: str, cmdline: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """Sites that were called from, by op; ops that are nops or empty on the backend are left out."""
    seen: dict[str, set[int]] = defaultdict(set)
    with Session.of_builtin(layout, backend, backends=BACKENDS, cmdline=cmdline, vcpus=3) as session:
        gates = session.machine.gates
        returns = {site.address + site.length - POPS.get(site.length, 0): site for site in session.builtin.sites}

        def noticed(handler: Callable[[Vcpu], None]) -> Callable[[Vcpu], None]:
            def call(vcpu: Vcpu) -> None:
                site = returns.get(vcpu.word(vcpu.rsp))
                if site is not None:
                    seen[session.layout.by_type(site.type).op.name].add(site.address)
                handler(vcpu)

            return call

        bind = gates.bind
        monkeypatch.setattr(gates, "bind", lambda index, handler: bind(index, noticed(handler)))
        gates.bound.update((address, noticed(handler)) for address, handler in gates.bound.items())
        assert session.run(max_ns=10_000_000_000).reason == "poweroff"

        def served(slot: Slot) -> bool:
            where = session.layout.slot_address(session.guest.symbols, slot.type)
            target = int.from_bytes(session.read(where, session.layout.pointer_size), "little")
            return target not in {0, gates.return_address}

        for slot in session.layout.slots:
            if slot.op.convention not in {Convention.NONE, Convention.JUMP} and served(slot):
                seen.setdefault(slot.op.name, set())  # never called: there, with no site
    return seen


@pytest.mark.parametrize(
    ("layout", "backend"),
    [
        pytest.param(layout, backend, marks=pytest.mark.skipif(backend not in BACKENDS, reason=f"no {backend}"))
        for layout, backend in (("6.1-64", "xen"), ("6.1-64", "native"), ("2.6.23-lapic-pae", "native"))
    ],
)
def test_ops_are_called_from_two_sites(layout: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = call_sites(layout, backend, UNPATCHED, monkeypatch)
    second = call_sites(layout, backend, f"{UNPATCHED} sites=second", monkeypatch)
    assert len(first) > 30
    assert {op for op in first if len(first[op] | second[op]) < 2} == set()

"""The built-in guest on the hypervisor: whole boots, and the mistakes that history made."""

from __future__ import annotations

import pvops_native
import pvops_xen
import pytest

from pvops_core.guests import Status, builtin_guest
from pvops_core.session import Session

CHAIN = (pvops_xen.backend, pvops_native.backend)
LAYOUTS = ("2.6.23-lapic-pae", "2.6.24-pae", "6.1-64")
LIMIT = 20_000_000_000


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("vcpus", [1, 2])
def test_it_boots_to_power_off(layout: str, vcpus: int) -> None:
    with Session(builtin_guest(layout), CHAIN, vcpus=vcpus) as session:
        stop = session.run(max_ns=LIMIT)
        assert stop.reason == "poweroff", (stop, session.platform.console)
        assert session.report().status == Status.DONE
        assert not any(event.kind in {"xen_mc_flush", "bug"} for event in session.machine.log.events)


def test_two_runs_are_one() -> None:
    hashes = set()
    for _ in range(2):
        with Session(builtin_guest("2.6.24-pae"), CHAIN, seed=5) as session:
            session.run(max_ns=LIMIT)
            hashes.add(session.machine.log.sha256)
    assert len(hashes) == 1


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_spare_tables_stay_read_only_without_pagetable_reserve(layout: str) -> None:
    with Session(builtin_guest(layout, "pagetable_reserve=none"), CHAIN) as session:
        assert session.run(max_ns=LIMIT).reason == "crash"
        assert b"panic: trap 14 error" in session.platform.console


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_a_table_mapped_writable_too_early_is_refused(layout: str) -> None:
    with Session(builtin_guest(layout, "map=early-rw"), CHAIN) as session:
        assert session.run(max_ns=LIMIT).reason == "crash"
        messages = [dict(event.fields).get("message") for event in session.machine.log.events]
        assert any("PIN_L1_TABLE" in str(message) for message in messages)


def test_write_cr3_switches_itself_to_the_late_version() -> None:
    with Session(builtin_guest("6.1-64"), CHAIN) as session:
        session.run(max_ns=LIMIT)
        switches = [(switch.op, switch.by) for switch in session.switchboard.history]
        assert ("write_cr3", "xen_write_cr3_init") in switches


def test_the_late_write_cr3_fails_at_early_boot() -> None:
    with Session(builtin_guest("6.1-64"), CHAIN) as session:
        ops = next(bound.ops for bound in session.switchboard._chain if bound.backend.name == "xen")
        assert isinstance(ops, pvops_xen.XenOps)
        session.switchboard.switch("write_cr3", ops.xen_write_cr3, by="test")
        assert session.run(max_ns=LIMIT).reason == "crash"
        assert any(event.kind == "xen_get_user_pgd" for event in session.machine.log.events)

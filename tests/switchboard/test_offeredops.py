"""Which backend of a chain an op is of, on which machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import load_backends
from pvops_core.hookspecs import hookimpl
from pvops_core.session import Session

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_core.images import ParavirtSite
    from pvops_core.machine import Vcpu

    from .conftest import Make

MOVB = b"\xc6\x07\x00"
"""``movb $0, (%rdi)``: what the kernel puts in the place of the call where the lock is bare metal's."""


class Several:
    """Ops of which one is there with several vCPUs only."""

    def __init__(self, env: Environment) -> None:
        self.absent = {"io_delay"} if len(env.machine.vcpus) == 1 else set()

    @hookimpl
    def io_delay(self, cpu: Vcpu) -> None: ...

    @hookimpl
    def wbinvd(self, cpu: Vcpu) -> None: ...


@pytest.mark.parametrize(("vcpus", "owner"), [(1, "native"), (2, "other")])
def test_an_op_that_is_absent_on_this_machine_is_the_bases(make: Make, vcpus: int, owner: str) -> None:
    session = make("6.1-64", Several, vcpus=vcpus)
    board = session.switchboard
    assert board.implementation("io_delay").name == f"{owner}.io_delay"
    assert board.implementation("wbinvd").name == "other.wbinvd"
    board.switch_backend("native", by="test")
    board.switch_backend("other", by="test")
    assert board.implementation("io_delay").name == f"{owner}.io_delay"


@pytest.mark.parametrize(("vcpus", "owner"), [(1, "native"), (2, "xen")])
def test_xen_leaves_spinlocks_alone_where_nobody_could_wait(vcpus: int, owner: str) -> None:
    with Session.of_builtin("6.1-64", "xen", backends=load_backends().backends, vcpus=vcpus) as session:
        for op in ("queued_spin_lock_slowpath", "queued_spin_unlock", "lock_wait", "lock_kick", "vcpu_is_preempted"):
            assert session.switchboard.implementation(op).backend == owner
        assert session.run().reason == "poweroff"
        unlocks = [session.read(site.address, 3) for site in _sites(session, "queued_spin_unlock")]
        assert unlocks
        assert (unlocks == [MOVB] * len(unlocks)) == (vcpus == 1)


def _sites(session: Session, op: str) -> list[ParavirtSite]:
    slot = session.layout.by_op(op)
    return [site for site in session.builtin.sites if site.type == slot.type]

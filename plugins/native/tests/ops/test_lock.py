"""Queued spinlocks."""

from __future__ import annotations

import pytest
from rig import GATES, SCRATCH, Rig

from pvops_core.machine import Reschedule


def test_lock_is_taken_in_the_order_of_asking(rig: Rig) -> None:
    lock, ops, cpus = rig.at(SCRATCH), rig.ops, rig.machine.vcpus
    rig.cpu.set_u32(lock, 1)
    for cpu in (cpus[2], cpus[1], cpus[2]):
        with pytest.raises(Reschedule):
            ops.queued_spin_lock_slowpath(cpu, lock)
    assert rig.cpu.u32(lock) == (2 << 18 | 0x101)
    ops.queued_spin_unlock(cpus[0], lock)
    with pytest.raises(Reschedule):
        ops.queued_spin_lock_slowpath(cpus[1], lock)
    ops.queued_spin_lock_slowpath(cpus[2], lock)
    assert rig.cpu.u32(lock) == 0x101
    ops.queued_spin_unlock(cpus[2], lock)
    ops.queued_spin_lock_slowpath(cpus[1], lock)
    assert rig.cpu.u32(lock) == 1
    assert not ops.waiting
    assert ops.vcpu_is_preempted(rig.cpu) == 0


def test_waiting_for_a_lock_that_is_never_given_back_ends_with_the_time(wide: Rig) -> None:
    wide.machine.gates.map(wide.at(GATES), 1)
    wide.machine.memory.write(GATES, wide.machine.gates.text)
    wide.machine.gates.bind(0, lambda cpu: wide.ops.queued_spin_lock_slowpath(cpu, wide.at(SCRATCH)))
    wide.machine.memory.set_u32(SCRATCH, 1)
    wide.machine.vcpus[1].halt()
    wide.cpu.set("rdi", wide.at(GATES))
    assert wide.run(bytes.fromhex("ff d7 f4")) == "timeout"

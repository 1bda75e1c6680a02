"""What KVM writes into a guest's memory about time: the guest's clock, and what was stolen of each vCPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine.run.eventkinds import event_kind
from pvops_kvm.abi import (
    ENABLED,
    PREEMPTED,
    STEAL,
    TIME,
    TSC_STABLE,
    VCPU_FLUSH_TLB,
    VCPU_PREEMPTED,
    WALL,
    scale,
)

if TYPE_CHECKING:
    from pvops_core.machine import Machine, Vcpu

_STEAL: Final = event_kind(
    "steal",
    "The host took time from a vCPU.",
    ns="int: how much",
)

TSC_HZ: Final = 10**9
"""The machine's time-stamp counter counts virtual nanoseconds."""


@attrs.define
class VcpuTimes:
    """One vCPU's areas and account.

    Attributes:
        system_time: what it last wrote to MSR_KVM_SYSTEM_TIME(_NEW).
        steal_time: what it last wrote to MSR_KVM_STEAL_TIME.
        off_since: the nanosecond at which it lost its processor though it could run; None while it runs or sleeps.
    """

    system_time: int = 0
    steal_time: int = 0
    off_since: int | None = None


def write_system_time(machine: Machine, vcpu: Vcpu, msr: int) -> None:
    """Fill struct pvclock_vcpu_time_info: the clock at this moment, and how the counter goes on from here."""
    if not msr & ENABLED:
        return
    address, now = msr & ~ENABLED, machine.clock.ns
    version = machine.memory.u32(address) & ~1
    mul, shift = scale(TSC_HZ)
    machine.memory.set_u32(address, version + 1 & 0xFFFF_FFFF)
    counter = now + vcpu.tsc_offset & (1 << 64) - 1
    data = TIME.pack(version + 2 & 0xFFFF_FFFF, 0, counter, now, mul, shift, TSC_STABLE)
    machine.memory.write(address, data)


def write_wall_clock(machine: Machine, address: int, seconds: int) -> None:
    """Fill struct pvclock_wall_clock: when the machine was started, in seconds since 1970."""
    version = machine.memory.u32(address) & ~1
    machine.memory.write(address, WALL.pack(version + 2 & 0xFFFF_FFFF, seconds, 0))


def vcpu_leaves(machine: Machine, vcpu: Vcpu, times: VcpuTimes) -> None:
    """Another vCPU takes the processor: this one is marked; what it waits from now on is stolen unless it sleeps."""
    times.off_since = None if vcpu.halted else machine.clock.ns
    if times.steal_time & ENABLED:
        place = (times.steal_time & ~ENABLED) + PREEMPTED
        machine.memory.set_u8(place, machine.memory.u8(place) | VCPU_PREEMPTED)


def vcpu_comes(machine: Machine, vcpu: Vcpu, times: VcpuTimes) -> bool:
    """It has the processor: account for the wait, take the mark off; whether the guest asked for a flush meanwhile."""
    stolen = 0 if times.off_since is None else machine.clock.ns - times.off_since
    times.off_since = None
    if not times.steal_time & ENABLED:
        return False
    address = times.steal_time & ~ENABLED
    steal, version, flags, preempted = STEAL.unpack(machine.memory.read(address, STEAL.size))
    if not stolen and not preempted:
        return False
    version &= ~1
    machine.memory.write(address, STEAL.pack(steal + stolen, version + 2 & 0xFFFF_FFFF, flags, 0))
    if stolen:
        machine.log.record(_STEAL, vcpu=vcpu.index, ns=stolen)
    return bool(preempted & VCPU_FLUSH_TLB)

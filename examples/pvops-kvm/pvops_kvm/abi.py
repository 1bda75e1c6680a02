"""Numbers that a Linux guest and KVM share.

Source: Documentation/virt/kvm/x86/cpuid.rst, msr.rst and hypercalls.rst; arch/x86/include/uapi/asm/kvm_para.h;
arch/x86/include/asm/pvclock-abi.h (6.1).
"""

from __future__ import annotations

import enum
import struct
from typing import Final

SIGNATURE_LEAF: Final = 0x4000_0000
FEATURES_LEAF: Final = 0x4000_0001
SIGNATURE: Final = b"KVMKVMKVM\0\0\0"
"""In EBX, ECX and EDX of the first leaf."""


class Feature(enum.IntFlag):
    """What a host offers: EAX of the features leaf; from bit 32 on its EDX, the hints, and then the processor's own."""

    NONE = 0
    CLOCKSOURCE = 1 << 0
    """The clock's MSRs of the first kind, 0x11 and 0x12."""
    NOP_IO_DELAY = 1 << 1
    CLOCKSOURCE2 = 1 << 3
    STEAL_TIME = 1 << 5
    PV_UNHALT = 1 << 7
    PV_TLB_FLUSH = 1 << 9
    POLL_CONTROL = 1 << 12
    PV_SCHED_YIELD = 1 << 13
    CLOCKSOURCE_STABLE = 1 << 24
    """The clock does not go back from one vCPU to another."""
    REALTIME = 1 << 32
    """A hint: every vCPU has a processor of its own."""
    MWAIT = 1 << 33
    """No bit of KVM's but the processor's: a vCPU that waits by mwait does not leave the guest."""


USUAL: Final = (
    Feature.CLOCKSOURCE
    | Feature.NOP_IO_DELAY
    | Feature.CLOCKSOURCE2
    | Feature.STEAL_TIME
    | Feature.PV_UNHALT
    | Feature.PV_TLB_FLUSH
    | Feature.POLL_CONTROL
    | Feature.PV_SCHED_YIELD
    | Feature.CLOCKSOURCE_STABLE
)
"""What this host can do. KVM itself has more: asynchronous page faults, EOIs without an exit, IPIs by hypercall."""


class Msr(enum.IntEnum):
    """Registers that a guest tells the host addresses in: physical ones, with bit 0 for "use it"."""

    WALL_CLOCK = 0x11
    SYSTEM_TIME = 0x12
    WALL_CLOCK_NEW = 0x4B56_4D00
    SYSTEM_TIME_NEW = 0x4B56_4D01
    STEAL_TIME = 0x4B56_4D03
    POLL_CONTROL = 0x4B56_4D05


NEEDS: Final = {
    Msr.WALL_CLOCK: Feature.CLOCKSOURCE,
    Msr.SYSTEM_TIME: Feature.CLOCKSOURCE,
    Msr.WALL_CLOCK_NEW: Feature.CLOCKSOURCE2,
    Msr.SYSTEM_TIME_NEW: Feature.CLOCKSOURCE2,
    Msr.STEAL_TIME: Feature.STEAL_TIME,
    Msr.POLL_CONTROL: Feature.POLL_CONTROL,
}
"""A register is there where its feature is offered; #GP(0) without."""
ENABLED: Final = 1
"""Bit 0 of SYSTEM_TIME and STEAL_TIME: the host is to write there."""


class Call(enum.IntEnum):
    """Hypercalls, by number in RAX."""

    VAPIC_POLL_IRQ = 1
    KICK_CPU = 5
    SCHED_YIELD = 11


ENOSYS: Final = 1000
"""KVM_ENOSYS: no such hypercall."""
EPERM: Final = 1
"""KVM_EPERM: not from this ring."""

STEAL: Final = struct.Struct("<QIIB47x")
"""struct kvm_steal_time, 64 bytes: u64 steal in ns, u32 version (odd while it changes), u32 flags, u8 preempted."""
STEAL_ALIGN: Final = 64
PREEMPTED: Final = 16
"""Where ``preempted`` is."""
VCPU_PREEMPTED: Final = 1 << 0
"""Bit of ``preempted``, set by the host: the vCPU is off its processor."""
VCPU_FLUSH_TLB: Final = 1 << 1
"""Bit of ``preempted``, set by the guest: flush its TLB before it runs again."""

TIME: Final = struct.Struct("<IIQQIbB2x")
"""struct pvclock_vcpu_time_info, 32 bytes: u32 version, u32 pad, u64 tsc_timestamp, u64 system_time in nanoseconds,
u32 tsc_to_system_mul, s8 tsc_shift, u8 flags."""
TSC_STABLE: Final = 1 << 0
"""PVCLOCK_TSC_STABLE_BIT."""
WALL: Final = struct.Struct("<III")
"""struct pvclock_wall_clock: u32 version, u32 sec, u32 nsec, of the moment at which the system time was 0."""


def scale(hertz: int) -> tuple[int, int]:
    """tsc_to_system_mul (u32) and tsc_shift for a time-stamp counter of this frequency.

    Nanoseconds are ``((ticks << shift) * mul) >> 32``, with a right shift where ``shift`` is negative.
    """
    shift, rate = 0, hertz
    while rate > 2 * 10**9:
        rate, shift = rate >> 1, shift - 1
    while rate <= 10**9:
        rate, shift = rate << 1, shift + 1
    return (10**9 << 32) // rate, shift

"""Linux as a KVM guest: bare metal's ops but for delays, remote TLB flushes and spinlocks."""

from __future__ import annotations

from pvops_core.backends import Backend
from pvops_core.kinds import MachineKind
from pvops_kvm.kernel import KvmKernel
from pvops_kvm.ops import KvmOps
from pvops_kvm.platform import KvmPlatform

backend = Backend(
    name="kvm",
    api=2,
    description="a fully virtualised guest that lets KVM help with delays, TLB flushes and spinlocks",
    base="native",
    ops=KvmOps,
    platform=KvmPlatform,
    kernel=KvmKernel(),
    kinds=frozenset({MachineKind.X86_64}),
    capabilities=frozenset({"lock.paravirt", "mmu.remote_flush"}),
)

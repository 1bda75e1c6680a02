"""The native backend of pvops: bare metal's ops and a small PC for them to run on."""

from __future__ import annotations

from pvops_core.backends import Backend
from pvops_core.kinds import MachineKind
from pvops_native.kernel import NativeKernel
from pvops_native.ops import EMPTY, NOPS, NativeOps
from pvops_native.patchlets import NATIVE_PATCHLETS
from pvops_native.pc import PcSettings
from pvops_native.platform import NativePlatform

__all__ = ["NATIVE_PATCHLETS", "NativeOps", "NativePlatform", "PcSettings", "backend"]

backend = Backend(
    name="native",
    api=2,
    description="bare metal: the kernel's own native_* functions on a small PC",
    ops=NativeOps,
    platform=NativePlatform,
    kernel=NativeKernel(),
    patchlets=NATIVE_PATCHLETS,
    nops=NOPS,
    empty=EMPTY,
    kinds=frozenset(MachineKind),
)

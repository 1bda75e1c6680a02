"""lguest's side of the guest: the ops that arch/x86/lguest/boot.c replaces, put together from their groups."""

from __future__ import annotations

from pvops_lguest.ops.cpu import CpuOps
from pvops_lguest.ops.descriptors import DescriptorOps
from pvops_lguest.ops.init import InitOps
from pvops_lguest.ops.irq import IrqOps
from pvops_lguest.ops.lazy import LazyOps
from pvops_lguest.ops.mmu import MmuOps
from pvops_lguest.ops.time import ApicOps, TimeOps


class LguestOps(InitOps, IrqOps, CpuOps, DescriptorOps, MmuOps, LazyOps, TimeOps, ApicOps):
    """Every op of an lguest guest; all others stay as on bare hardware."""


__all__ = ["LguestOps"]

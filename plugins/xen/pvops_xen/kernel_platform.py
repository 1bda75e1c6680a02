"""Xen as the platform of real kernels: the domain builder's work, then the kernel is on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pvops_core.hookspecs import KernelPlatform
from pvops_xen.domain.build import build_domain
from pvops_xen.host import XenHost
from pvops_xen.livepatching import XenCallsIn

if TYPE_CHECKING:
    from pvops_core.boot import Kernel
    from pvops_core.machine import Machine


class XenKernelPlatform(XenCallsIn, XenHost, KernelPlatform):
    """A Xen host whose domain runs a kernel image with Xen notes. Options: those of the host."""

    console_name = "hvc0"

    def __init__(self, machine: Machine, kernel: Kernel, options: Mapping[str, str]) -> None:
        KernelPlatform.__init__(self, machine, kernel, options)
        self.start_hypervisor(self.emit)

    def build(self) -> None:
        """Build the domain.

        Raises:
            ImageError: a note or segment of the image says that it cannot be.
            MachineError: it does not fit.
        """
        build_domain(self.hv, self.kernel)

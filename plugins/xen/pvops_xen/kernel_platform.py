"""Xen as the platform of real kernels: the domain builder's work, then the kernel is on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pvops_core.errors import UsageError
from pvops_core.hookspecs import KernelPlatform
from pvops_xen.domain.build import build_domain
from pvops_xen.host import XenHost
from pvops_xen.hypervisor.events.channels import serve
from pvops_xen.livepatching import XenCallsIn
from pvops_xen.xenstore.toolstack import SHUTDOWN_WORDS, request_shutdown

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

    def symbol_at(self, address: int) -> tuple[str, int] | None:
        """The function of the kernel that an address lies in, and how far."""
        image = self.kernel.image
        is_text = image.symbols.get("_text", 0) <= address < image.symbols.get("_etext", 0)
        return image.symbol_at(address) if is_text else None

    def typed(self, data: bytes) -> None:
        """To the console's ring, as room comes."""
        self.hv.console.typed += data
        serve(self.hv, self.hv.console.port)

    def request_shutdown(self, word: str) -> None:
        """Ask the guest to end, as ``xl shutdown`` does: not from inside a handler.

        Args:
            word: "poweroff", "reboot", "halt", "suspend" or "crash".

        Raises:
            UsageError: it is none of these.
        """
        if word not in SHUTDOWN_WORDS:
            raise UsageError(f"a guest can be asked to {', '.join(sorted(SHUTDOWN_WORDS))}, not to {word!r}")
        request_shutdown(self.hv.store.daemon, self.hv.domain.domid, word)
        serve(self.hv, self.hv.store.port)

    def idle(self) -> bool:
        """Without a timer, somebody who types may still wake the guest."""
        return super().idle() or self.wait_for_typing()

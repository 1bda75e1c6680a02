"""Xen as a platform: a host, and what builds a domain of its guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.errors import UsageError
from pvops_xen.domain.build import load_kernel
from pvops_xen.host import XenHost, XenSettings
from pvops_xen.hypervisor.events.channels import serve
from pvops_xen.livepatching import XenCallsIn
from pvops_xen.loader import load_builtin
from pvops_xen.xenstore.toolstack import SHUTDOWN_WORDS, request_shutdown

if TYPE_CHECKING:
    from pvops_core.guest import Guest
    from pvops_core.machine import Machine
    from pvops_xen.hypervisor.builder import InitialTables


class XenPlatform(XenCallsIn, XenHost):
    """A Xen host whose domain runs the built-in guest, or a kernel image with Xen notes.

    Attributes:
        initial_tables: the page tables that the built-in guest begins with.
    """

    console_name = "hvc0"
    loaders = {"builtin": load_builtin, "kernel": load_kernel}  # noqa: RUF012 - as ClassVar in the base

    def __init__(self, machine: Machine, guest: Guest, settings: XenSettings | None = None) -> None:
        super().__init__(machine, guest, settings)
        self.initial_tables: InitialTables | None = None
        machine.attach(self)

    def symbol_at(self, address: int) -> tuple[str, int] | None:
        """The function of the guest that an address lies in, and how far."""
        symbols = self.guest.symbols
        # Text alone: an address elsewhere names no function.
        is_text = symbols.get("_text", 0) <= address < symbols.get("_etext", 0)
        return self.guest.image.symbol_at(address) if is_text else None

    def typed(self, data: bytes) -> None:
        """To the console's ring, as room comes."""
        self.hv.console.typed += data
        # Told at once: the guest may be waiting for the very bytes.
        serve(self.hv, self.hv.console.port)

    def request_shutdown(self, word: str) -> None:
        """Ask the guest to end, as ``xl shutdown`` does: not from inside a handler.

        Args:
            word: "poweroff", "reboot", "halt", "suspend" or "crash".

        Raises:
            UsageError: it is none of these.
        """
        # The words that Linux knows (drivers/xen/manage.c); another would be ignored.
        if word not in SHUTDOWN_WORDS:
            raise UsageError(f"a guest can be asked to {', '.join(sorted(SHUTDOWN_WORDS))}, not to {word!r}")
        request_shutdown(self.hv.store.daemon, self.hv.domain.domid, word)
        serve(self.hv, self.hv.store.port)

    def idle(self) -> bool:
        """Without a timer, somebody who types may still wake the guest."""
        # Somebody may still type, so a guest that sleeps on input is not dead.
        return super().idle() or self.wait_for_typing()

"""The data slots of the 2.6 tables, as bare hardware fills them (arch/i386/kernel/paravirt.c, 2.6.23)."""

from __future__ import annotations

from pvops_core.hookspecs import hookimpl
from pvops_native.ops.base import NativeGroup


class InfoOps(NativeGroup):
    """Values, not functions."""

    @hookimpl
    def kernel_rpl(self) -> int:
        """Unsigned int: the kernel runs in ring 0."""
        return 0

    @hookimpl
    def shared_kernel_pmd(self) -> int:
        """Int: under PAE all address spaces share the kernel's page directory."""
        return 1

    @hookimpl
    def paravirt_enabled(self) -> int:
        """Int: nothing is paravirtual here."""
        return 0

    @hookimpl
    def name(self) -> str:
        """Const char *: what the banner calls the machine."""
        return "bare hardware"

"""Boot: what the backend is called, the memory map, and the patcher.

Source: lguest_init, lguest_memory_setup and lguest_patch of drivers/lguest/lguest.c (2.6.23) and
arch/x86/lguest/boot.c (2.6.24).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs import hookimpl
from pvops_core.images.bootparams import one_region
from pvops_core.patching.patchdefault import patch_inline
from pvops_lguest.host.segments import GUEST_PL
from pvops_lguest.ops.guest import GuestSide
from pvops_lguest.patchlets import LGUEST_PATCHLETS

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.patching.context import PatchContext


class InitOps(GuestSide):
    """Values of the table and ops of early boot."""

    @hookimpl
    def kernel_rpl(self) -> int:
        """The kernel runs in ring 1."""
        return GUEST_PL

    @hookimpl
    def paravirt_enabled(self) -> int:
        """This is not bare hardware."""
        return 1

    @hookimpl
    def name(self) -> str:
        """As the boot banner has it."""
        return "lguest"

    @hookimpl
    def banner(self, cpu: Vcpu) -> None:
        """default_banner, which prints what the table says the kernel runs on."""
        del cpu
        self._host.console += f"Booting paravirtualized kernel on {self.name()}\n".encode()

    @hookimpl
    def memory_setup(self, cpu: Vcpu) -> int:
        """One region of RAM into the kernel's e820 map, where the guest has one: int nr_map, {u64, u64, u32}.

        Returns:
            char *, 0: the map's name would have to lie in guest memory.
        """
        e820 = self._env.symbols.get("e820")
        if e820 is not None:
            region = one_region(self._host.state.memory.limit)
            self.touching(lambda: cpu.write_virtual(e820, region))
        return 0

    @hookimpl
    def patch(self, ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
        """One of the four templates where it fits; otherwise what any kernel does by default."""
        return patch_inline(ctx, LGUEST_PATCHLETS, type, clobbers, insnbuf, addr, len)

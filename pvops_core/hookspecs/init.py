"""Hooks of struct pv_init_ops and of the data that stands before them (2.6.23: in paravirt_ops; 2.6.24: pv_info)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs.markers import hookspec

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.patching.context import PatchContext


@hookspec(firstresult=True)
def kernel_rpl() -> int | None:
    """Privilege level that the guest kernel runs at; read once, when the table is filled.

    Returns:
        unsigned int: 0 on bare hardware, 1 under Xen and lguest on i386. Segment selectors of the kernel
        carry it.
    """


@hookspec(firstresult=True)
def shared_kernel_pmd() -> int | None:
    """Whether all PAE address spaces share the page directory of kernel space; read once, when the table is filled.

    Returns:
        int: 1 to share (bare hardware), 0 where each top-level table needs a copy of its own (Xen).
    """


@hookspec(firstresult=True)
def paravirt_enabled() -> int | None:
    """Whether the kernel runs on anything but bare hardware; read once, when the table is filled.

    Returns:
        int: 0 on bare hardware, else 1. The kernel then leaves out probes of a PC's legacy devices.
    """


@hookspec(firstresult=True)
def name() -> str | None:
    """Name of the backend as the boot banner prints it; read once, when the table is filled.

    Returns:
        ASCII text; the guest gets a const char * to a copy.
    """


@hookspec(firstresult=True)
def patch(ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int | None:
    """Write the code that replaces one call site; called for every site at boot, and again at a switch.

    Nothing may be written but the buffer: the core pads what is left with nops and pokes the whole. The
    buffer begins as a copy of the site's bytes, so an implementation that returns ``len`` without writing
    leaves the site as it was.

    Args:
        ctx: layout, symbols, targets and patchlets of this backend; the default patcher is
            ``pvops_core.patching.patchdefault.patch_default``.
        type: u8; type number of the op in ``ctx.layout``.
        clobbers: u16; ``Clobber`` bits, the registers that the new code may destroy.
        insnbuf: void *; writable buffer of exactly ``len`` bytes, not the place where the code will run.
        addr: unsigned long; guest-virtual address where the code will run: relative targets count from here.
        len: unsigned int; bytes of the site.

    Returns:
        unsigned int: bytes used, 0 to ``len``. 0 makes the whole site nops.

    Raises:
        PatchError: the code for this site cannot be made.

    The address argument came with ab144f5ec64c (2.6.23).
    """


@hookspec(firstresult=True)
def memory_setup(cpu: Vcpu) -> int | None:
    """Fill the kernel's e820 map, early in setup_arch.

    Returns:
        char *: guest-virtual address of the name of the map's source, printed by the kernel; 0 for none.

    Native: machine_specific_memory_setup.
    """


@hookspec(firstresult=True)
def post_allocator_init(cpu: Vcpu) -> None:
    """Do what had to wait until pages can be allocated; called once at the end of mem_init. An empty slot is allowed.

    Xen pins init_mm here.
    """


@hookspec(firstresult=True)
def banner(cpu: Vcpu) -> None:
    """Print a line that says what the kernel runs on; called once at boot.

    Native: default_banner.
    """

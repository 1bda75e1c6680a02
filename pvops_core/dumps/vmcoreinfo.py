"""VMCOREINFO: what a kernel tells debuggers of itself (Documentation/admin-guide/kdump/vmcoreinfo.rst).

A kernel built with CONFIG_VMCORE_INFO (before 6.9 CONFIG_CRASH_CORE) keeps it in its memory as a note that is finished
late in its boot (``crash_save_vmcoreinfo_init``). Of one that has none yet what translates addresses is said in its
place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.dumps.notes import VMCOREINFO, described
from pvops_core.errors import UsageError
from pvops_core.guest.space import ROOTS
from pvops_core.machine import GuestFault
from pvops_core.x86 import CR4_LA57, PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.guest.space import KernelSpace
    from pvops_core.images import KernelImage
    from pvops_core.machine import Vcpu

_SYMBOL: Final = "vmcoreinfo_note"
_MOST: Final = 24 + PAGE  # VMCOREINFO_BYTES, and what a note has in front
_TOLD: Final = ("init_uts_ns", "_stext", "vmap_area_list", "node_online_map", "mem_section")


def kernels_own(space: KernelSpace, symbols: Mapping[str, int]) -> bytes | None:
    """The kernel's, from its memory; None if it keeps none, or has not finished it yet."""
    at = symbols.get(_SYMBOL)
    if at is None:
        return None
    found = _read(space, at)  # until 4.12 it is an array
    if found is not None:
        return found
    try:
        return _read(space, space.word(at))  # since 203e9e41219b a pointer to pages of its own
    except GuestFault:
        return None


def _read(space: KernelSpace, address: int) -> bytes | None:
    try:
        return described(space.read(address, _MOST), VMCOREINFO)
    except GuestFault:
        return None


def from_symbols(image: KernelImage, vcpu: Vcpu, phys_base: int) -> bytes:
    """What can be said of a kernel from outside: enough to read its memory by its own addresses.

    Args:
        image: the kernel.
        vcpu: one of its processors, for how many levels its page tables have.
        phys_base: what is added to where the image is linked to lie in physical memory.

    Raises:
        UsageError: the image does not say where its page tables are.
    """
    symbols = image.symbols
    root = next((symbols[name] for name in ROOTS if name in symbols), None)
    if root is None:
        names = " nor ".join(ROOTS)
        raise UsageError(f"{image.path}: no dump without page tables: it has no symbol {names}, and no VMCOREINFO")
    lines = [
        f"OSRELEASE={image.release or 'unknown'}",
        f"PAGESIZE={PAGE}",
        f"SYMBOL(swapper_pg_dir)={root:x}",
        *(f"SYMBOL({name})={symbols[name]:x}" for name in _TOLD if name in symbols),
        f"NUMBER(phys_base)={phys_base}",
        f"NUMBER(pgtable_l5_enabled)={int(bool(vcpu.cr4 & CR4_LA57))}",
        "KERNELOFFSET=0",
    ]
    return "".join(f"{line}\n" for line in lines).encode()

"""How a real kernel fills pv_ops as a Xen PV domain, up to the moment when it patches itself.

``xen_start_kernel`` (arch/x86/xen/enlighten_pv.c) copies three groups from tables that are compiled in, or, in kernels
of today (7.2), it and two functions that it calls set slot by slot, and leave the others as on bare metal; later steps
of the boot then put better functions in some slots. A kernel without one of these symbols has not got that step either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pvops_core.errors import ImageError
from pvops_core.patching.fills import (
    Target,
    assigned,
    callee_save,
    compiled_table,
    in_layout,
    mentions,
    present,
    queued_spinlocks,
    switched_on,
)

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout

TABLES: Final = {"cpu": "xen_cpu_ops", "irq": "xen_irq_ops", "mmu": "xen_mmu_ops"}
"""Groups of pv_ops that ``xen_start_kernel`` overwrites, and from where."""

START: Final = ("xen_start_kernel", "xen_init_irq_ops", "xen_init_mmu_ops")
"""Functions that set slots themselves in a kernel without these tables, as they are called."""

ENTRY_NOTE: Final = 1
"""XEN_ELFNOTE_ENTRY (xen/include/public/elfnote.h): the PV entry point; without it no toolstack starts the domain."""

VCPU_INFO_PLACED: Final = {
    "irq.save_fl": "xen_save_fl_direct",
    "irq.restore_fl": "xen_restore_fl_direct",
    "irq.irq_disable": "xen_irq_disable_direct",
    "irq.irq_enable": "xen_irq_enable_direct",
    "mmu.read_cr2": "xen_read_cr2_direct",
}
"""``xen_setup_vcpu_info_placement``: the event mask is at a fixed per-CPU place. Assembly, without thunks."""

PAGE_TABLES_READY: Final = {
    "mmu.set_pte": "xen_set_pte",
    "mmu.set_pmd": "xen_set_pmd",
    "mmu.set_pud": "xen_set_pud",
    "mmu.set_p4d": "xen_set_p4d",
    "mmu.alloc_pte": "xen_alloc_pte",
    "mmu.alloc_pmd": "xen_alloc_pmd",
    "mmu.alloc_pud": "xen_alloc_pud",
    "mmu.release_pte": "xen_release_pte",
    "mmu.release_pmd": "xen_release_pmd",
    "mmu.release_pud": "xen_release_pud",
    "mmu.make_pte": callee_save("xen_make_pte"),
    "mmu.write_cr3": "xen_write_cr3",
}
"""``xen_post_allocator_init`` (arch/x86/xen/mmu_pv.c): with struct pages come pinning and user pgds."""

PGD_READY: Final = {"mmu.set_pgd": "xen_set_pgd"}
"""Likewise, where the top level is the fourth."""

PLACING: Final = ("have_vcpu_info_placement", "xen_have_vcpu_info_placement")
"""Names of the variable that says whether that is tried: 2.6.24 has it switched off as built."""

PAGE_TABLES_DONE: Final = "xen_pagetable_setup_done"
"""To 2.6.25 it sets the slots itself that ``xen_post_allocator_init`` sets since."""

WRITE_CR3_EARLY: Final = "xen_write_cr3_init"
"""Of 3.9 and later: what ``write_cr3`` is until then; before, it is the same from the beginning."""

_BY_CODE: Final = frozenset({"cpu", "irq", "mmu", "time"})
SPINLOCKS: Final = "xen_init_spinlocks"
POSSIBLE: Final = "__cpu_possible_mask"
"""What it counts to leave the locks native on a single CPU: to 4.14 it does not."""
GROUPS_CODE: Final = ("xen_init_irq_ops", "xen_init_mmu_ops", "xen_init_time_ops", "xen_start_kernel")
"""Functions that set slots of a kernel to 5.12, besides what is copied: those that the last one calls, then itself. A
compiler may make stores of a copy."""


class XenKernel:
    """A Xen PV domain with any number of CPUs."""

    def slots(self, kernel: KernelImage, layout: Layout, cpus: int) -> Mapping[str, str | int | None]:
        """What the boot begins with, from tables or from code, then what it changes later, then the locks.

        ``xen_init_spinlocks`` leaves them native on a single CPU.

        Raises:
            ImageError: the kernel was built without XEN_PV.
        """
        _require_xen_pv(kernel)
        # To 4.18 the groups are variables of their own, filled from tables of the same shape.
        if layout.has_slot("patch") and any("." in slot.path for slot in layout.slots):
            return in_layout(layout, _group_by_group(kernel, layout, cpus))
        tables = {group: symbol for group, symbol in TABLES.items() if symbol in kernel.symbols}
        # Where one of the tables is missing, code sets the slots instead.
        set_by_code = assigned(kernel, layout, *START) if len(tables) < len(TABLES) else {}
        slots = {path: target for path, target in set_by_code.items() if path.partition(".")[0] not in tables}
        for group, symbol in tables.items():
            slots |= compiled_table(kernel, layout, symbol, group)
        slots |= present(kernel, _placed(kernel))
        slots |= present(kernel, PAGE_TABLES_READY)
        # ``xen_init_spinlocks``: one vCPU never waits for another, and keeps the plain locks.
        if cpus > 1 and "xen_qlock_wait" in kernel.symbols:
            slots |= queued_spinlocks(wait="xen_qlock_wait", kick="xen_qlock_kick", vcpu_is_preempted="xen_vcpu_stolen")
        return in_layout(layout, slots)  # 7.3 leads two of the lock ops by static calls

    def features(self, kernel: KernelImage, cpus: int) -> frozenset[str]:
        """``XENPV``, forced in ``xen_start_kernel``."""
        del kernel, cpus
        return frozenset({"XENPV"})


def _group_by_group(kernel: KernelImage, layout: Layout, cpus: int) -> dict[str, Target]:
    """To 5.12: each group is a copy of a table, and later steps put better functions in some slots.

    The group is ``pv_mmu_ops`` to 4.18, then ``mmu`` of ``pv_ops``.
    """
    slots: dict[str, Target] = {}
    groups = {_plain(group): group for group in sorted({slot.path.partition(".")[0] for slot in layout.slots})}
    for plain, group in groups.items():
        if f"xen_{plain}_ops" in kernel.symbols:
            slots |= compiled_table(kernel, layout, f"xen_{plain}_ops", group)
    later = {**_placed(kernel), **PAGE_TABLES_READY, **PGD_READY}
    if WRITE_CR3_EARLY not in kernel.symbols:
        del later["mmu.write_cr3"]
    paths = ((path.partition("."), to) for path, to in later.items())
    moved = {f"{groups[group]}.{op}": to for (group, _, op), to in paths if group in groups}
    alone = cpus == 1 and mentions(kernel, SPINLOCKS, POSSIBLE)
    by_code = assigned(kernel, layout, *(() if alone else (SPINLOCKS,)), *GROUPS_CODE)
    stored = Counter(path.partition(".")[0] for path in by_code)
    sizes = Counter(slot.path.partition(".")[0] for slot in layout.slots)
    copied = {groups[group] for group in _BY_CODE & groups.keys()}
    copied = {group for group in copied if stored[group] >= max(2, sizes[group] / 2)}
    # Stores that are a copy leave nothing as it was: what the table does not name becomes empty.
    slots = {**{slot.path: None for slot in layout.slots if slot.path.partition(".")[0] in copied}, **slots}
    return slots | by_code | present(kernel, moved) | assigned(kernel, layout, PAGE_TABLES_DONE)


def _plain(group: str) -> str:
    return group.removeprefix("pv_").removesuffix("_ops")


def _placed(kernel: KernelImage) -> Mapping[str, str]:
    """What a vcpu_info at a place of the kernel's own puts into slots; nothing where the kernel does not ask for it."""
    return VCPU_INFO_PLACED if switched_on(kernel, *PLACING) else {}


def _require_xen_pv(kernel: KernelImage) -> None:
    needed = () if START[0] in kernel.symbols else TABLES.values()
    missing = [f"symbol {symbol}" for symbol in needed if symbol not in kernel.symbols]
    # The note is what a toolstack starts a PV domain by; without it there is no such kernel.
    if not any(note.owner == "Xen" and note.type == ENTRY_NOTE for note in kernel.notes):
        missing.append("Xen note ENTRY")
    if missing:
        raise ImageError(
            f"the kernel was built without XEN_PV: it has no {', no '.join(missing)}", kernel.path, field="symbols"
        )

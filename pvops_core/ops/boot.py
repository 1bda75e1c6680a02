"""Boot-time hooks that lie outside the table of ops.

``patch`` left the table in 5.13; ``pagetable_reserve`` came to x86_init in 2.6.39 (279b706bf800); the setup pair
moved from pv_mmu_ops to x86_init.paging, and init_IRQ, time_init and arch_setup to x86_init, in 2.6.32. The
built-in guest calls them all through ``boot_ops``, so that a backend sees one order of boot whatever the table.
"""

from __future__ import annotations

from pvops_core.ops.declare import declare
from pvops_core.ops.model import Convention, Slot

BOOT_TABLE = "boot_ops"
"""The built-in guest's variable that holds these slots."""

_HOOKS = [
    (
        "init",
        "unsigned int patch(u8 type, u16 clobbers, void *insnbuf, unsigned long addr, unsigned int len)",
        "asm/paravirt_types.h, struct pv_init_ops",
        "patch",
    ),
    (
        "x86_init",
        "void pagetable_reserve(u64 start, u64 end)",
        "asm/x86_init.h, struct x86_init_mapping (2.6.39)",
        "mapping.pagetable_reserve",
    ),
    (
        "x86_init",
        "void pagetable_setup_start(pgd_t *pgd_base)",
        "asm/x86_init.h, struct x86_init_paging (2.6.32)",
        "paging.pagetable_setup_start",
    ),
    (
        "x86_init",
        "void pagetable_setup_done(pgd_t *pgd_base)",
        "asm/x86_init.h, struct x86_init_paging (2.6.32)",
        "paging.pagetable_setup_done",
    ),
    (
        "x86_init",
        "void init_IRQ(void)",
        "asm/x86_init.h, x86_init.irqs.intr_init",
        "irqs.intr_init",
    ),
    (
        "x86_init",
        "void time_init(void)",
        "asm/x86_init.h, x86_init.timers.timer_init",
        "timers.timer_init",
    ),
    (
        "x86_init",
        "void arch_setup(void)",
        "asm/x86_init.h, x86_init.oem.arch_setup",
        "oem.arch_setup",
    ),
]


def boot_hooks(taken: frozenset[str], convention: Convention, pointer_size: int) -> tuple[Slot, ...]:
    """The boot hooks of a layout, without those that have a slot in its table."""
    wanted = [hook for hook in _HOOKS if hook[1].split("(")[0].split()[-1].lstrip("*") not in taken]
    return tuple(
        Slot(
            type=number,
            op=declare(group, source, text, convention),
            path=path,
            symbol=BOOT_TABLE,
            offset=number * pointer_size,
        )
        for number, (group, text, source, path) in enumerate(wanted)
    )

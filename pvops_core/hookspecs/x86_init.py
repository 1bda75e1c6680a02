"""Boot-time hooks: in the table of 2.6.23 and 2.6.24, in x86_init of later kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs.markers import hookspec

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


@hookspec(firstresult=True)
def arch_setup(cpu: Vcpu) -> None:
    """Set up what the platform needs, early in setup_arch."""


@hookspec(firstresult=True)
def init_IRQ(cpu: Vcpu) -> None:  # noqa: N802  the kernel's own name
    """Set up interrupt controllers and vectors; called once by start_kernel with interrupts off."""


@hookspec(firstresult=True)
def time_init(cpu: Vcpu) -> None:
    """Set up the boot CPU's clock and timer; called once by start_kernel after init_IRQ."""


@hookspec(firstresult=True)
def pagetable_setup_start(cpu: Vcpu, pgd_base: int) -> None:
    """Called before the kernel sets up its page tables. May load another base and install mappings, which setup keeps.

    Args:
        pgd_base: pgd_t *; guest-virtual address of the kernel's top-level table (swapper_pg_dir).
    """


@hookspec(firstresult=True)
def pagetable_setup_done(cpu: Vcpu, pgd_base: int) -> None:
    """Called when the kernel's page tables are set up and loaded: Xen pins them here.

    Args:
        pgd_base: pgd_t *; guest-virtual address of the kernel's top-level table (swapper_pg_dir).
    """


@hookspec(firstresult=True)
def pagetable_reserve(cpu: Vcpu, start: int, end: int) -> None:
    """Keep the used part of the early page-table buffer; called once the kernel has mapped its memory.

    The part in use is reserved. What was set aside beyond ``end`` and not used goes back to the allocator, so
    a platform that had made it read-only must make it read-write first, and none of the used part.

    Args:
        start: u64; guest-physical address of the first byte used, in bytes.
        end: u64; guest-physical address after the last byte used, in bytes.
    """

"""Each op: what it asks of the host and what it leaves in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_lguest import backend

from pvops_core.hookspecs import MODULES

from .ops_rig import OpsHost

if TYPE_CHECKING:
    from .conftest import MakeHost


def test_every_op_is_a_hook(make_host: MakeHost) -> None:
    ops = OpsHost(make_host()).ops
    hooks = {name for module in MODULES for name in vars(module)}
    mine = {name for name in dir(ops) if hasattr(getattr(ops, name), "pvops_impl")}
    assert mine <= hooks
    replaced = """
        save_fl restore_fl irq_disable irq_enable safe_halt init_IRQ load_gdt load_idt write_gdt_entry write_idt_entry
        load_tls set_ldt load_tr_desc cpuid clts read_cr0 write_cr0 read_cr2 read_cr3 write_cr3 read_cr4 write_cr4
        set_debugreg load_esp0 iret wbinvd flush_tlb_user flush_tlb_single flush_tlb_kernel set_pte set_pte_at set_pmd
        time_init get_wallclock sched_clock get_cpu_khz apic_write apic_write_atomic apic_read memory_setup patch
        set_lazy_mode mmu_lazy_mode_enter mmu_lazy_mode_leave cpu_lazy_mode_enter cpu_lazy_mode_leave
        kernel_rpl paravirt_enabled name
    """
    assert set(replaced.split()) <= mine


def test_the_backend_says_what_it_is() -> None:
    assert backend.name == "lguest"
    assert backend.base == "native"
    assert [kind.value for kind in backend.kinds] == ["i386"]

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The table of ops in the order of the kernel generation that the guest is built for. Slots are words: the wrappers in
 * paravirt_32.h and paravirt_64.h give them their prototypes. A test compares the order with pvops_core.ops.
 */
#ifndef GUEST_LAYOUT_H
#define GUEST_LAYOUT_H

#include "types.h"

typedef unsigned long pv_slot;

#define SLOTS(...)		pv_slot __VA_ARGS__

#define PV_FLUSH_AND_SET							\
	SLOTS(flush_tlb_user, flush_tlb_kernel, flush_tlb_single, flush_tlb_others);	\
	SLOTS(alloc_pt, alloc_pd, alloc_pd_clone, release_pt, release_pd);	\
	SLOTS(set_pte, set_pte_at, set_pmd, pte_update, pte_update_defer)

#ifdef CONFIG_X86_PAE
#define PV_CONVERT								\
	SLOTS(set_pte_atomic, set_pte_present, set_pud, pte_clear, pmd_clear);	\
	SLOTS(pte_val, pmd_val, pgd_val, make_pte, make_pmd, make_pgd)
#else
#define PV_CONVERT		SLOTS(pte_val, pgd_val, make_pte, make_pgd)
#endif

#if defined(LAYOUT_2_6_23)

struct paravirt_ops {
	SLOTS(kernel_rpl, shared_kernel_pmd, paravirt_enabled, name);
	SLOTS(patch, arch_setup, memory_setup, post_allocator_init, init_IRQ, time_init);
	SLOTS(pagetable_setup_start, pagetable_setup_done, banner, get_wallclock, set_wallclock);
	SLOTS(cpuid, get_debugreg, set_debugreg, clts, read_cr0, write_cr0, read_cr2, write_cr2, read_cr3, write_cr3);
	SLOTS(read_cr4_safe, read_cr4, write_cr4, save_fl, restore_fl, irq_disable, irq_enable, safe_halt, halt, wbinvd);
	SLOTS(read_msr, write_msr, read_tsc, read_pmc, sched_clock, get_cpu_khz);
	SLOTS(load_tr_desc, load_gdt, load_idt, store_gdt, store_idt, set_ldt, store_tr, load_tls);
	SLOTS(write_ldt_entry, write_gdt_entry, write_idt_entry, load_esp0, set_iopl_mask, io_delay);
	SLOTS(activate_mm, dup_mmap, exit_mmap);
	SLOTS(apic_write, apic_write_atomic, apic_read, setup_boot_clock, setup_secondary_clock, startup_ipi_hook);
	PV_FLUSH_AND_SET;
	PV_CONVERT;
	SLOTS(set_lazy_mode, irq_enable_sysexit, iret);
};

extern struct paravirt_ops paravirt_ops;

#define PV_SLOT(group, op)	paravirt_ops.op
#define PV_TYPE(group, op)	(offsetof(struct paravirt_ops, op) / sizeof(pv_slot))
#define PV_NR_TYPES		(sizeof(struct paravirt_ops) / sizeof(pv_slot))

#elif defined(LAYOUT_2_6_24)

struct pv_lazy_ops {
	SLOTS(enter, leave);
};

struct pv_init_ops {
	SLOTS(patch, arch_setup, memory_setup, post_allocator_init, banner);
};

struct pv_time_ops {
	SLOTS(time_init, get_wallclock, set_wallclock, sched_clock, get_cpu_khz);
};

struct pv_cpu_ops {
	SLOTS(get_debugreg, set_debugreg, clts, read_cr0, write_cr0, read_cr4_safe, read_cr4, write_cr4);
	SLOTS(load_tr_desc, load_gdt, load_idt, store_gdt, store_idt, set_ldt, store_tr, load_tls);
	SLOTS(write_ldt_entry, write_gdt_entry, write_idt_entry, load_esp0, set_iopl_mask, wbinvd, io_delay);
	SLOTS(cpuid, read_msr, write_msr, read_tsc, read_pmc, irq_enable_sysexit, iret);
	struct pv_lazy_ops lazy_mode;
};

struct pv_irq_ops {
	SLOTS(init_IRQ, save_fl, restore_fl, irq_disable, irq_enable, safe_halt, halt);
};

struct pv_apic_ops {
	SLOTS(apic_write, apic_write_atomic, apic_read, setup_boot_clock, setup_secondary_clock, startup_ipi_hook);
};

struct pv_mmu_ops {
	SLOTS(pagetable_setup_start, pagetable_setup_done, read_cr2, write_cr2, read_cr3, write_cr3);
	SLOTS(activate_mm, dup_mmap, exit_mmap);
	PV_FLUSH_AND_SET;
	PV_CONVERT;
	struct pv_lazy_ops lazy_mode;
};

/* Never stored: the order in which the tables are numbered. */
struct paravirt_patch_template {
	struct pv_init_ops pv_init_ops;
	struct pv_time_ops pv_time_ops;
	struct pv_cpu_ops pv_cpu_ops;
	struct pv_irq_ops pv_irq_ops;
	struct pv_apic_ops pv_apic_ops;
	struct pv_mmu_ops pv_mmu_ops;
};

extern struct pv_init_ops pv_init_ops;
extern struct pv_time_ops pv_time_ops;
extern struct pv_cpu_ops pv_cpu_ops;
extern struct pv_irq_ops pv_irq_ops;
extern struct pv_apic_ops pv_apic_ops;
extern struct pv_mmu_ops pv_mmu_ops;

#define PV_SLOT(group, op)	pv_##group##_ops.op
#define PV_TYPE(group, op)	(offsetof(struct paravirt_patch_template, pv_##group##_ops.op) / sizeof(pv_slot))
#define PV_NR_TYPES		(sizeof(struct paravirt_patch_template) / sizeof(pv_slot))

#elif defined(LAYOUT_6_1)

struct pv_lazy_ops {
	SLOTS(enter, leave, flush);
};

struct paravirt_patch_template {
	struct pv_cpu_ops {
		SLOTS(io_delay, get_debugreg, set_debugreg, read_cr0, write_cr0, write_cr4, load_tr_desc, load_gdt, load_idt);
		SLOTS(set_ldt, store_tr, load_tls, load_gs_index, write_ldt_entry, write_gdt_entry, write_idt_entry);
		SLOTS(alloc_ldt, free_ldt, load_sp0, invalidate_io_bitmap, update_io_bitmap, wbinvd, cpuid);
		SLOTS(read_msr, write_msr, read_msr_safe, write_msr_safe, read_pmc, start_context_switch, end_context_switch);
	} cpu;
	struct pv_irq_ops {
		SLOTS(save_fl, irq_disable, irq_enable, safe_halt, halt);
	} irq;
	struct pv_mmu_ops {
		SLOTS(flush_tlb_user, flush_tlb_kernel, flush_tlb_one_user, flush_tlb_multi, tlb_remove_table, exit_mmap);
		SLOTS(notify_page_enc_status_changed, read_cr2, write_cr2, read_cr3, write_cr3, activate_mm, dup_mmap);
		SLOTS(pgd_alloc, pgd_free, alloc_pte, alloc_pmd, alloc_pud, alloc_p4d);
		SLOTS(release_pte, release_pmd, release_pud, release_p4d, set_pte, set_pmd);
		SLOTS(ptep_modify_prot_start, ptep_modify_prot_commit, pte_val, make_pte, pgd_val, make_pgd);
		SLOTS(set_pud, pmd_val, make_pmd, pud_val, make_pud, set_p4d, p4d_val, make_p4d, set_pgd);
		struct pv_lazy_ops lazy_mode;
		SLOTS(set_fixmap);
	} mmu;
	struct pv_lock_ops {
		SLOTS(queued_spin_lock_slowpath, queued_spin_unlock, wait, kick, vcpu_is_preempted);
	} lock;
};

extern struct paravirt_patch_template pv_ops;

#define PV_SLOT(group, op)	pv_ops.group.op
#define PV_TYPE(group, op)	(offsetof(struct paravirt_patch_template, group.op) / sizeof(pv_slot))
#define PV_NR_TYPES		(sizeof(struct paravirt_patch_template) / sizeof(pv_slot))

#else
#error "define one of LAYOUT_2_6_23, LAYOUT_2_6_24, LAYOUT_6_1"
#endif

/* Hooks of boot that have no slot in the table above. */
struct boot_ops {
#ifdef LAYOUT_6_1
	SLOTS(patch, pagetable_reserve, pagetable_setup_start, pagetable_setup_done, init_IRQ, time_init, arch_setup);
#elif defined(LAYOUT_2_6_24) || defined(LAYOUT_2_6_23)
	SLOTS(pagetable_reserve);
#endif
};

extern struct boot_ops boot_ops;

#define PV_PRESENT(group, op)	(PV_SLOT(group, op) != 0)

#endif

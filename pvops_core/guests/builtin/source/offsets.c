// SPDX-License-Identifier: GPL-2.0
/*
 * Numbers that the Python side needs, so that it never has to know a struct by heart: field offsets and constants as absolute
 * symbols, and boot_info's whole layout as a section.
 */
#include "kernel.h"
#ifndef __x86_64__
#include "lguest.h"
#endif

#define ABSOLUTE(name, value) \
	asm(".globl " #name "\n\t.set " #name ", %c0" : : "i" (value))
#define FIELD(prefix, type, field)	ABSOLUTE(prefix##_##field##_offset, offsetof(type, field))

/* A function only because asm operands need one. */
__attribute__((used)) static void offsets(void)
{
	FIELD(mm, struct mm, pgd);
	FIELD(mm, struct mm, user_pgd);
	FIELD(vma, struct vma, vm_mm);
	FIELD(task, struct task, cpu);
	FIELD(task, struct task, thread);
	FIELD(task, struct task, mm);
	FIELD(task, struct task, exited);
	FIELD(thread, struct thread_struct, tls_array);
	FIELD(thread, struct thread_struct, sp0);
	FIELD(thread, struct thread_struct, sysenter_cs);
	FIELD(thread, struct thread_struct, sp);
	FIELD(tss, struct tss_struct, sp0);
	FIELD(tss, struct tss_struct, io_bitmap_base);
	FIELD(tss, struct tss_struct, io_bitmap);
	FIELD(gather, struct mmu_gather, nr);
	FIELD(gather, struct mmu_gather, tables);
	FIELD(flush, struct flush_tlb_info, mm);
	FIELD(flush, struct flush_tlb_info, start);
	FIELD(flush, struct flush_tlb_info, end);
	ABSOLUTE(fixaddr_top, FIXADDR_TOP);
	ABSOLUTE(kernel_base, KERNEL_BASE);
	ABSOLUTE(gate_count, NR_GATES);
	ABSOLUTE(gate_size, GATE_SIZE);
	ABSOLUTE(stack_size, STACK_SIZE);
	ABSOLUTE(max_cpus, MAX_CPUS);
	ABSOLUTE(nr_processes, NR_PROCESSES);
	ABSOLUTE(pv_nr_types, PV_NR_TYPES);
}

struct field {
	char name[16];
	u32 offset, size;
};

#define BOOT(field)	{ #field, offsetof(struct boot_info, field), sizeof(((struct boot_info *)0)->field) }

__attribute__((used, section(".boot_info_layout"))) static const struct field boot_info_layout[] = {
	{ "", 0, sizeof(struct boot_info) },
	BOOT(magic), BOOT(version), BOOT(size), BOOT(platform), BOOT(nr_pages), BOOT(ncpus), BOOT(tick_hz), BOOT(root),
	BOOT(table_pfn), BOOT(table_frames), BOOT(first_pfn), BOOT(seed), BOOT(start_info), BOOT(shared_info),
	BOOT(mfn_list), BOOT(features), BOOT(command_line),
};

#define REPORT(field)	{ #field, offsetof(struct guest_report, field), sizeof(((struct guest_report *)0)->field) }

__attribute__((used, section(".report_layout"))) static const struct field report_layout[] = {
	{ "", 0, sizeof(struct guest_report) },
	REPORT(magic), REPORT(size), REPORT(status), REPORT(ncpus), REPORT(digest), REPORT(results), REPORT(refused),
	REPORT(syscalls), REPORT(page_faults), REPORT(ticks), REPORT(switches), REPORT(sites), REPORT(pokes),
	REPORT(alternatives), REPORT(exercised), REPORT(spin_count), REPORT(exit_codes),
};

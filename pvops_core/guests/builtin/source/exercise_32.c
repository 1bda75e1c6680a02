// SPDX-License-Identifier: GPL-2.0
/* Ops that only the 2.6.23 and 2.6.24 layouts have, or that they call in their own way. */
#include "exercise.h"

#define MSR_SYSENTER_CS	0x174
#define APIC_VERSION	0x30
#define APIC_TPR	0x80

static const struct desc_struct flat_data = { 0x0000ffff, 0x00cff200 };

static const struct desc_struct small_data = { 0x00002345, 0x00c1f200 };

/* What the processor sees: the table it uses need not be ours. */
static u32 segment_limit(u32 selector)
{
	u32 limit = 0;

	asm volatile("lsl %1, %0" : "+r" (limit) : "r" (selector) : "cc");
	return limit;
}

static void exercise_ldt(struct desc_struct *ldt)
{
	TWICE(write_ldt_entry(ldt, 1, flat_data.low, flat_data.high); digest(ldt[1].low));
	TWICE(set_ldt(ldt, LDT_ENTRIES));
	TWICE(set_ldt(NULL, 0));
}

void exercise_descriptors(void)
{
	struct desc_struct *gdt = cpu_gdt(0), *ldt = alloc_page();
	struct desc_ptr gdtr = { GDT_ENTRIES * 8 - 1, (unsigned long)gdt }, stored;
	struct desc_ptr idtr = { sizeof(idt_table) - 1, (unsigned long)idt_table };
	struct gate_struct gate = idt_table[3];
	struct task *task = current();

	TWICE(load_gdt(&gdtr));
	TWICE(load_idt(&idtr));
	TWICE(store_gdt(&stored));
	TWICE(store_idt(&stored));
	TWICE(write_gdt_entry(gdt, GDT_ENTRY_TLS_MIN + 1, flat_data.low, flat_data.high); digest(gdt[GDT_ENTRY_TLS_MIN + 1].low));
	TWICE(write_idt_entry(idt_table, 3, gate.low, gate.high); digest(!memcmp(&idt_table[3], &gate, sizeof(gate))));
	TWICE(tss_init(0); load_tr_desc());
	task->thread.tls_array[2] = small_data;
	TWICE(load_tls(&task->thread, 0); digest(segment_limit(USER_TLS + 16)));
	TWICE(load_esp0(cpu_tss(0), &task->thread));
	TWICE(set_iopl_mask(0));
	exercise_ldt(ldt);
	free_page(ldt);
}

static void exercise_cpu(void)
{
	u32 cr0 = read_cr0();
	u64 earlier, later;
	int error;

	TWICE(write_cr0(cr0 | X86_CR0_TS); clts(); digest(read_cr0() & X86_CR0_TS));
	TWICE_GUARDED((void)read_cr4_safe());
	TWICE_GUARDED(write_cr4(read_cr4()));
	TWICE_GUARDED((void)read_msr(MSR_SYSENTER_CS, &error));
	TWICE_GUARDED((void)write_msr(MSR_SYSENTER_CS, KERNEL_CS, 0));
	TWICE_GUARDED(write_cr2(AREA_TEST));
	TWICE((void)read_cr2());
	TWICE((void)read_tsc());
	TWICE(earlier = sched_clock(); later = sched_clock(); digest(later >= earlier));
	TWICE((void)get_cpu_khz());
	TWICE((void)set_wallclock(get_wallclock()));
}

/* As for a site of clts that lies in a buffer: what the hook writes depends on the backend, that it fits does not. */
static void exercise_patch(void)
{
	u8 code[6] = { 0xff, 0x15 };
	u32 slot = (u32)&PV_SLOT(cpu, clts);
	unsigned int used;

	memcpy(code + 2, &slot, sizeof(slot));
	TWICE(used = boot_patch(PV_TYPE(cpu, clts), CLBR_ANY, code, (u32)code, sizeof(code)); digest(used <= sizeof(code)));
}

static void exercise_apic(void)
{
	TWICE_GUARDED((void)apic_read(APIC_VERSION));
	TWICE_GUARDED(apic_write(APIC_TPR, 0));
	TWICE_GUARDED(apic_write_atomic(APIC_TPR, 0));
	TWICE_GUARDED(setup_boot_clock());
	TWICE_GUARDED(startup_ipi_hook(MAX_CPUS, 0, 0));
}

/* An empty page becomes a table and ceases to be one. */
static void exercise_table_pages(void)
{
	void *page = alloc_page();
	u32 pfn = virt_to_pfn(page);

	TWICE(alloc_pt(&init_mm, pfn); release_pt(pfn));
	TWICE(alloc_pd(pfn); release_pd(pfn));
	free_page(page);
}

/* A top level that has the kernel's entries of another. */
static noinline void exercise_clone(bool second)
{
	struct mm *mm = mm_create();
	void *page = alloc_page();

	if (second)
		alloc_pd_clone(virt_to_pfn(page), virt_to_pfn(init_mm.pgd), 0, 0);
	else
		alloc_pd_clone(virt_to_pfn(page), virt_to_pfn(init_mm.pgd), 0, 0);
	release_pd(virt_to_pfn(page));
	free_page(page);
	mm_destroy(mm);
	guest_report.exercised++;
}

static void exercise_entries(void)
{
	void *page = alloc_page();
	pte_t *pte = area_pte(AREA_TEST);
	u64 word = test_word(page);
	pteval_t top = (pteval_t)pa(init_mm.pgd) | _PAGE_PRESENT;

	TWICE(digest(pgd_val(make_pgd(top)) == top));
	TWICE(set_pte_at(&init_mm, AREA_TEST, pte, mk_pte(page, PAGE_KERNEL)); flush_tlb_page(AREA_TEST);
	      digest(*(u64 *)AREA_TEST == word));
	TWICE(pte_update(&init_mm, AREA_TEST, pte));
	TWICE(pte_update_defer(&init_mm, AREA_TEST, pte));
#ifdef CONFIG_X86_PAE
	TWICE(set_pte_atomic(pte, mk_pte(page, PAGE_KERNEL)); flush_tlb_page(AREA_TEST); digest(*(u64 *)AREA_TEST == word));
	TWICE(set_pte_present(&init_mm, AREA_TEST, pte, mk_pte(page, PAGE_KERNEL)); flush_tlb_page(AREA_TEST);
	      digest(*(u64 *)AREA_TEST == word));
	TWICE(pte_clear(&init_mm, AREA_TEST, pte); digest(pte_val(*pte)));
#endif
	set_pte(pte, make_pte(0));
	flush_tlb_page(AREA_TEST);
	free_page(page);
}

#ifdef CONFIG_X86_PAE
static noinline void exercise_pmd_clear(bool second)
{
	struct mm *mm = mm_create();
	pmd_t *directory, *pmd;
	void *table;

	mm_prepare(mm, USER_BASE);
	directory = entry_table(ROOT_LEVEL, table_entry(ROOT_LEVEL, mm->pgd, USER_BASE));
	pmd = table_entry(2, directory, USER_BASE);
	table = entry_table(2, pmd);
	if (second)
		pmd_clear(pmd);
	else
		pmd_clear(pmd);
	digest(pmd_val(*pmd));
	release_pt(virt_to_pfn(table));
	free_page(table);
	mm_destroy(mm);
	guest_report.exercised++;
}
#endif

void exercise_tables(void)
{
	exercise_table_pages();
	exercise_clone(false);
	exercise_clone(true);
	exercise_entries();
#ifdef CONFIG_X86_PAE
	exercise_pmd_clear(false);
	exercise_pmd_clear(true);
#endif
}

void exercise_generation(void)
{
	unsigned long others = 2;		/* a mask of CPUs never has the caller's own */

	exercise_cpu();
	exercise_patch();
	exercise_apic();
	if (boot_info.ncpus > 1)
		TWICE(flush_tlb_others(&others, &init_mm, AREA_TEST));
	TWICE(cpu_lazy_mode_enter(); cpu_lazy_mode_leave());
#ifdef LAYOUT_2_6_23
	TWICE(set_lazy_mode(PARAVIRT_LAZY_MMU); set_lazy_mode(PARAVIRT_LAZY_FLUSH); set_lazy_mode(PARAVIRT_LAZY_NONE));
#endif
}

// SPDX-License-Identifier: GPL-2.0
/* Ops that only the 6.1 layout has, or that it calls in its own way. */
#include "exercise.h"

#define MSR_FS_BASE	0xc0000100
#define MSR_EFER	0xc0000080

static const struct desc_struct flat_data = { 0x0000ffff, 0x00cff300 };

static void exercise_ldt(struct desc_struct *ldt)
{
	TWICE(alloc_ldt(ldt, LDT_ENTRIES); write_ldt_entry(ldt, 1, &flat_data); digest(ldt[1].low); free_ldt(ldt, LDT_ENTRIES));
	alloc_ldt(ldt, LDT_ENTRIES);
	TWICE(set_ldt(ldt, LDT_ENTRIES));
	TWICE(set_ldt(NULL, 0));
	free_ldt(ldt, LDT_ENTRIES);
}

void exercise_descriptors(void)
{
	struct desc_struct *gdt = cpu_gdt(0), *ldt = alloc_page();
	struct desc_ptr gdtr = { GDT_ENTRIES * 8 - 1, (unsigned long)gdt };
	struct desc_ptr idtr = { sizeof(idt_table) - 1, (unsigned long)idt_table };
	struct gate_struct gate = idt_table[3];
	struct task *task = current();

	TWICE(load_gdt(&gdtr));
	TWICE(load_idt(&idtr));
	TWICE(write_gdt_entry(gdt, GDT_ENTRY_TLS_MIN + 1, &flat_data, 0x10); digest(gdt[GDT_ENTRY_TLS_MIN + 1].low));
	TWICE(write_idt_entry(idt_table, 3, &gate); digest(!memcmp(&idt_table[3], &gate, sizeof(gate))));
	TWICE(tss_init(0); load_tr_desc());
	task->thread.tls_array[2] = flat_data;
	TWICE(load_tls(&task->thread, 0); digest(gdt[GDT_ENTRY_TLS_MIN + 2].low));
	TWICE(load_gs_index(0));
	TWICE(load_sp0(task->thread.sp0));
	TWICE(invalidate_io_bitmap(); update_io_bitmap());
	TWICE(start_context_switch(task); end_context_switch(task));
	exercise_ldt(ldt);
	free_page(ldt);
}

static void exercise_msrs(void)
{
	unsigned long cr4;
	int error;

	TWICE_GUARDED((void)read_msr(MSR_EFER));
	TWICE_GUARDED(write_msr(MSR_FS_BASE, 0, 0));
	TWICE_GUARDED((void)read_msr_safe(MSR_EFER, &error));
	TWICE_GUARDED((void)write_msr_safe(MSR_FS_BASE, 0, 0));
	TWICE_GUARDED(asm volatile("mov %%cr4, %0" : "=r" (cr4)); write_cr4(cr4));
	TWICE(write_cr2(AREA_TEST); digest(read_cr2() == AREA_TEST));
}

static void exercise_top(void)
{
	pgd_t *pgd = alloc_page();
	pteval_t entry = pa(init_mm.pgd) | _PAGE_TABLE;
	struct mm mm = { .pgd = NULL };

	TWICE(digest(pgd_val(make_pgd(entry)) == entry));
	if (PV_PRESENT(mmu, set_pgd))
		TWICE(set_pgd(pgd, make_pgd(0)));
	if (PV_PRESENT(mmu, alloc_p4d))
		TWICE(alloc_p4d(&init_mm, virt_to_pfn(pgd)));
	if (PV_PRESENT(mmu, release_p4d))
		TWICE(release_p4d(virt_to_pfn(pgd)));
	if (PV_PRESENT(mmu, notify_page_enc_status_changed))
		TWICE(notify_page_enc_status_changed(virt_to_pfn(pgd), 1, false));
	free_page(pgd);
	TWICE(mm.pgd = alloc_page(); mm.user_pgd = alloc_page(); digest(pgd_alloc(&mm)); pgd_free(&mm, mm.pgd);
	      free_page(mm.user_pgd); free_page(mm.pgd));
}

/* An empty page becomes a table and ceases to be one. */
static void exercise_table_pages(void)
{
	void *page = alloc_page();

	TWICE(alloc_pte(&init_mm, virt_to_pfn(page)); release_pte(virt_to_pfn(page)));
	TWICE(alloc_pmd(&init_mm, virt_to_pfn(page)); release_pmd(virt_to_pfn(page)));
	TWICE(alloc_pud(&init_mm, virt_to_pfn(page)); release_pud(virt_to_pfn(page)));
	free_page(page);
}

static void exercise_protection(void)
{
	struct vma vma = { &init_mm, AREA_TEST, AREA_TEST + PAGE_SIZE };
	void *page = alloc_page();
	pte_t *pte = area_pte(AREA_TEST), old;
	u64 word = test_word(page);

	set_pte(pte, mk_pte(page, PAGE_KERNEL));
	TWICE(old = ptep_modify_prot_start(&vma, AREA_TEST, pte);
	      ptep_modify_prot_commit(&vma, AREA_TEST, pte, make_pte(pte_val(old) & ~(pteval_t)_PAGE_RW));
	      flush_tlb_page(AREA_TEST);
	      digest(pte_val(*pte) & _PAGE_RW);
	      digest(*(u64 *)AREA_TEST == word));
	set_pte(pte, make_pte(0));
	flush_tlb_page(AREA_TEST);
	free_page(page);
}

#define FIX_TEST	3

static void exercise_fixmap(void)
{
	void *page = alloc_page();
	u64 word = test_word(page);

	TWICE(set_fixmap(FIX_TEST, pa(page), PAGE_KERNEL); digest(*(u64 *)(FIXADDR_TOP - FIX_TEST * PAGE_SIZE) == word));
	TWICE(set_fixmap(FIX_TEST, 0, 0));
	free_page(page);
}

static void exercise_gather(void)
{
	struct mmu_gather tlb = { .mm = &init_mm };
	unsigned long i;

	TWICE(tlb_remove_table(&tlb, alloc_page()));
	for (i = 0; i < tlb.nr; i++)
		free_page(tlb.tables[i]);
}

static void exercise_locks(void)
{
	unsigned long self = 1;
	struct flush_tlb_info info = { .mm = &init_mm, .start = AREA_TEST, .end = AREA_TEST + PAGE_SIZE, .stride_shift = PAGE_SHIFT };
	u32 lock = 0;
	u8 byte = 1;

	TWICE(queued_spin_lock_slowpath(&lock, 0); digest(lock & 0xff); queued_spin_unlock(&lock); digest(lock & 0xff));
	TWICE(lock_wait(&byte, 0));
	TWICE(lock_kick(0));
	TWICE((void)vcpu_is_preempted(0));
	TWICE(flush_tlb_multi(&self, &info));
}

void exercise_tables(void)
{
	exercise_top();
	exercise_table_pages();
	exercise_protection();
	exercise_fixmap();
	exercise_gather();
}

void exercise_generation(void)
{
	exercise_msrs();
	TWICE(mmu_lazy_mode_enter(); mmu_lazy_mode_flush(); mmu_lazy_mode_leave());
	exercise_locks();
}

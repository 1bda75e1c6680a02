// SPDX-License-Identifier: GPL-2.0
/*
 * Calls every op of the layout at two sites with arguments that are valid. Results that must be the same on every backend go into
 * the digest; what depends on the platform is called and its result dropped. This file has what all layouts share.
 */
#include "exercise.h"

static u64 random_state = 0x9e3779b97f4a7c15;

u64 test_word(void *page)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	*(u64 *)page = random_state;
	return random_state;
}

static void exercise_flags(void)
{
	unsigned long flags;

	TWICE(flags = save_fl(); digest(flags & X86_EFLAGS_IF));
	TWICE(irq_disable(); digest(save_fl() & X86_EFLAGS_IF));
	TWICE(irq_enable(); digest(save_fl() & X86_EFLAGS_IF));
	TWICE(flags = save_fl(); irq_disable(); restore_fl(flags); digest(save_fl() & X86_EFLAGS_IF));
}

/* Interrupts come in the middle of this. */
static void exercise_halts(void)
{
	unsigned long start = ticks;

	TWICE(irq_disable(); safe_halt());
	while (ticks < start + 3) {
		irq_disable();
		safe_halt();
	}
	irq_enable();
	TWICE_GUARDED(halt());
	digest(ticks > start);
}

void exercise_registers(void)
{
	unsigned long cr0 = read_cr0(), debug = AREA_TEST;
	u32 eax, ebx, ecx, edx;

	TWICE(write_cr0(cr0 | X86_CR0_TS); digest(read_cr0() & X86_CR0_TS));
	TWICE(write_cr0(cr0 & ~X86_CR0_TS); digest(read_cr0() & X86_CR0_TS));
	TWICE(digest((read_cr3() & -(unsigned long)PAGE_SIZE) == pa(init_mm.pgd)));
	TWICE(eax = ecx = 0; cpuid(&eax, &ebx, &ecx, &edx));
	TWICE(io_delay());
	TWICE_GUARDED(set_debugreg(0, debug));
	TWICE_GUARDED((void)get_debugreg(0));
	TWICE_GUARDED(set_debugreg(0, 0));
	TWICE_GUARDED(wbinvd());
	TWICE_GUARDED((void)read_pmc(0));
	TWICE((void)store_tr());
}

static void exercise_flushes(void)
{
	TWICE(flush_tlb_user());
	TWICE(flush_tlb_kernel());
	TWICE(flush_tlb_page(AREA_TEST));
}

/* Map, look through the mapping, take it away again. */
static void exercise_leaf(void)
{
	u64 *view = (u64 *)AREA_TEST;
	void *page = alloc_page();
	pte_t *pte = area_pte(AREA_TEST);
	u64 word = test_word(page);

	TWICE(set_pte(pte, mk_pte(page, PAGE_KERNEL)); flush_tlb_page(AREA_TEST); digest(*view == word));
	TWICE(digest((pte_val(*pte) & PTE_PFN_MASK) >> PAGE_SHIFT == virt_to_pfn(page)));
	*view = ~word;
	digest(*(u64 *)page == ~word);
	TWICE(set_pte(pte, make_pte(0)); flush_tlb_page(AREA_TEST); digest(pte_val(*pte)));
	free_page(page);
}

#define BATCH	8

/* A run of updates in lazy mode; they are in force when it ends. */
static void exercise_lazy(void)
{
	void *pages[BATCH];
	u64 words[BATCH];
	unsigned int i;

	for (i = 0; i < BATCH; i++) {
		pages[i] = alloc_page();
		words[i] = test_word(pages[i]);
	}
	mmu_lazy_mode_enter();
	for (i = 0; i < BATCH; i++)
		set_pte(area_pte(AREA_TEST) + i, mk_pte(pages[i], PAGE_KERNEL));
	mmu_lazy_mode_leave();
	flush_tlb_kernel();
	for (i = 0; i < BATCH; i++)
		digest(*(u64 *)(AREA_TEST + i * PAGE_SIZE) == words[i]);
	mmu_lazy_mode_enter();
	for (i = 0; i < BATCH; i++)
		set_pte(area_pte(AREA_TEST) + i, make_pte(0));
	mmu_lazy_mode_leave();
	flush_tlb_kernel();
	for (i = 0; i < BATCH; i++)
		free_page(pages[i]);
	guest_report.exercised += 2;
}

/* Pages that appear when they are touched. */
static void exercise_demand(void)
{
	u32 before = guest_report.page_faults;
	unsigned int i;

	for (i = 0; i < 4; i++)
		WRITE_ONCE(*(u32 *)(AREA_BASE + i * PAGE_SIZE), i + 1);
	for (i = 0; i < 4; i++)
		digest(*(u32 *)(AREA_BASE + i * PAGE_SIZE));
	digest(guest_report.page_faults > before);
}

/* activate_mm, dup_mmap and exit_mmap are for once in an address space's life: two lives, each by its own sites. */
static void exercise_life(bool second)
{
	struct mm *mm = mm_create();

	mm_map(mm, USER_BASE, alloc_page(), PAGE_USER);
	if (second)
		activate_mm(&init_mm, mm);
	else
		dup_mmap(&init_mm, mm);
	digest(mm_lookup(mm, USER_BASE) != NULL);
	mm_destroy(mm);
	mm = mm_create();
	mm_map(mm, USER_BASE, alloc_page(), PAGE_USER);
	if (second)
		dup_mmap(&init_mm, mm);
	else
		activate_mm(&init_mm, mm);
	exit_mmap(mm);
	mm_destroy(mm);
	guest_report.exercised += 3;
}

void exercise(void)
{
	unsigned long before = pages_free();

	exercise_flags();
	exercise_registers();
	exercise_descriptors();
	exercise_flushes();
	exercise_leaf();
	exercise_lazy();
	exercise_lazy();
	exercise_demand();
	exercise_life(false);
	exercise_life(true);
	exercise_tables();
	exercise_generation();
	exercise_halts();
	BUG_ON(pages_free() > before);
}

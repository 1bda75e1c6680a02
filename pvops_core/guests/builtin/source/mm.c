// SPDX-License-Identifier: GPL-2.0
/* Address spaces of processes: their own tables below KERNEL_BASE, the kernel's above. */
#include "paging.h"

#define MAX_MMS		4

static struct mm mms[MAX_MMS];

/* Entries of the root below USER_SLOTS are the process's; a hypervisor may have some of its own between them and the kernel's. */
#ifdef __x86_64__
#define KERNEL_SLOT	level_index(ROOT_LEVEL, KERNEL_BASE)
#define USER_SLOTS	(ENTRIES / 2)
#else
#define KERNEL_SLOT	level_index(ROOT_LEVEL, (unsigned long)KERNEL_BASE)
#define USER_SLOTS	KERNEL_SLOT
#endif

static struct mm *find_mm(void)
{
	unsigned int i;

	for (i = 0; i < MAX_MMS; i++)
		if (!mms[i].pgd)
			return &mms[i];
	panic("too many address spaces");
}

#ifdef CONFIG_X86_PAE
/* Whether all address spaces share the kernel's page directory. Xen keeps entries of its own there, one directory each. */
static bool shares_kernel_directory(void)
{
	return !on_xen;
}

/* The processor reads all four entries when cr3 is loaded, so the directories are there from the start. */
static void fill_root(struct mm *mm)
{
	unsigned int i;

	for (i = 0; i < level_entries(ROOT_LEVEL); i++) {
		void *kernel = entry_table(ROOT_LEVEL, init_mm.pgd + i), *directory;

		if (i == KERNEL_SLOT && shares_kernel_directory()) {
			set_pud((pud_t *)(mm->pgd + i), (pud_t){ init_mm.pgd[i].val });
			continue;
		}
		directory = alloc_page();
		if (i == KERNEL_SLOT) {
			memcpy(directory, kernel, PAGE_SIZE);
			alloc_pd_clone(virt_to_pfn(directory), virt_to_pfn(kernel), 0, ENTRIES);
		} else {
			alloc_pd(virt_to_pfn(directory));
		}
		entry_set(ROOT_LEVEL, mm->pgd + i, pa(directory) | table_flags(ROOT_LEVEL));
	}
}
#elif defined(__x86_64__)
static void fill_root(struct mm *mm)
{
	mm->pgd[KERNEL_SLOT] = init_mm.pgd[KERNEL_SLOT];
	mm->user_pgd = alloc_page();
	BUG_ON(pgd_alloc(mm));
}
#else
static void fill_root(struct mm *mm)
{
	memcpy(mm->pgd + KERNEL_SLOT, init_mm.pgd + KERNEL_SLOT, (ENTRIES - KERNEL_SLOT) * sizeof(pgd_t));
	alloc_pd_clone(virt_to_pfn(mm->pgd), virt_to_pfn(init_mm.pgd), KERNEL_SLOT, ENTRIES - KERNEL_SLOT);
}
#endif

struct mm *mm_create(void)
{
	struct mm *mm = find_mm();

	mm->pgd = alloc_page();
	mm->brk = 0;
	fill_root(mm);
	return mm;
}

/* The leaf entry of an address, with the tables on the way made. */
static pte_t *make_path(struct mm *mm, unsigned long address)
{
	void *table = mm->pgd;
	int level;

	for (level = ROOT_LEVEL; level > 1; level--) {
		void *entry = table_entry(level, table, address), *child = entry_table(level, entry);

		if (!child) {
			child = alloc_page();
			table_alloc(level - 1, mm, virt_to_pfn(child));
			entry_set(level, entry, pa(child) | table_flags(level));
		}
		table = child;
	}
	return table_entry(1, table, address);
}

void mm_prepare(struct mm *mm, unsigned long address)
{
	make_path(mm, address);
}

pte_t *mm_map(struct mm *mm, unsigned long address, void *page, pteval_t flags)
{
	pte_t *pte = make_path(mm, address);

#ifdef __x86_64__
	set_pte(pte, make_pte((pteval_t)pa(page) | flags));
#else
	set_pte_at(mm, address, pte, make_pte((pteval_t)pa(page) | flags));
#endif
	return pte;
}

pte_t *mm_lookup(struct mm *mm, unsigned long address)
{
	return walk(mm->pgd, address);
}

static void drop_table(struct mmu_gather *tlb, int level, void *table)
{
	table_release(level, virt_to_pfn(table));
#ifdef __x86_64__
	tlb_remove_table(tlb, table);
#else
	free_page(table);
#endif
}

/* Frees what lies below a table; the kernel's part of the root stays. */
static void clear_table(struct mmu_gather *tlb, int level, void *table)
{
	unsigned int i, end = level_entries(level);

	if (level == ROOT_LEVEL)
		end = USER_SLOTS;
	for (i = 0; i < end; i++) {
		pteval_t *entry = (pteval_t *)table + i;
		void *child;

		if (!(*entry & _PAGE_PRESENT))
			continue;
		child = entry_table(level, entry);
		if (level > 1)
			clear_table(tlb, level - 1, child);
		entry_set(level, entry, 0);
		if (level > 1)
			drop_table(tlb, level - 1, child);
		else
			free_page(child);
	}
}

static void tlb_finish(struct mmu_gather *tlb)
{
	unsigned long i;

	flush_tlb_user();
	for (i = 0; i < tlb->nr; i++)
		free_page(tlb->tables[i]);
}

/* The address space must not be in use. */
void mm_destroy(struct mm *mm)
{
	struct mmu_gather tlb = { .mm = mm, .nr = 0 };

	BUG_ON(current()->mm == mm);
	exit_mmap(mm);
	clear_table(&tlb, ROOT_LEVEL, mm->pgd);
	tlb_finish(&tlb);
#ifdef __x86_64__
	pgd_free(mm, mm->pgd);
	free_page(mm->user_pgd);
#elif defined(CONFIG_X86_PAE)
	if (!shares_kernel_directory()) {
		void *directory = entry_table(ROOT_LEVEL, mm->pgd + KERNEL_SLOT);

		entry_set(ROOT_LEVEL, mm->pgd + KERNEL_SLOT, 0);
		release_pd(virt_to_pfn(directory));
		free_page(directory);
	}
#else
	release_pd(virt_to_pfn(mm->pgd));
#endif
	free_page(mm->pgd);
	mm->pgd = NULL;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Frames, and the kernel's own page tables. The tables are built in a buffer [pgt_buf_start, pgt_buf_top) of frames of which
 * [pgt_buf_start, pgt_buf_end) are used; a backend that must not let page tables be mapped writable maps the whole buffer
 * read-only, and pagetable_reserve gives the rest of it back. (Linux, 2.6.39: 279b706bf800.)
 */
#include "paging.h"

extern char _end[];

struct mm init_mm;

/* Frame numbers; a backend's set_pte looks at them. */
volatile u64 pgt_buf_start, pgt_buf_end, pgt_buf_top;
static u64 buffer_limit;

#define LIVEPATCH_FRAMES	1024	/* left alone at the end of memory if the command line says livepatch */

static u64 next_pfn;			/* frames from here on were never handed out */
static u64 last_pfn;			/* and up to here they may be */
static void *free_list;
static unsigned long free_count;

static bool early_rw;			/* before 2011: only frames already in use are masked */

static void *alloc_low_page(void)
{
	void *page;

	if (pgt_buf_end == buffer_limit)
		panic("the page-table buffer is too small");
	page = pfn_to_virt(pgt_buf_end++);
	if (early_rw)
		pgt_buf_top = pgt_buf_end;
	memset(page, 0, PAGE_SIZE);
	return page;
}

static bool wanted(u64 start, u64 end)
{
	u64 ram_end = (u64)KERNEL_BASE + (boot_info.nr_pages << PAGE_SHIFT);

	return (start < ram_end && end > KERNEL_BASE) || (start < AREA_BASE + AREA_SIZE && end > AREA_BASE);
}

static void fill_leaf(void *table, u64 address)
{
	pte_t *pte = table;
	u64 pfn = (address - KERNEL_BASE) >> PAGE_SHIFT;
	int i;

	for (i = 0; i < ENTRIES && pfn < boot_info.nr_pages; i++, pfn++)
		set_pte(pte + i, make_pte(((pteval_t)pfn << PAGE_SHIFT) | PAGE_KERNEL));
}

/* Fill a table, then link it: no table is in use before it is complete. address: what its first entry maps. */
static void build_table(int level, void *table, u64 address)
{
	unsigned int i;

	if (level == 1) {
		fill_leaf(table, address);
		return;
	}
	for (i = 0; i < level_entries(level); i++) {
		u64 start = address + ((u64)i << level_shift(level));
		u64 end = start + ((u64)1 << level_shift(level)) - 1;
		void *child;

		if (!wanted(start, end))
			continue;
		child = alloc_low_page();
		build_table(level - 1, child, start);
		table_alloc(level - 1, &init_mm, virt_to_pfn(child));
		entry_set(level, (pteval_t *)table + i, pa(child) | table_flags(level));
	}
}

static u64 table_base(void)
{
#ifdef __x86_64__
	return 0xffff000000000000;	/* so that the upper half of the root comes out canonical */
#else
	return 0;
#endif
}

/* More than is needed, as an estimate is: a third is left over. */
static void find_buffer(void)
{
	u64 tables = boot_info.nr_pages / ENTRIES + ROOT_LEVEL + 2;

	pgt_buf_start = pgt_buf_end = boot_info.first_pfn;
	buffer_limit = pgt_buf_start + tables + tables / 2 + 4;
	if (buffer_limit >= boot_info.nr_pages || pa(_end) > boot_info.first_pfn << PAGE_SHIFT)
		panic("%llu pages of memory are too few", boot_info.nr_pages);
	if (boot_info.nr_pages > (AREA_BASE - KERNEL_BASE) >> PAGE_SHIFT)
		panic("%llu pages of memory are too many", boot_info.nr_pages);
	early_rw = option("map=early-rw");
	pgt_buf_top = early_rw ? pgt_buf_end : buffer_limit;
	next_pfn = buffer_limit;
	last_pfn = boot_info.nr_pages;
	if (option("livepatch")) {
		if (last_pfn < next_pfn + LIVEPATCH_FRAMES)
			panic("%llu pages of memory leave none for payloads", boot_info.nr_pages);
		last_pfn -= LIVEPATCH_FRAMES;
	}
}

/* The spare pages of the buffer become ordinary memory: the first write to one faults if it is still read-only. */
static void use_spare_pages(void)
{
	u64 pfn;

	for (pfn = pgt_buf_end; pfn < buffer_limit; pfn++) {
		memset(pfn_to_virt(pfn), 0x5a, PAGE_SIZE);
		free_page(pfn_to_virt(pfn));
	}
}

void memory_init(void)
{
	pgd_t *root;

	find_buffer();
	root = alloc_low_page();
	init_mm.pgd = root;
	AT_EITHER_SITE(pagetable_setup_start(root));
	build_table(ROOT_LEVEL, root, table_base());
	write_cr3(pa(root));
	flush_tlb_kernel();
	if (!option("pagetable_reserve=none"))
		boot_pagetable_reserve(pgt_buf_start << PAGE_SHIFT, pgt_buf_end << PAGE_SHIFT);
	use_spare_pages();
	AT_EITHER_SITE(pagetable_setup_done(root));
}

void *alloc_page(void)
{
	void *page = free_list;

	if (page) {
		free_list = *(void **)page;
		free_count--;
	} else {
		if (next_pfn == last_pfn)
			panic("out of memory");
		page = pfn_to_virt(next_pfn++);
	}
	memset(page, 0, PAGE_SIZE);
	return page;
}

void free_page(void *page)
{
	*(void **)page = free_list;
	free_list = page;
	free_count++;
}

unsigned long pages_free(void)
{
	return free_count + (unsigned long)(last_pfn - next_pfn);
}

pte_t *area_pte(unsigned long address)
{
	return walk(init_mm.pgd, address);
}

/* The lower half of the area has its pages when they are first touched. */
bool demand_fault(unsigned long address)
{
	pte_t *pte;

	if (address < AREA_BASE || address >= AREA_BASE + AREA_SIZE / 2)
		return false;
	pte = area_pte(address);
	if (!pte || (pte_val(*pte) & _PAGE_PRESENT))
		return false;
	set_pte(pte, make_pte((pteval_t)pa(alloc_page()) | PAGE_KERNEL));
	return true;
}

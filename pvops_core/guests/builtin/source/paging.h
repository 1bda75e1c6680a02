/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Page tables by level, so that one walk serves two, three and four levels: level 1 is the leaf table, ROOT_LEVEL the one that cr3
 * points at. An entry of level n points at a table of level n - 1. Every access goes through the ops that the level has.
 */
#ifndef GUEST_PAGING_H
#define GUEST_PAGING_H

#include "kernel.h"

#define _PAGE_PRESENT	0x001
#define _PAGE_RW	0x002
#define _PAGE_USER	0x004
#define _PAGE_ACCESSED	0x020
#define _PAGE_DIRTY	0x040
#define PAGE_KERNEL	(_PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED | _PAGE_DIRTY)
#define PAGE_USER	(PAGE_KERNEL | _PAGE_USER)
#define PAGE_USER_RO	(PAGE_USER & ~_PAGE_RW)
#define _PAGE_TABLE	PAGE_USER
#define PTE_PFN_MASK	((pteval_t)0x000ffffffffff000)

#if defined(__x86_64__)
#define ROOT_LEVEL	4
#define INDEX_BITS	9
#elif defined(CONFIG_X86_PAE)
#define ROOT_LEVEL	3
#define INDEX_BITS	9
#else
#define ROOT_LEVEL	2
#define INDEX_BITS	10
#endif
#define ENTRIES		(1 << INDEX_BITS)

static inline unsigned int level_shift(int level)
{
	return PAGE_SHIFT + (level - 1) * INDEX_BITS;
}

static inline unsigned int level_entries(int level)
{
#ifdef CONFIG_X86_PAE
	if (level == ROOT_LEVEL)
		return 4;
#endif
	return ENTRIES;
}

static inline unsigned int level_index(int level, unsigned long address)
{
	return (address >> level_shift(level)) & (level_entries(level) - 1);
}

static inline pteval_t entry_val(int level, const void *entry)
{
	if (level == 1)
		return pte_val(*(const pte_t *)entry);
#if defined(__x86_64__)
	if (level == 2)
		return pmd_val(*(const pmd_t *)entry);
	if (level == 3)
		return pud_val(*(const pud_t *)entry);
	return p4d_val(*(const p4d_t *)entry);
#elif defined(CONFIG_X86_PAE)
	if (level == 2)
		return pmd_val(*(const pmd_t *)entry);
	return pgd_val(*(const pgd_t *)entry);
#else
	return pgd_val(*(const pgd_t *)entry);
#endif
}

static inline void entry_set(int level, void *entry, pteval_t val)
{
	if (level == 1) {
		set_pte(entry, make_pte(val));
		return;
	}
#if defined(__x86_64__)
	if (level == 2)
		set_pmd(entry, make_pmd(val));
	else if (level == 3)
		set_pud(entry, make_pud(val));
	else
		set_p4d(entry, make_p4d(val));
#elif defined(CONFIG_X86_PAE)
	if (level == 2)
		set_pmd(entry, make_pmd(val));
	else
		set_pud(entry, (pud_t){ make_pgd(val).val });
#else
	set_pmd(entry, (pmd_t){ make_pgd(val).val });
#endif
}

/* The flags of an entry that points at a table; the top of PAE takes none but present. */
static inline pteval_t table_flags(int level)
{
#ifdef CONFIG_X86_PAE
	if (level == ROOT_LEVEL)
		return _PAGE_PRESENT;
#endif
	return _PAGE_TABLE;
}

/* A page is about to become a table of this level (below the root). */
static inline void table_alloc(int level, struct mm *mm, u64 pfn)
{
#ifdef __x86_64__
	if (level == 1)
		alloc_pte(mm, pfn);
	else if (level == 2)
		alloc_pmd(mm, pfn);
	else
		alloc_pud(mm, pfn);
#else
	if (level == 1)
		alloc_pt(mm, pfn);
	else
		alloc_pd(pfn);
#endif
}

static inline void table_release(int level, u64 pfn)
{
#ifdef __x86_64__
	if (level == 1)
		release_pte(pfn);
	else if (level == 2)
		release_pmd(pfn);
	else
		release_pud(pfn);
#else
	if (level == 1)
		release_pt(pfn);
	else
		release_pd(pfn);
#endif
}

static inline void *table_entry(int level, void *table, unsigned long address)
{
	return (pteval_t *)table + level_index(level, address);
}

/* The table that an entry points at, NULL if it is not present. */
static inline void *entry_table(int level, const void *entry)
{
	pteval_t val = entry_val(level, entry);

	return val & _PAGE_PRESENT ? pfn_to_virt((val & PTE_PFN_MASK) >> PAGE_SHIFT) : NULL;
}

/* The leaf entry of an address, NULL if a table is missing on the way. */
static inline pte_t *walk(pgd_t *root, unsigned long address)
{
	void *table = root;
	int level;

	for (level = ROOT_LEVEL; level > 1; level--) {
		table = entry_table(level, table_entry(level, table, address));
		if (!table)
			return NULL;
	}
	return table_entry(1, table, address);
}

#endif

/* SPDX-License-Identifier: GPL-2.0 */
#ifndef GUEST_EXERCISE_H
#define GUEST_EXERCISE_H

#include "paging.h"

/* The statement at two sites, both executed. */
#define TWICE(...)								\
	do {									\
		__VA_ARGS__;							\
		__VA_ARGS__;							\
		guest_report.exercised += 2;					\
	} while (0)

/* The same for what a platform may refuse with a fault. */
#define TWICE_GUARDED(...)							\
	do {									\
		if (!GUARDED(__VA_ARGS__))					\
			guest_report.refused++;					\
		if (!GUARDED(__VA_ARGS__))					\
			guest_report.refused++;					\
		guest_report.exercised += 2;					\
	} while (0)

#define LDT_ENTRIES	16
#define AREA_TEST	(AREA_BASE + 0x40000)	/* pages of the area that the exercise maps itself */

void exercise_descriptors(void);
void exercise_registers(void);
void exercise_tables(void);
void exercise_generation(void);
u64 test_word(void *page);			/* writes a pseudo-random word into a page, and gives it */

static inline pte_t mk_pte(const void *page, pteval_t flags)
{
	return make_pte((pteval_t)pa(page) | flags);
}

#endif

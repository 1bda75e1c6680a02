/* Workloads of memory: mmap, fault. */
#include "system.h"

enum { PAGE = 4096, PAGES = 16, PROT_READ = 1, PROT_WRITE = 2, MADV_DONTNEED = 4 };

/* Whether the kernel may write there for us: rt_sigprocmask stores the present mask. */
static int writable(u8 *address)
{
	return call4(SYS_rt_sigprocmask, 0, 0, (long)address, 8) != -EFAULT;
}

static wrong nothing(unsigned long rounds)
{
	(void)rounds;
	return 0;
}

/* Maps pages, writes to each, takes the right to write from half of them and gives it back, unmaps all. */
static wrong mmap_round(unsigned long number)
{
	u8 *pages = map(PAGES * PAGE), *half = pages + PAGES / 2 * PAGE;

	if ((unsigned long)pages > -4096UL)
		return "mmap failed";
	for (int page = 0; page < PAGES; page++)
		pages[page * PAGE + 8] = number + page;
	if (call3(SYS_mprotect, half, PAGES / 2 * PAGE, PROT_READ))
		return "mprotect failed";
	if (writable(half) || !writable(pages))
		return "mprotect protected the wrong pages";
	if (call3(SYS_mprotect, half, PAGES / 2 * PAGE, PROT_READ | PROT_WRITE) || !writable(half))
		return "mprotect did not give the pages back";
	for (int page = 0; page < PAGES; page++)
		if (pages[page * PAGE + 8] != (u8)(number + page))
			return "a page lost what was written to it";
	if (call2(SYS_munmap, pages, PAGES * PAGE))
		return "munmap failed";
	if (writable(pages))
		return "munmap left a page";
	value += PAGES;
	return 0;
}

/* Touches pages that have none behind them, and gives them back: one fault to read from each, for the page of zeros,
 * and one to write, for a page of its own. */
static u8 *region;

static wrong fault_ready(unsigned long rounds)
{
	(void)rounds;
	region = map(PAGES * PAGE);
	return (unsigned long)region > -4096UL ? "mmap failed" : 0;
}

static wrong fault_round(unsigned long number)
{
	for (int page = 0; page < PAGES; page++) {
		volatile u8 *byte = region + page * PAGE;

		*byte += number + page;
		if (*byte != (u8)(number + page))
			return "a fresh page is not all zeros";
	}
	if (call3(SYS_madvise, region, PAGES * PAGE, MADV_DONTNEED))
		return "madvise failed";
	value += PAGES;
	return 0;
}

static wrong fault_end(unsigned long rounds)
{
	(void)rounds;
	return call2(SYS_munmap, region, PAGES * PAGE) ? "munmap failed" : 0;
}

const struct workload memory_workloads[] = {
	{ "mmap", nothing, mmap_round, nothing, 0 },
	{ "fault", fault_ready, fault_round, fault_end, 0 },
	{ 0 },
};

// SPDX-License-Identifier: GPL-2.0
/* What the run came to. The digest holds results only: nothing that depends on the platform, on time or on patching. */
#include "kernel.h"

struct guest_report guest_report = {
	.magic = REPORT_MAGIC,
	.size = sizeof(struct guest_report),
	.digest = 0xcbf29ce484222325,
};

/* FNV-1a, eight bytes at a time. */
void digest(u64 value)
{
	int byte;

	for (byte = 0; byte < 8; byte++) {
		guest_report.digest ^= (value >> (8 * byte)) & 0xff;
		guest_report.digest *= 0x100000001b3;
	}
	guest_report.results++;
}

void report(void)
{
	const struct guest_report *r = &guest_report;

	guest_report.ticks = ticks;
	printk("guest: %u results, digest %llx\n", r->results, r->digest);
	printk("guest: %u system calls, exit codes %x %x\n", r->syscalls, r->exit_codes[0], r->exit_codes[1]);
	printk("guest: platform: %u page faults, %u ticks, %u sites, %u pokes, %u refused\n",
	       r->page_faults, r->ticks, r->sites, r->pokes, r->refused);
}

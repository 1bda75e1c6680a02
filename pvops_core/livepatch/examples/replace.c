/* SPDX-License-Identifier: GPL-2.0 */
/*
 * In the role of xen_replace_world: depends on the guest, and goes over hello and bye at once by REPLACE.
 *
 *	pvops livepatch build replace.c -o replace.livepatch --function report=replaced_report
 */
#include <livepatch.h>

int printk(const char *format, ...);

void replaced_report(void)
{
	printk("guest: platform: Replaced World\n");
}

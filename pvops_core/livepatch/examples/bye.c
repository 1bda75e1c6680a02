/* SPDX-License-Identifier: GPL-2.0 */
/*
 * In the role of xen_bye_world: stacked on hello, whose build-id it depends on.
 *
 *	pvops livepatch build bye.c -o bye.livepatch --function report=bye_report --depends BUILD_ID_OF_HELLO
 */
#include <livepatch.h>

int printk(const char *format, ...);

void bye_report(void)
{
	printk("guest: platform: Bye World\n");
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * In the role of xen_hello_world, on the built-in guest: what it prints last ends with a greeting, and a load and an
 * unload hook say when they ran.
 *
 *	pvops livepatch build hello.c -o hello.livepatch --function report=new_report
 */
#include <livepatch.h>

int printk(const char *format, ...);

LIVEPATCH_METADATA("LIVEPATCH_RULEZ=1\0role=hello");

static void loaded(void)
{
	printk("guest: platform: hello is being applied\n");
}
LIVEPATCH_LOAD_HOOK(loaded);

static void unloaded(void)
{
	printk("guest: platform: hello is being reverted\n");
}
LIVEPATCH_UNLOAD_HOOK(unloaded);

void new_report(void)
{
	printk("guest: platform: Hello World\n");
}

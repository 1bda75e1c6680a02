/* SPDX-License-Identifier: GPL-2.0 */
/*
 * In the role of xen_prepost_hooks_fail: does not let itself be applied.
 *
 *	pvops livepatch build veto.c -o veto.livepatch --function report=veto_report
 */
#include <livepatch.h>

#define EPERM 1

int printk(const char *format, ...);

static int veto_never(struct livepatch_payload *payload)
{
	printk("guest: platform: not with me\n");
	return -EPERM;
}
LIVEPATCH_PREAPPLY_HOOK(veto_never);

void veto_report(void)
{
}

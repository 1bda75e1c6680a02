/* SPDX-License-Identifier: GPL-2.0 */
/*
 * In the role of xen_action_hooks_noapply: its own apply fails, and the state stays CHECKED.
 *
 *	pvops livepatch build noapply.c -o noapply.livepatch --function report=noapply_report
 */
#include <livepatch.h>

#define EINVAL 22

int printk(const char *format, ...);

static int noapply_apply(struct livepatch_payload *payload)
{
	printk("guest: platform: will not apply\n");
	return -EINVAL;
}
LIVEPATCH_APPLY_HOOK(noapply_apply);

void noapply_report(void)
{
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * In the role of xen_action_hooks_nofunc: replaces nothing, and is applied and reverted all the same.
 *
 *	pvops livepatch build nofunc.c -o nofunc.livepatch
 */
#include <livepatch.h>

int printk(const char *format, ...);

static int nofunc_apply(struct livepatch_payload *payload)
{
	printk("guest: platform: nothing to apply\n");
	return 0;
}
LIVEPATCH_APPLY_HOOK(nofunc_apply);

static int nofunc_revert(struct livepatch_payload *payload)
{
	printk("guest: platform: nothing to revert\n");
	return 0;
}
LIVEPATCH_REVERT_HOOK(nofunc_revert);

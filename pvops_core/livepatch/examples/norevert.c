/* SPDX-License-Identifier: GPL-2.0 */
/*
 * In the role of xen_action_hooks_norevert: its own revert fails, and the state stays APPLIED; the hook that comes after
 * sees how it went.
 *
 *	pvops livepatch build norevert.c -o norevert.livepatch --function report=norevert_report
 */
#include <livepatch.h>

#define EINVAL 22

int printk(const char *format, ...);

static int norevert_revert(struct livepatch_payload *payload)
{
	printk("guest: platform: will not revert\n");
	return -EINVAL;
}
LIVEPATCH_REVERT_HOOK(norevert_revert);

static void norevert_after(struct livepatch_payload *payload)
{
	printk(payload->rc == -EINVAL ? "guest: platform: still applied\n" : "guest: platform: reverted after all\n");
}
LIVEPATCH_POSTREVERT_HOOK(norevert_after);

void norevert_report(void)
{
	printk("guest: platform: Norevert World\n");
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * In the role of xen_prepost_hooks: says before and after each action that it is there, and how the action went.
 *
 *	pvops livepatch build prepost.c -o prepost.livepatch --function report=prepost_report
 */
#include <livepatch.h>

int printk(const char *format, ...);

static int prepost_before_apply(struct livepatch_payload *payload)
{
	printk("guest: platform: about to apply\n");
	return 0;
}
LIVEPATCH_PREAPPLY_HOOK(prepost_before_apply);

static void prepost_after_apply(struct livepatch_payload *payload)
{
	printk(payload->rc ? "guest: platform: not applied\n" : "guest: platform: applied\n");
}
LIVEPATCH_POSTAPPLY_HOOK(prepost_after_apply);

static int prepost_before_revert(struct livepatch_payload *payload)
{
	printk("guest: platform: about to revert\n");
	return 0;
}
LIVEPATCH_PREREVERT_HOOK(prepost_before_revert);

static void prepost_after_revert(struct livepatch_payload *payload)
{
	printk(payload->rc ? "guest: platform: not reverted\n" : "guest: platform: reverted\n");
}
LIVEPATCH_POSTREVERT_HOOK(prepost_after_revert);

void prepost_report(void)
{
	printk("guest: platform: Prepost World\n");
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * In the role of xen_action_hooks: the actions are its own, and only mark that they were done.
 *
 *	pvops livepatch build action.c -o action.livepatch --function report=action_report
 */
#include <livepatch.h>

int printk(const char *format, ...);

static void action_mark(struct livepatch_payload *payload, unsigned char applied)
{
	unsigned int i;

	for (i = 0; i < payload->nfuncs; i++)
		payload->fstate[i].applied = applied;
}

static int action_apply(struct livepatch_payload *payload)
{
	action_mark(payload, 1);
	printk("guest: platform: marked as applied\n");
	return 0;
}
LIVEPATCH_APPLY_HOOK(action_apply);

static int action_revert(struct livepatch_payload *payload)
{
	action_mark(payload, 0);
	printk("guest: platform: marked as reverted\n");
	return 0;
}
LIVEPATCH_REVERT_HOOK(action_revert);

void action_report(void)
{
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * In the role of xen_action_hooks_marker: every hook that can stand beside the default actions, to see their order.
 *
 *	pvops livepatch build marker.c -o marker.livepatch --function report=marker_report
 */
#include <livepatch.h>

int printk(const char *format, ...);

#define SAYS(phase, text)						\
	static int phase##_says(struct livepatch_payload *payload)	\
	{								\
		printk("guest: platform: marker " text "\n");		\
		return 0;						\
	}								\
	LIVEPATCH_HOOK(phase, phase##_says)

SAYS(preapply, "preapply");
SAYS(load, "load");
SAYS(postapply, "postapply");
SAYS(prerevert, "prerevert");
SAYS(unload, "unload");
SAYS(postrevert, "postrevert");

void marker_report(void)
{
}

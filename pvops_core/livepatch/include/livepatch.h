/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a payload in C needs: marks for its hooks, and what hooks are told. `pvops livepatch build` has this folder on the
 * compiler's path; which functions are replaced is said on its command line.
 */
#ifndef PVOPS_LIVEPATCH_H
#define PVOPS_LIVEPATCH_H

struct livepatch_func;			/* an entry of .livepatch.funcs, as in Xen's public/sysctl.h */

struct livepatch_fstate {		/* one for each function */
	unsigned char patch_offset;
	unsigned char applied;		/* an action hook sets it to what it made true */
	unsigned char insn_buffer[31];
};

struct livepatch_payload {
	const char *name;
	unsigned int state;		/* 1 checked, 2 applied */
	int rc;				/* 0, or a negative errno: how the last action went */
	unsigned int nfuncs;
	unsigned int reserved;
	const struct livepatch_func *funcs;
	struct livepatch_fstate *fstate;
};

#define LIVEPATCH_HOOK(phase, function) \
	const void *const livepatch_hook_##phase##_##function \
	__attribute__((__used__, __section__(".livepatch.hooks." #phase))) = (const void *)(function)

#define LIVEPATCH_LOAD_HOOK(function)		LIVEPATCH_HOOK(load, function)		/* void f(void) */
#define LIVEPATCH_UNLOAD_HOOK(function)		LIVEPATCH_HOOK(unload, function)	/* void f(void) */
#define LIVEPATCH_PREAPPLY_HOOK(function)	LIVEPATCH_HOOK(preapply, function)	/* int f(payload): not 0 vetoes */
#define LIVEPATCH_POSTAPPLY_HOOK(function)	LIVEPATCH_HOOK(postapply, function)	/* void f(payload) */
#define LIVEPATCH_PREREVERT_HOOK(function)	LIVEPATCH_HOOK(prerevert, function)	/* int f(payload): not 0 vetoes */
#define LIVEPATCH_POSTREVERT_HOOK(function)	LIVEPATCH_HOOK(postrevert, function)	/* void f(payload) */
#define LIVEPATCH_APPLY_HOOK(function)		LIVEPATCH_HOOK(apply, function)		/* int f(payload): instead of applying */
#define LIVEPATCH_REVERT_HOOK(function)		LIVEPATCH_HOOK(revert, function)	/* int f(payload): instead of reverting */

#define LIVEPATCH_METADATA(text) \
	static const char livepatch_metadata[] __attribute__((__used__, __section__(".modinfo"))) = text

#endif

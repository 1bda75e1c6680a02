/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a platform tells the guest. The platform puts one page with this struct after the image and enters the guest with its
 * virtual address in rsi / esi. pvops_core/guests/bootinfo.py packs it; the .boot_info_layout section lets a test compare both.
 */
#ifndef GUEST_BOOT_INFO_H
#define GUEST_BOOT_INFO_H

#include "types.h"

#define BOOT_INFO_MAGIC		0x494f5650	/* "PVOI" */
#define BOOT_INFO_VERSION	1
#define FEATURE_WORDS		21

enum platform_kind {
	PLATFORM_BARE = 0,
	PLATFORM_XEN = 1,
	PLATFORM_LGUEST = 2,
};

struct boot_info {
	u32 magic;
	u32 version;
	u32 size;			/* of this struct */
	u32 platform;			/* enum platform_kind: which drivers to use */
	u64 nr_pages;			/* of RAM, from frame 0 on, all mapped at KERNEL_BASE */
	u32 ncpus;
	u32 tick_hz;			/* timer interrupts a second to ask for */
	u64 root;			/* virtual address of the page-table root in force at entry */
	u64 table_pfn;			/* first frame of the platform's page tables */
	u64 table_frames;		/* and their number */
	u64 first_pfn;			/* first frame that is free: image, boot_info and all else lie below */
	u64 seed;			/* of the run; part of nothing but pseudo-random test data */
	u64 start_info;			/* Xen: virtual address of start_info */
	u64 shared_info;		/* Xen: machine address of shared_info */
	u64 mfn_list;			/* Xen: virtual address of the pfn -> mfn list */
	u32 features[FEATURE_WORDS];	/* CPU feature words as alternatives number them: feature / 32, feature % 32 */
	u32 reserved;
	char command_line[256];
};

extern struct boot_info boot_info;	/* a copy: the platform's page is free once the guest runs */

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/* The page that an lguest guest shares with its host (linux/lguest.h of 2.6.23 and 2.6.24), and the hypercalls used here. */
#ifndef GUEST_LGUEST_H
#define GUEST_LGUEST_H

#include "types.h"

#define LHCALL_LGUEST_INIT	1
#define LHCALL_CRASH		2
#define LHCALL_SET_CLOCKEVENT	9
#define LHCALL_SEND_DMA		13
#define LHCALL_NOTIFY		17
#define LHCALL_RING_SIZE	64

#define CONSOLE_KEY		0
#define LGUEST_MAX_DMA_SECTIONS	16

struct lguest_dma {
	u32 used_len;
	u32 addr[LGUEST_MAX_DMA_SECTIONS];	/* physical; a section lies in one page */
	u16 len[LGUEST_MAX_DMA_SECTIONS];
};

struct lguest_data {
	u32 irq_enabled;
	u32 blocked_interrupts[1];
	u32 cr2;
	u32 time_sec, time_nsec;
	u8 hcall_status[LHCALL_RING_SIZE];
	struct {
		u32 words[4];
	} hcalls[LHCALL_RING_SIZE];
	u32 reserve_mem;
#ifdef LAYOUT_2_6_23
	u16 guestid;
	u32 tsc_khz;
	u32 noirq_start, noirq_end;
#else
	u32 tsc_khz;
	u32 pgdir;
	u32 noirq_start, noirq_end;
	u32 kernel_address;
	u32 syscall_vec;
#endif
};

extern struct lguest_data lguest_data;

#endif

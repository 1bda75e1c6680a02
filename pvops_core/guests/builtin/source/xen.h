/* SPDX-License-Identifier: GPL-2.0 */
/* The part of Xen's PV interface that the drivers use (xen/include/public). */
#ifndef GUEST_XEN_H
#define GUEST_XEN_H

#include "types.h"

#define HYPERCALL_UPDATE_VA_MAPPING	14
#define HYPERCALL_CONSOLE_IO		18
#define HYPERCALL_VCPU_OP		24
#define HYPERCALL_SCHED_OP		29
#define HYPERCALL_EVENT_CHANNEL_OP	32

#define UVMF_INVLPG			2
#define CONSOLEIO_WRITE			0
#define VCPUOP_INITIALISE		0
#define VCPUOP_UP			1
#define VCPUOP_STOP_PERIODIC_TIMER	7
#define VCPUOP_SET_SINGLESHOT_TIMER	8
#define VCPUOP_REGISTER_VCPU_INFO	10
#define SCHEDOP_YIELD			0
#define SCHEDOP_SHUTDOWN		2
#define SHUTDOWN_POWEROFF		0
#define SHUTDOWN_CRASH			3
#define EVTCHNOP_BIND_VIRQ		1
#define VIRQ_TIMER			0

struct vcpu_time_info {
	u32 version, pad;
	u64 tsc_timestamp, system_time;
	u32 tsc_to_system_mul;
	signed char tsc_shift;
	u8 flags, pad1[2];
};

struct vcpu_info {
	u8 upcall_pending, upcall_mask;
	unsigned long pending_sel;
#ifdef __x86_64__
	unsigned long cr2, pad;
#else
	unsigned long cr2, pad[5];
#endif
	struct vcpu_time_info time;
};

#define XEN_VCPUS		32
#define EVENT_WORDS		(8 * sizeof(unsigned long))

struct shared_info {
	struct vcpu_info vcpu_info[XEN_VCPUS];
	unsigned long evtchn_pending[EVENT_WORDS];
	unsigned long evtchn_mask[EVENT_WORDS];
};

/* vcpu_guest_context, by offset: most of it stays zero. */
#ifdef __x86_64__
#define CONTEXT_SIZE		5168
#define CONTEXT_FLAGS		512
#define CONTEXT_SI		(520 + 104)
#define CONTEXT_IP		(520 + 128)
#define CONTEXT_CS		(520 + 136)
#define CONTEXT_REGFLAGS	(520 + 144)
#define CONTEXT_SP		(520 + 152)
#define CONTEXT_SS		(520 + 160)
#define CONTEXT_DS		(520 + 176)
#define CONTEXT_ES		(520 + 168)
#define CONTEXT_GDT_FRAMES	4832
#define CONTEXT_GDT_ENTS	4960
#define CONTEXT_KERNEL_SS	4968
#define CONTEXT_KERNEL_SP	4976
#define CONTEXT_CR3		(4984 + 3 * 8)
#define CONTEXT_EVENT		5112
#define CONTEXT_FAILSAFE	5120
#define CONTEXT_SYSCALL		5128
#define FLAT_KERNEL_CS		0xe033
#define FLAT_KERNEL_SS		0xe02b
#else
#define CONTEXT_SIZE		2800
#define CONTEXT_FLAGS		512
#define CONTEXT_SI		(516 + 12)
#define CONTEXT_IP		(516 + 32)
#define CONTEXT_CS		(516 + 36)
#define CONTEXT_REGFLAGS	(516 + 40)
#define CONTEXT_SP		(516 + 44)
#define CONTEXT_SS		(516 + 48)
#define CONTEXT_DS		(516 + 56)
#define CONTEXT_ES		(516 + 52)
#define CONTEXT_GDT_FRAMES	2640
#define CONTEXT_GDT_ENTS	2704
#define CONTEXT_KERNEL_SS	2708
#define CONTEXT_KERNEL_SP	2712
#define CONTEXT_CR3		(2716 + 3 * 4)
#define CONTEXT_EVENT_CS	2780
#define CONTEXT_EVENT		2784
#define CONTEXT_FAILSAFE_CS	2788
#define CONTEXT_FAILSAFE	2792
#endif
#define VGCF_IN_KERNEL		4

extern struct vcpu_info xen_vcpu_info[MAX_CPUS];

#endif

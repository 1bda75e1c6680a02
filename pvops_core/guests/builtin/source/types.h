/* SPDX-License-Identifier: GPL-2.0 */
/* Basic types, and constants that C, assembly and the linker script share. */
#ifndef GUEST_TYPES_H
#define GUEST_TYPES_H

#define PAGE_SHIFT		12
#define PAGE_SIZE		4096
#define STACK_SIZE		8192		/* a kernel stack, aligned to its size; its task lies at the bottom */
#define MAX_CPUS		8
#define LOAD_PHYSICAL		0x100000
#define NR_GATES		1024
#define GATE_SIZE		8

#ifdef __x86_64__
#define KERNEL_BASE		0xffffffff80000000
#define USER_BASE		0x400000
#else
#define KERNEL_BASE		0xc0000000
#define USER_BASE		0x08048000
#endif

/* One leaf table's worth of addresses above RAM: pages on demand from its bottom, the fixmap from its top. */
#define AREA_BASE		(KERNEL_BASE + 0x20000000)
#define AREA_SIZE		0x200000
#define FIXADDR_TOP		(AREA_BASE + AREA_SIZE - PAGE_SIZE)

#ifndef __ASSEMBLER__
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef __SIZE_TYPE__ size_t;
typedef _Bool bool;

#define NULL			((void *)0)
#define true			1
#define false			0
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define offsetof(type, member)	__builtin_offsetof(type, member)
#define __packed		__attribute__((packed))
#define __page_aligned		__attribute__((aligned(PAGE_SIZE)))
#define __noreturn		__attribute__((noreturn))
#define noinline		__attribute__((noinline))
#define barrier()		asm volatile("" ::: "memory")
#define READ_ONCE(x)		(*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v)	(*(volatile __typeof__(x) *)&(x) = (v))
#endif
#endif

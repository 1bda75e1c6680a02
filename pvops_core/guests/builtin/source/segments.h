/* SPDX-License-Identifier: GPL-2.0 */
/* The GDT of each word size, with Linux's places, and the vectors. */
#ifndef GUEST_SEGMENTS_H
#define GUEST_SEGMENTS_H

#ifdef __x86_64__
#define GDT_ENTRY_KERNEL_CS	2
#define GDT_ENTRY_KERNEL_DS	3
#define GDT_ENTRY_USER_DS	5
#define GDT_ENTRY_USER_CS	6
#define GDT_ENTRY_TSS		8
#define GDT_ENTRY_LDT		10
#define GDT_ENTRY_TLS_MIN	12
#define GDT_ENTRIES		16
#else
#define GDT_ENTRY_TLS_MIN	6
#define GDT_ENTRY_KERNEL_CS	12
#define GDT_ENTRY_KERNEL_DS	13
#define GDT_ENTRY_USER_CS	14
#define GDT_ENTRY_USER_DS	15
#define GDT_ENTRY_TSS		16
#define GDT_ENTRY_LDT		17
#define GDT_ENTRIES		32
#endif

#define KERNEL_CS		(GDT_ENTRY_KERNEL_CS * 8)
#define KERNEL_DS		(GDT_ENTRY_KERNEL_DS * 8)
#define USER_CS			(GDT_ENTRY_USER_CS * 8 + 3)
#define USER_DS			(GDT_ENTRY_USER_DS * 8 + 3)
#define USER_TLS		(GDT_ENTRY_TLS_MIN * 8 + 3)

#define NR_EXCEPTIONS		20
#define VECTOR_INVALID_OP	6
#define VECTOR_NOT_AVAILABLE	7
#define VECTOR_PROTECTION	13
#define VECTOR_PAGE_FAULT	14
#define VECTOR_IRQ0		0x20
#define NR_IRQS			16
#define VECTOR_SYSCALL		0x80
#define VECTOR_XEN_UPCALL	0xf3
#define NR_VECTORS		256

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/* Structures that ops receive pointers to. offsets.c exports the offsets of those fields that a backend may need, as symbols. */
#ifndef GUEST_STRUCTS_H
#define GUEST_STRUCTS_H

#include "types.h"

#define X86_EFLAGS_FIXED	0x0002
#define X86_EFLAGS_IF		0x0200
#define X86_EFLAGS_IOPL		0x3000
#define X86_CR0_TS		0x0008

#if defined(__x86_64__) || defined(CONFIG_X86_PAE)
typedef u64 pteval_t;
#else
typedef u32 pteval_t;
#endif
typedef struct { pteval_t val; } pte_t;
typedef struct { pteval_t val; } pmd_t;
typedef struct { pteval_t val; } pud_t;
typedef struct { pteval_t val; } p4d_t;
typedef struct { pteval_t val; } pgd_t;

struct desc_ptr {
	u16 size;
	unsigned long address;
} __packed;

struct desc_struct {
	u32 low, high;
};

struct gate_struct {
	u32 low, high;
#ifdef __x86_64__
	u32 offset_high, reserved;
#endif
};

#define NR_TLS			3
#define IO_BITMAP_BYTES		128		/* ports 0 to 0x3ff */

struct thread_struct {
	struct desc_struct tls_array[NR_TLS];
	unsigned long sp0;			/* top of the kernel stack (esp0) */
	unsigned long sysenter_cs;
	unsigned long sp;			/* where the task was switched away from */
	unsigned long iopl;
};

struct tss_struct {
#ifdef __x86_64__
	u32 reserved1;
	u64 sp0, sp1, sp2;
	u64 reserved2;
	u64 ist[7];
	u32 reserved3, reserved4;
	u16 reserved5;
	u16 io_bitmap_base;
#else
	u32 back_link;
	u32 sp0, ss0, sp1, ss1, sp2, ss2;
	u32 cr3, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, fs, gs, ldt;
	u16 trace, io_bitmap_base;
#endif
	u8 io_bitmap[IO_BITMAP_BYTES + 1];
} __packed;

struct mm {
	pgd_t *pgd;
	pgd_t *user_pgd;			/* 64-bit: a zeroed page that a backend may use for user mode's own top level */
	unsigned long brk;
};

struct vma {
	struct mm *vm_mm;
	unsigned long vm_start, vm_end;
};

#define MAX_GATHERED		32

/* tlb_remove_table appends to it; tlb_finish frees what it holds. */
struct mmu_gather {
	struct mm *mm;
	unsigned long nr;
	void *tables[MAX_GATHERED];
};

struct flush_tlb_info {
	struct mm *mm;
	unsigned long start, end;
	u64 new_tlb_gen;
	u32 initiating_cpu;
	u8 stride_shift, freed_tables;
};

struct task;

#endif

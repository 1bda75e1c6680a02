/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Annotated calls in the shapes of Linux 2.6.23 and 2.6.24, i386. C sites are the six bytes of `call *slot`; the interrupt-flag ops
 * save ecx and edx themselves (ten bytes, only eax may be destroyed) so that they can stand anywhere. Assembly's shapes are below.
 */
#ifndef GUEST_PARAVIRT_32_H
#define GUEST_PARAVIRT_32_H

#include "layout.h"
#include "structs.h"

#define CLBR_NONE	0
#define CLBR_EAX	1
#define CLBR_ECX	2
#define CLBR_EDX	4
#define CLBR_ANY	7

#define PV_ANNOTATE(insns, clobber)						\
	"771:\n\t" insns "\n772:\n\t"						\
	".pushsection .parainstructions,\"a\"\n\t"				\
	".long 771b\n\t.byte %c[typenum]\n\t.byte 772b-771b\n\t.short " #clobber "\n\t"	\
	".popsection\n\t"
#define PV_SITE		PV_ANNOTATE("call *%c[opptr]", 7)
#define PV_IRQ_SITE	PV_ANNOTATE("pushl %%ecx; pushl %%edx; call *%c[opptr]; popl %%edx; popl %%ecx", 1)

#define PV_OPERANDS(group, op)							\
	[typenum] "i" (PV_TYPE(group, op)), [opptr] "i" (&PV_SLOT(group, op))

/* regparm(3): eax, edx, ecx, then words pushed outside the annotated part. */
#define PV_CALL_CODE(before, after, group, op, ...) ({				\
	u32 __ax, __dx, __cx;							\
	asm volatile(before PV_SITE after					\
		     : "=a" (__ax), "=d" (__dx), "=c" (__cx)			\
		     : PV_OPERANDS(group, op), ##__VA_ARGS__ : "memory", "cc");	\
	((u64)__dx << 32) | __ax; })
#define PV_CALL0(g, op)			PV_CALL_CODE("", "", g, op)
#define PV_CALL1(g, op, a)		PV_CALL_CODE("", "", g, op, "a" (a))
#define PV_CALL2(g, op, a, b)		PV_CALL_CODE("", "", g, op, "a" (a), "d" (b))
#define PV_CALL3(g, op, a, b, c)	PV_CALL_CODE("", "", g, op, "a" (a), "d" (b), "c" (c))
#define PV_CALL4(g, op, a, b, c, d) \
	PV_CALL_CODE("pushl %[fourth]\n\t", "lea 4(%%esp), %%esp", g, op, "a" (a), "d" (b), "c" (c), [fourth] "ri" (d))
#define PV_CALL5(g, op, a, b, c, d, e) \
	PV_CALL_CODE("pushl %[fifth]\n\tpushl %[fourth]\n\t", "lea 8(%%esp), %%esp", g, op,	\
		     "a" (a), "d" (b), "c" (c), [fourth] "ri" (d), [fifth] "ri" (e))

#define PV_INLINE	static inline __attribute__((always_inline))
#define PV_VOID0(g, op)				PV_INLINE void op(void) { PV_CALL0(g, op); }
#define PV_VOID1(g, op, T1)			PV_INLINE void op(T1 a) { PV_CALL1(g, op, a); }
#define PV_VOID2(g, op, T1, T2)			PV_INLINE void op(T1 a, T2 b) { PV_CALL2(g, op, a, b); }
#define PV_VOID3(g, op, T1, T2, T3)		PV_INLINE void op(T1 a, T2 b, T3 c) { PV_CALL3(g, op, a, b, c); }
#define PV_VOID4(g, op, T1, T2, T3, T4)		PV_INLINE void op(T1 a, T2 b, T3 c, T4 d) { PV_CALL4(g, op, a, b, c, d); }
#define PV_FUNC0(R, g, op)			PV_INLINE R op(void) { return (R)PV_CALL0(g, op); }
#define PV_FUNC1(R, g, op, T1)			PV_INLINE R op(T1 a) { return (R)PV_CALL1(g, op, a); }
#define PV_FUNC2(R, g, op, T1, T2)		PV_INLINE R op(T1 a, T2 b) { return (R)PV_CALL2(g, op, a, b); }
#define PV_FUNC3(R, g, op, T1, T2, T3)		PV_INLINE R op(T1 a, T2 b, T3 c) { return (R)PV_CALL3(g, op, a, b, c); }

/* Made of the catalogue in layout.h: name, group, result and arguments. */
#define PV_OP(op)	PV_OF_##op

PV_INLINE unsigned int boot_patch(u8 type, u16 clobbers, void *insnbuf, unsigned long addr, unsigned int len)
{
	return PV_CALL5(init, patch, (u32)type, (u32)clobbers, insnbuf, addr, len);
}
PV_OP(arch_setup)
PV_OP(memory_setup)
PV_OP(post_allocator_init)
PV_OP(banner)

PV_OP(time_init)
PV_OP(get_wallclock)
PV_OP(set_wallclock)
PV_OP(sched_clock)
PV_OP(get_cpu_khz)

PV_OP(get_debugreg)
PV_OP(set_debugreg)
PV_OP(clts)
PV_OP(read_cr0)
PV_OP(write_cr0)
PV_OP(read_cr4_safe)
PV_OP(read_cr4)
PV_OP(write_cr4)
PV_OP(load_tr_desc)
PV_OP(load_gdt)
PV_OP(load_idt)
PV_OP(store_gdt)
PV_OP(store_idt)
PV_OP(set_ldt)
PV_OP(store_tr)
PV_OP(load_tls)
PV_OP(write_ldt_entry)
PV_OP(write_gdt_entry)
PV_OP(write_idt_entry)
PV_OP(load_esp0)
PV_OP(set_iopl_mask)
PV_OP(wbinvd)
PV_OP(io_delay)
PV_OP(cpuid)
PV_OP(read_msr)
PV_OP(write_msr)
PV_OP(read_tsc)
PV_OP(read_pmc)

PV_OP(init_IRQ)
PV_OP(safe_halt)
PV_OP(halt)
PV_INLINE u32 save_fl(void)
{
	u32 flags;

	asm volatile(PV_IRQ_SITE : "=a" (flags) : PV_OPERANDS(irq, save_fl) : "memory", "cc");
	return flags;
}
PV_INLINE void restore_fl(u32 flags)
{
	asm volatile(PV_IRQ_SITE : "=a" (flags) : "0" (flags), PV_OPERANDS(irq, restore_fl) : "memory", "cc");
}
PV_INLINE void irq_disable(void)
{
	asm volatile(PV_IRQ_SITE : : PV_OPERANDS(irq, irq_disable) : "memory", "eax", "cc");
}
PV_INLINE void irq_enable(void)
{
	asm volatile(PV_IRQ_SITE : : PV_OPERANDS(irq, irq_enable) : "memory", "eax", "cc");
}

PV_OP(apic_write)
PV_OP(apic_write_atomic)
PV_OP(apic_read)
PV_OP(setup_boot_clock)
PV_OP(setup_secondary_clock)
PV_OP(startup_ipi_hook)

PV_OP(pagetable_setup_start)
PV_OP(pagetable_setup_done)
PV_OP(read_cr2)
PV_OP(write_cr2)
PV_OP(read_cr3)
PV_OP(write_cr3)
PV_OP(activate_mm)
PV_OP(dup_mmap)
PV_OP(exit_mmap)
PV_OP(flush_tlb_user)
PV_OP(flush_tlb_kernel)
PV_OP(flush_tlb_single)
PV_OP(flush_tlb_others)
PV_OP(alloc_pt)
PV_OP(alloc_pd)
PV_OP(alloc_pd_clone)
PV_OP(release_pt)
PV_OP(release_pd)
PV_OP(pte_update)
PV_OP(pte_update_defer)

#ifdef CONFIG_X86_PAE
#define PV_SET(name)								\
	PV_INLINE void set_##name(name##_t *p, name##_t e)			\
	{									\
		PV_CALL3(mmu, set_##name, p, (u32)e.val, (u32)(e.val >> 32));	\
	}
#define PV_SET_AT(name)								\
	PV_INLINE void name(struct mm *mm, u32 addr, pte_t *p, pte_t e)		\
	{									\
		PV_CALL5(mmu, name, mm, addr, p, (u32)e.val, (u32)(e.val >> 32));	\
	}
#define PV_CONVERT_ENTRY(name)							\
	PV_INLINE u64 name##_val(name##_t e) { return PV_CALL2(mmu, name##_val, (u32)e.val, (u32)(e.val >> 32)); }	\
	PV_INLINE name##_t make_##name(u64 val)					\
	{									\
		return (name##_t){ PV_CALL2(mmu, make_##name, (u32)val, (u32)(val >> 32)) };	\
	}

PV_SET_AT(set_pte_present)
PV_CONVERT_ENTRY(pmd)
PV_SET(pud)
PV_INLINE void set_pte_atomic(pte_t *p, pte_t e)
{
	PV_CALL3(mmu, set_pte_atomic, p, (u32)e.val, (u32)(e.val >> 32));
}
PV_OP(pte_clear)
PV_OP(pmd_clear)
#else
#define PV_SET(name)								\
	PV_INLINE void set_##name(name##_t *p, name##_t e) { PV_CALL2(mmu, set_##name, p, e.val); }
#define PV_SET_AT(name)								\
	PV_INLINE void name(struct mm *mm, u32 addr, pte_t *p, pte_t e) { PV_CALL4(mmu, name, mm, addr, p, e.val); }
#define PV_CONVERT_ENTRY(name)							\
	PV_INLINE u32 name##_val(name##_t e) { return PV_CALL1(mmu, name##_val, e.val); }	\
	PV_INLINE name##_t make_##name(u32 val) { return (name##_t){ PV_CALL1(mmu, make_##name, val) }; }
#endif
PV_SET(pte)
PV_SET(pmd)
PV_SET_AT(set_pte_at)
PV_CONVERT_ENTRY(pte)
PV_CONVERT_ENTRY(pgd)

#ifdef LAYOUT_2_6_23
enum paravirt_lazy_mode {
	PARAVIRT_LAZY_NONE = 0,
	PARAVIRT_LAZY_MMU = 1,
	PARAVIRT_LAZY_CPU = 2,
	PARAVIRT_LAZY_FLUSH = 3,
};
PV_INLINE void set_lazy_mode(enum paravirt_lazy_mode mode) { PV_CALL1(mmu, set_lazy_mode, mode); }
PV_INLINE void mmu_lazy_mode_enter(void) { set_lazy_mode(PARAVIRT_LAZY_MMU); }
PV_INLINE void mmu_lazy_mode_leave(void) { set_lazy_mode(PARAVIRT_LAZY_NONE); }
PV_INLINE void cpu_lazy_mode_enter(void) { set_lazy_mode(PARAVIRT_LAZY_CPU); }
PV_INLINE void cpu_lazy_mode_leave(void) { set_lazy_mode(PARAVIRT_LAZY_NONE); }
#else
PV_INLINE void mmu_lazy_mode_enter(void) { PV_CALL0(mmu, lazy_mode.enter); }
PV_INLINE void mmu_lazy_mode_leave(void) { PV_CALL0(mmu, lazy_mode.leave); }
PV_INLINE void cpu_lazy_mode_enter(void) { PV_CALL0(cpu, lazy_mode.enter); }
PV_INLINE void cpu_lazy_mode_leave(void) { PV_CALL0(cpu, lazy_mode.leave); }
#endif

PV_INLINE void flush_tlb_page(unsigned long addr) { flush_tlb_single(addr); }

/* Outside the table: a plain indirect call, never patched. */
#define boot_pagetable_reserve	((void (*)(u64, u64))boot_ops.pagetable_reserve)

#endif

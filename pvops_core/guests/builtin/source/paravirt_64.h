/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Annotated calls in the shapes of Linux 6.1, x86_64: every site is the six bytes of `call *slot(%rip)`. Sites that bare metal can
 * do without a call are ALTERNATIVEs as well, with the feature inverted.
 */
#ifndef GUEST_PARAVIRT_64_H
#define GUEST_PARAVIRT_64_H

#include "layout.h"
#include "alternative.h"
#include "structs.h"

#define PV_SITE									\
	"771:\n\tcall *%c[opptr](%%rip)\n772:\n\t"				\
	".pushsection .parainstructions,\"a\"\n\t"				\
	".balign 8\n\t.quad 771b\n\t.byte %c[typenum]\n\t.byte 772b-771b\n\t.balign 8\n\t"	\
	".popsection\n\t"

#define PV_OPERANDS(group, op)							\
	[typenum] "i" (PV_TYPE(group, op)), [opptr] "i" (&PV_SLOT(group, op))

/* A C function of up to four arguments: all caller-saved registers are lost. */
#define PV_CALL_CODE(code, group, op, ...) ({					\
	unsigned long __ax, __di, __si, __dx, __cx;				\
	asm volatile(code							\
		     : "=a" (__ax), "=D" (__di), "=S" (__si), "=d" (__dx), "=c" (__cx)	\
		     : PV_OPERANDS(group, op), ##__VA_ARGS__			\
		     : "memory", "cc", "r8", "r9", "r10", "r11");		\
	__ax; })
#define PV_CALL0(g, op)			PV_CALL_CODE(PV_SITE, g, op)
#define PV_CALL1(g, op, a)		PV_CALL_CODE(PV_SITE, g, op, "D" ((unsigned long)(a)))
#define PV_CALL2(g, op, a, b)		PV_CALL_CODE(PV_SITE, g, op, "D" ((unsigned long)(a)), "S" ((unsigned long)(b)))
#define PV_CALL3(g, op, a, b, c)	PV_CALL_CODE(PV_SITE, g, op, "D" ((unsigned long)(a)), \
						     "S" ((unsigned long)(b)), "d" ((unsigned long)(c)))
#define PV_CALL4(g, op, a, b, c, d)	PV_CALL_CODE(PV_SITE, g, op, "D" ((unsigned long)(a)), \
						     "S" ((unsigned long)(b)), "d" ((unsigned long)(c)), "c" ((unsigned long)(d)))
#define PV_ALT0(g, op, alt, feature) \
	PV_CALL_CODE(ALTERNATIVE(PV_SITE, alt, ALT_NOT(feature)), g, op)
#define PV_ALT1(g, op, alt, feature, a) \
	PV_CALL_CODE(ALTERNATIVE(PV_SITE, alt, ALT_NOT(feature)), g, op, "D" ((unsigned long)(a)))

/* A callee-save op: only rax is lost. */
#define PV_CALLEE(code, group, op, ...) ({					\
	unsigned long __ax;							\
	asm volatile(code : "=a" (__ax)						\
		     : PV_OPERANDS(group, op), ##__VA_ARGS__ : "memory", "cc");	\
	__ax; })
#define PV_CALLEE0(g, op, alt, feature) \
	PV_CALLEE(ALTERNATIVE(PV_SITE, alt, ALT_NOT(feature)), g, op)
#define PV_CALLEE1(g, op, alt, feature, a) \
	PV_CALLEE(ALTERNATIVE(PV_SITE, alt, ALT_NOT(feature)), g, op, "D" ((unsigned long)(a)))

#define PV_INLINE	static inline __attribute__((always_inline))
#define PV_VOID0(g, op)						PV_INLINE void op(void) { PV_CALL0(g, op); }
#define PV_VOID1(g, op, T1)					PV_INLINE void op(T1 a) { PV_CALL1(g, op, a); }
#define PV_VOID2(g, op, T1, T2)					PV_INLINE void op(T1 a, T2 b) { PV_CALL2(g, op, a, b); }
#define PV_VOID3(g, op, T1, T2, T3)				PV_INLINE void op(T1 a, T2 b, T3 c) { PV_CALL3(g, op, a, b, c); }
#define PV_VOID4(g, op, T1, T2, T3, T4)				PV_INLINE void op(T1 a, T2 b, T3 c, T4 d) { PV_CALL4(g, op, a, b, c, d); }
#define PV_FUNC0(R, g, op)					PV_INLINE R op(void) { return PV_CALL0(g, op); }
#define PV_FUNC1(R, g, op, T1)					PV_INLINE R op(T1 a) { return PV_CALL1(g, op, a); }
#define PV_FUNC2(R, g, op, T1, T2)				PV_INLINE R op(T1 a, T2 b) { return PV_CALL2(g, op, a, b); }
#define PV_FUNC3(R, g, op, T1, T2, T3)				PV_INLINE R op(T1 a, T2 b, T3 c) { return PV_CALL3(g, op, a, b, c); }

/* Made of the catalogue in layout.h: name, group, result and arguments. */
#define PV_OP(op)	PV_OF_##op

PV_OP(io_delay)
PV_OP(get_debugreg)
PV_OP(set_debugreg)
PV_OP(read_cr0)
PV_OP(write_cr0)
PV_OP(write_cr4)
PV_OP(load_tr_desc)
PV_OP(load_gdt)
PV_OP(load_idt)
PV_OP(set_ldt)
PV_OP(store_tr)
PV_OP(load_tls)
PV_OP(load_gs_index)
PV_OP(write_ldt_entry)
PV_OP(write_gdt_entry)
PV_OP(write_idt_entry)
PV_OP(alloc_ldt)
PV_OP(free_ldt)
PV_OP(load_sp0)
PV_OP(invalidate_io_bitmap)
PV_OP(update_io_bitmap)
PV_INLINE void wbinvd(void) { PV_ALT0(cpu, wbinvd, "wbinvd", X86_FEATURE_XENPV); }
PV_OP(cpuid)
PV_OP(read_msr)
PV_OP(write_msr)
PV_OP(read_msr_safe)
PV_OP(write_msr_safe)
PV_OP(read_pmc)
PV_OP(start_context_switch)
PV_OP(end_context_switch)

PV_INLINE unsigned long save_fl(void) { return PV_CALLEE0(irq, save_fl, "pushf; pop %%rax", X86_FEATURE_XENPV); }
PV_INLINE void irq_disable(void) { PV_CALLEE0(irq, irq_disable, "cli", X86_FEATURE_XENPV); }
PV_INLINE void irq_enable(void) { PV_CALLEE0(irq, irq_enable, "sti", X86_FEATURE_XENPV); }
PV_OP(safe_halt)
PV_OP(halt)

PV_OP(flush_tlb_user)
PV_OP(flush_tlb_kernel)
PV_OP(flush_tlb_one_user)
PV_OP(flush_tlb_multi)
PV_OP(tlb_remove_table)
PV_OP(exit_mmap)
PV_OP(notify_page_enc_status_changed)
PV_INLINE unsigned long read_cr2(void) { return PV_CALLEE0(mmu, read_cr2, "mov %%cr2, %%rax", X86_FEATURE_XENPV); }
PV_OP(write_cr2)
PV_INLINE unsigned long read_cr3(void) { return PV_ALT0(mmu, read_cr3, "mov %%cr3, %%rax", X86_FEATURE_XENPV); }
PV_INLINE void write_cr3(unsigned long cr3) { PV_ALT1(mmu, write_cr3, "mov %%rdi, %%cr3", X86_FEATURE_XENPV, cr3); }
PV_OP(activate_mm)
PV_OP(dup_mmap)
PV_OP(pgd_alloc)
PV_OP(pgd_free)
PV_OP(alloc_pte)
PV_OP(alloc_pmd)
PV_OP(alloc_pud)
PV_OP(alloc_p4d)
PV_OP(release_pte)
PV_OP(release_pmd)
PV_OP(release_pud)
PV_OP(release_p4d)

/* Conversions between what the kernel means and what a table holds; bare metal: the same. */
#define PV_CONVERT_ENTRY(name)							\
	PV_INLINE u64 name##_val(name##_t e)					\
	{									\
		return PV_CALLEE1(mmu, name##_val, "mov %%rdi, %%rax", X86_FEATURE_XENPV, e.val);	\
	}									\
	PV_INLINE name##_t make_##name(u64 val)					\
	{									\
		return (name##_t){ PV_CALLEE1(mmu, make_##name, "mov %%rdi, %%rax", X86_FEATURE_XENPV, val) };	\
	}
PV_CONVERT_ENTRY(pte)
PV_CONVERT_ENTRY(pmd)
PV_CONVERT_ENTRY(pud)
PV_CONVERT_ENTRY(p4d)
PV_CONVERT_ENTRY(pgd)

#define PV_SET(name)								\
	PV_INLINE void set_##name(name##_t *p, name##_t e) { PV_CALL2(mmu, set_##name, p, e.val); }
PV_SET(pte)
PV_SET(pmd)
PV_SET(pud)
PV_SET(p4d)
PV_SET(pgd)

PV_INLINE pte_t ptep_modify_prot_start(struct vma *vma, unsigned long addr, pte_t *ptep)
{
	return (pte_t){ PV_CALL3(mmu, ptep_modify_prot_start, vma, addr, ptep) };
}
PV_INLINE void ptep_modify_prot_commit(struct vma *vma, unsigned long addr, pte_t *ptep, pte_t pte)
{
	PV_CALL4(mmu, ptep_modify_prot_commit, vma, addr, ptep, pte.val);
}
PV_INLINE void mmu_lazy_mode_enter(void) { PV_CALL0(mmu, lazy_mode.enter); }
PV_INLINE void mmu_lazy_mode_leave(void) { PV_CALL0(mmu, lazy_mode.leave); }
PV_INLINE void mmu_lazy_mode_flush(void) { PV_CALL0(mmu, lazy_mode.flush); }
PV_OP(set_fixmap)

PV_OP(queued_spin_lock_slowpath)
PV_INLINE void queued_spin_unlock(u32 *lock)
{
	PV_CALLEE1(lock, queued_spin_unlock, "movb $0, (%%rdi)", X86_FEATURE_PVUNLOCK, lock);
}
PV_INLINE void lock_wait(u8 *ptr, u8 val) { PV_CALL2(lock, wait, ptr, val); }
PV_INLINE void lock_kick(int cpu) { PV_CALL1(lock, kick, cpu); }
PV_INLINE bool vcpu_is_preempted(long cpu)
{
	return (u8)PV_CALLEE1(lock, vcpu_is_preempted, "xor %%rax, %%rax", X86_FEATURE_VCPUPREEMPT, cpu);
}

/* What common code calls by one name on both word sizes. */
PV_INLINE void restore_fl(unsigned long flags)
{
	if (flags & X86_EFLAGS_IF)
		irq_enable();
	else
		irq_disable();
}
PV_INLINE void flush_tlb_page(unsigned long addr) { flush_tlb_one_user(addr); }

/* Hooks outside the table: plain indirect calls, never patched. */
#define boot_patch \
	((unsigned int (*)(u8, u16, void *, unsigned long, unsigned int))boot_ops.patch)
#define boot_pagetable_reserve		((void (*)(u64, u64))boot_ops.pagetable_reserve)
#define pagetable_setup_start		((void (*)(pgd_t *))boot_ops.pagetable_setup_start)
#define pagetable_setup_done		((void (*)(pgd_t *))boot_ops.pagetable_setup_done)
#define init_IRQ			((void (*)(void))boot_ops.init_IRQ)
#define time_init			((void (*)(void))boot_ops.time_init)
#define arch_setup			((void (*)(void))boot_ops.arch_setup)

#endif

// SPDX-License-Identifier: GPL-2.0
/* Spinlocks as each generation has them: through the lock ops, or with the interrupt-flag ops inside the loop. */
#include "kernel.h"

#ifdef __x86_64__

unsigned long spin_lock(spinlock_t *lock)
{
	unsigned long flags = save_fl();
	u32 found = 0;

	irq_disable();
	asm volatile("lock cmpxchg %2, %1" : "+a" (found), "+m" (lock->val) : "r" (1) : "memory");
	if (found)
		queued_spin_lock_slowpath(&lock->val, found);
	return flags;
}

void spin_unlock(spinlock_t *lock, unsigned long flags)
{
	queued_spin_unlock(&lock->val);
	restore_fl(flags);
}

#else

#define PV_NAMED_IRQ_SITE(name)							\
	"771:\n\tpushl %%ecx; pushl %%edx; call *%c[" #name "]; popl %%edx; popl %%ecx\n772:\n\t"	\
	".pushsection .parainstructions,\"a\"\n\t"				\
	".long 771b\n\t.byte %c[" #name "_type]\n\t.byte 772b-771b\n\t.short 1\n\t.popsection\n\t"
#define CLI_STRING	PV_NAMED_IRQ_SITE(cli)
#define STI_STRING	PV_NAMED_IRQ_SITE(sti)

/* Waits with interrupts as the caller had them. 0 is free. */
unsigned long spin_lock(spinlock_t *lock)
{
	unsigned long flags = save_fl();

	irq_disable();
	asm volatile("1:\n\t"
		     "lock btsl $0, %[lock]\n\t"
		     "jnc 5f\n"
		     "2:\n\t"
		     "testl $0x200, %[flags]\n\t"
		     "jz 4f\n\t"
		     STI_STRING
		     "3:\n\t"
		     "rep; nop\n\t"
		     "cmpl $0, %[lock]\n\t"
		     "jne 3b\n\t"
		     CLI_STRING
		     "jmp 1b\n"
		     "4:\n\t"
		     "rep; nop\n\t"
		     "cmpl $0, %[lock]\n\t"
		     "jne 4b\n\t"
		     "jmp 1b\n"
		     "5:"
		     : [lock] "+m" (lock->val)
		     : [flags] "r" (flags),
		       [cli] "i" (&PV_SLOT(irq, irq_disable)), [cli_type] "i" (PV_TYPE(irq, irq_disable)),
		       [sti] "i" (&PV_SLOT(irq, irq_enable)), [sti_type] "i" (PV_TYPE(irq, irq_enable))
		     : "eax", "memory", "cc");
	return flags;
}

void spin_unlock(spinlock_t *lock, unsigned long flags)
{
	barrier();
	WRITE_ONCE(lock->val, 0);
	restore_fl(flags);
}

#endif

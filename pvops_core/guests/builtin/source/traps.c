// SPDX-License-Identifier: GPL-2.0
/* What each vector does. */
#include "paging.h"

static bool from_user(const struct regs *regs)
{
	return (regs->cs & 3) == 3;
}

static __noreturn void unexpected(const struct regs *regs, unsigned long address)
{
	panic("trap %lu error %lx at %lx, address %lx", regs->vector, regs->error, regs->ip, address);
}

static void page_fault(struct regs *regs)
{
	unsigned long address = read_cr2();

	guest_report.page_faults++;
	if (from_user(regs)) {
		if (!user_fault(regs, address))
			unexpected(regs, address);
		return;
	}
	if (demand_fault(address))
		return;
	if (current()->guard)
		guard_leave(current()->guard);
	unexpected(regs, address);
}

void do_trap(struct regs *regs)
{
	switch (regs->vector) {
	case VECTOR_PAGE_FAULT:
		page_fault(regs);
		break;
	case VECTOR_INVALID_OP:
	case VECTOR_PROTECTION:
		if (from_user(regs) || !current()->guard)
			unexpected(regs, 0);
		guard_leave(current()->guard);
	case VECTOR_IRQ0 ... VECTOR_IRQ0 + NR_IRQS - 1:
	case VECTOR_XEN_UPCALL:
		irq_handle(regs->vector);
		break;
	default:
		unexpected(regs, 0);
	}
}

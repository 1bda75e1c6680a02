// SPDX-License-Identifier: GPL-2.0
#include "kernel.h"
void exercise(void)
{
	digest(make_pte(0x1234063).val ? pte_val(make_pte(0x123063)) : 0);
	while (ticks < 3) { irq_disable(); safe_halt(); }
	WRITE_ONCE(*(u32 *)AREA_BASE, 7);
	digest(*(u32 *)AREA_BASE);
}
void run_processes(void) {}
void smp_run(void) {}
bool do_syscall(struct regs *regs) { (void)regs; return false; }
bool user_fault(struct regs *regs, unsigned long address) { (void)regs; (void)address; return false; }
unsigned int secondary_cpu;
unsigned long secondary_sp;
void secondary_main(unsigned int cpu) { (void)cpu; for (;;) ; }

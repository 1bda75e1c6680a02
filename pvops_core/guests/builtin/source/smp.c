// SPDX-License-Identifier: GPL-2.0
/* The other CPUs: all count up one number under one spinlock. */
#include "kernel.h"

#define ROUNDS		200
#define LONG_EVERY	20	/* every so many rounds the lock is held for longer than a time slice, so that others wait */
#define LONG_SPINS	4000

unsigned int secondary_cpu;
unsigned long secondary_sp;

static spinlock_t lock;
static volatile unsigned int arrived, finished;
static volatile bool started;

/* Read, dally, write back: without the lock counts would be lost. */
static void count(void)
{
	unsigned int i, spin;

	for (i = 0; i < ROUNDS; i++) {
		unsigned long flags = spin_lock(&lock);
		u64 before = guest_report.spin_count;

		if (boot_info.ncpus > 1 && i % LONG_EVERY == 0)
			for (spin = 0; spin < LONG_SPINS; spin++)
				asm volatile("rep; nop");
		WRITE_ONCE(guest_report.spin_count, before + 1);
		spin_unlock(&lock, flags);
	}
}

static void advance(volatile unsigned int *counter)
{
	asm volatile("lock incl %0" : "+m" (*counter) : : "memory");
}

void secondary_main(unsigned int cpu)
{
	cpu_init(cpu);
#ifndef __x86_64__
	if (cpu & 1)
		setup_secondary_clock();
	else
		setup_secondary_clock();
#endif
	advance(&arrived);
	while (!started)
		asm volatile("rep; nop");
	count();
	advance(&finished);
	for (;;) {
		irq_disable();
		halt();
	}
}

static void bring_up(unsigned int cpu)
{
	unsigned int before = arrived;

	secondary_cpu = cpu;
	secondary_sp = (unsigned long)&boot_stack[cpu] + STACK_SIZE;
#ifndef __x86_64__
	startup_ipi_hook(cpu, (u32)secondary_entry, secondary_sp);
#endif
	if (!start_cpu(cpu))
		return;
	while (arrived == before)
		asm volatile("rep; nop");
	guest_report.ncpus++;
}

void smp_run(void)
{
	unsigned int cpu;

	for (cpu = 1; cpu < boot_info.ncpus && cpu < MAX_CPUS; cpu++)
		bring_up(cpu);
	started = true;
	count();
	while (finished != guest_report.ncpus - 1)
		asm volatile("rep; nop");
	digest(guest_report.spin_count == (u64)ROUNDS * guest_report.ncpus);
}

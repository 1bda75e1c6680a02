// SPDX-License-Identifier: GPL-2.0
/*
 * Two processes: the first is made as exec does, the second is its fork. They take turns when they yield; the boot task runs when
 * both are gone. Everything a process has beyond its program is mapped when it is first touched.
 */
#include "paging.h"
#include "syscalls.h"

extern char user_image[], user_image_end[];

/* Whoever changes text from outside finds these by their name, and what sleeps there by the numbers of offsets.c. */

static union task_stack stacks[NR_PROCESSES] __attribute__((aligned(STACK_SIZE)));
static unsigned int running;			/* processes that have not exited */

#define MSR_FS_BASE	0xc0000100

#ifdef __x86_64__
#define RESULT(regs)	((regs)->ax)
#define NUMBER(regs)	((regs)->ax)
#define ARGUMENT1(regs)	((regs)->di)
#define ARGUMENT2(regs)	((regs)->si)
#else
#define RESULT(regs)	((regs)->ax)
#define NUMBER(regs)	((regs)->ax)
#define ARGUMENT1(regs)	((regs)->bx)
#define ARGUMENT2(regs)	((regs)->cx)
#endif

static struct task *process(unsigned int number) { return &stacks[number].task; }

static void load_task(struct task *next)
{
	set_kernel_stack(next);
	load_tls(&next->thread, next->cpu);
}

/* In the order of the kernel's context_switch and __switch_to, each generation with its own batching. Interrupts are off. */
static void switch_to(struct task *next)
{
	struct task *previous = current();

	if (previous == next)
		return;
	guest_report.switches++;
#ifdef __x86_64__
	start_context_switch(previous);
	write_cr3(pa(next->mm->pgd));
	load_task(next);
	end_context_switch(next);
	load_gs_index(0);
	write_msr(MSR_FS_BASE, next->tls, (u64)next->tls >> 32);
	update_io_bitmap();
#else
	asm volatile("mov %%gs, %0" : "=r" (previous->tls));
	write_cr3(pa(next->mm->pgd));
	cpu_lazy_mode_enter();
	load_task(next);
	cpu_lazy_mode_leave();
	if (previous->thread.iopl != next->thread.iopl)
		set_iopl_mask(next->thread.iopl);
	asm volatile("mov %0, %%gs" : : "r" (next->tls));
#endif
	switch_stack(&previous->thread.sp, next->thread.sp);
}

/* The next process that lives, else the boot task. */
static struct task *successor(const struct task *task)
{
	unsigned int i, first = task->pid % NR_PROCESSES;

	for (i = 0; i < NR_PROCESSES; i++) {
		struct task *next = process((first + i) % NR_PROCESSES);

		if (next->pid && !next->exited)
			return next;
	}
	return &boot_stack[0].task;
}

/* The lowest frame of a new kernel stack: the registers that go to user mode, and below them what switch_stack pops. */
static struct regs *new_frame(struct task *task)
{
	struct regs *regs = (struct regs *)((unsigned long)task + STACK_SIZE) - 1;
	unsigned long *sp = (unsigned long *)regs;

	*--sp = (unsigned long)return_from_trap;
#ifdef __x86_64__
	sp -= 6;
#else
	sp -= 4;
#endif
	task->thread.sp = (unsigned long)sp;
	return regs;
}

static struct task *new_task(unsigned int number, struct mm *mm)
{
	struct task *task = process(number);

	memset(task, 0, sizeof(*task));
	task->pid = number + 1;
	task->thread.sp0 = (unsigned long)task + STACK_SIZE;
	task->mm = mm;
	return task;
}

/* Tables first: what is written in lazy mode cannot be read back before it ends. */
static void map_program(struct mm *mm)
{
	unsigned long offset, size = user_image_end - user_image;

	for (offset = 0; offset < size; offset += PAGE_SIZE)
		mm_prepare(mm, USER_BASE + offset);
	mmu_lazy_mode_enter();
	for (offset = 0; offset < size; offset += PAGE_SIZE) {
		void *page = alloc_page();

		memcpy(page, user_image + offset, PAGE_SIZE);
		mm_map(mm, USER_BASE + offset, page, PAGE_USER_RO);
	}
	mmu_lazy_mode_leave();
}

static struct task *exec(void)
{
	struct mm *mm = mm_create();
	struct task *task;
	struct regs *regs;

	map_program(mm);
	mm->brk = USER_HEAP;
	task = new_task(0, mm);
	regs = new_frame(task);
	memset(regs, 0, sizeof(*regs));
	regs->ip = USER_BASE;
	regs->cs = USER_CS;
	regs->flags = X86_EFLAGS_FIXED | X86_EFLAGS_IF;
	regs->sp = USER_STACK_TOP - 2 * sizeof(long);
	regs->ss = USER_DS;
#ifndef __x86_64__
	regs->ds = regs->es = USER_DS;
	regs->si = sysenter_works;
#endif
	return task;
}

static pteval_t present(struct mm *mm, unsigned long address)
{
	pte_t *pte = mm_lookup(mm, address);
	pteval_t val = pte ? pte_val(*pte) : 0;

	return val & _PAGE_PRESENT ? val : 0;
}

static void copy_memory(struct mm *from, struct mm *to)
{
	unsigned long at;
	pteval_t val;

	for (at = USER_BASE; at < USER_STACK_TOP; at += PAGE_SIZE)
		if (present(from, at))
			mm_prepare(to, at);
	mmu_lazy_mode_enter();
	for (at = USER_BASE; at < USER_STACK_TOP; at += PAGE_SIZE) {
		void *page;

		val = present(from, at);
		if (!val)
			continue;
		page = alloc_page();
		memcpy(page, pfn_to_virt((val & PTE_PFN_MASK) >> PAGE_SHIFT), PAGE_SIZE);
		mm_map(to, at, page, val & _PAGE_RW ? PAGE_USER : PAGE_USER_RO);
	}
	mmu_lazy_mode_leave();
}

static long fork(const struct regs *regs)
{
	struct task *parent = current(), *child;
	struct mm *mm = mm_create();
	struct regs *copy;

	copy_memory(parent->mm, mm);
	mm->brk = parent->mm->brk;
	dup_mmap(parent->mm, mm);
	child = new_task(parent->pid, mm);
	memcpy(child->thread.tls_array, parent->thread.tls_array, sizeof(child->thread.tls_array));
	child->tls = parent->tls;
#ifndef __x86_64__
	asm volatile("mov %%gs, %0" : "=r" (child->tls));
#endif
	child->fault_handler = parent->fault_handler;
	copy = new_frame(child);
	memcpy(copy, regs, sizeof(*copy));
	RESULT(copy) = 0;
	running++;
	return child->pid;
}

static __noreturn void exit(long code)
{
	struct task *task = current();

	task->exit_code = code;
	guest_report.exit_codes[task->pid - 1] = code;
	task->exited = true;
	running--;
	irq_disable();
	switch_to(successor(task));
	panic("an exited process runs");
}

static bool user_range(unsigned long address, unsigned long length)
{
	return address >= USER_BASE && length <= USER_STACK_TOP - USER_BASE && address <= USER_STACK_TOP - length;
}

static long set_tls(unsigned long base)
{
	struct task *task = current();
	struct desc_struct *desc = &task->thread.tls_array[0];

#ifdef __x86_64__
	task->tls = base;
	write_msr(MSR_FS_BASE, base, base >> 32);
#endif
	desc->low = (base << 16) | 0xffff;
	desc->high = ((base >> 16) & 0xff) | 0x00cff200 | (base & 0xff000000);
	load_tls(&task->thread, task->cpu);
#ifndef __x86_64__
	asm volatile("mov %0, %%gs" : : "r" (USER_TLS));
#endif
	return 0;
}

static long brk(unsigned long more)
{
	unsigned long old = current()->mm->brk;

	if (more > USER_HEAP + USER_HEAP_SIZE - old)
		return -1;
	current()->mm->brk += more;
	return old;
}

static long write(unsigned long address, unsigned long length)
{
	if (!user_range(address, length))
		return -1;
	console_write((const char *)address, length);
	return length;
}

static void yield(void)
{
	unsigned long flags = save_fl();

	irq_disable();
	switch_to(successor(current()));
	restore_fl(flags);
}

static long dispatch(struct regs *regs)
{
	switch (NUMBER(regs)) {
	case SYS_EXIT:
		exit(ARGUMENT1(regs));
	case SYS_WRITE:
		return write(ARGUMENT1(regs), ARGUMENT2(regs));
	case SYS_GETPID:
		return current()->pid;
	case SYS_BRK:
		return brk(ARGUMENT1(regs));
	case SYS_YIELD:
		yield();
		return 0;
	case SYS_ON_FAULT:
		current()->fault_handler = ARGUMENT1(regs);
		return 0;
	case SYS_SET_TLS:
		return set_tls(ARGUMENT1(regs));
	case SYS_FORK:
		return fork(regs);
	default:
		return -1;
	}
}

/* Whether another task ran meanwhile. */
bool do_syscall(struct regs *regs)
{
	unsigned int before = guest_report.switches;
	unsigned long number = NUMBER(regs);

	guest_report.syscalls++;
#ifdef __x86_64__
	irq_enable();
#endif
	RESULT(regs) = dispatch(regs);
	if (number != SYS_SET_TLS)
		digest((u64)number << 32 | (u32)RESULT(regs));
#ifdef __x86_64__
	irq_disable();
#endif
	return guest_report.switches != before;
}

static bool on_demand(unsigned long address)
{
	return (address >= USER_HEAP && address < current()->mm->brk) ||
	       (address >= USER_STACK_TOP - USER_STACK_SIZE && address < USER_STACK_TOP);
}

#define ERROR_PRESENT	1
#define ERROR_WRITE	2
#define ERROR_USER	4

/* What a process may know of its fault. Whether kernel space is there at all depends on the platform. */
static unsigned long visible(unsigned long error, unsigned long address)
{
	return error & (address < USER_STACK_TOP ? ERROR_PRESENT | ERROR_WRITE | ERROR_USER : ERROR_WRITE | ERROR_USER);
}

/* A page that is to be there is mapped; any other access goes to the process's own handler. */
bool user_fault(struct regs *regs, unsigned long address)
{
	struct task *task = current();

	if (!(regs->error & ERROR_PRESENT) && on_demand(address)) {
		mm_map(task->mm, address & -(unsigned long)PAGE_SIZE, alloc_page(), PAGE_USER);
		return true;
	}
	if (!task->fault_handler)
		return false;
	digest(visible(regs->error, address));
	regs->ip = task->fault_handler;
	RESULT(regs) = visible(regs->error, address);
	task->fault_handler = 0;
	return true;
}

void run_processes(void)
{
	struct task *first = exec();
	unsigned long flags = save_fl();
	unsigned int i;

	running = 1;
	activate_mm(&init_mm, first->mm);
	irq_disable();
	switch_to(first);
	BUG_ON(running);
	restore_fl(flags);
	for (i = 0; i < NR_PROCESSES; i++) {
		if (!process(i)->pid)
			continue;
		digest(process(i)->exit_code);
		mm_destroy(process(i)->mm);
	}
}

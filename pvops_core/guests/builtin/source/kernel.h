/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of the guest share. */
#ifndef GUEST_KERNEL_H
#define GUEST_KERNEL_H

#include "boot_info.h"
#include "paravirt.h"
#include "segments.h"

/* Hooks of boot run once, so each has two sites and the command line says which is used. */
#define AT_EITHER_SITE(call)							\
	do {									\
		if (!option("sites=second"))					\
			call;							\
		else								\
			call;							\
	} while (0)

/* lib.c */
void *memset(void *to, int byte, size_t count);
void *memcpy(void *to, const void *from, size_t count);
int memcmp(const void *a, const void *b, size_t count);
size_t strlen(const char *text);
void printk(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool option(const char *name);				/* a word of the command line */
__noreturn void panic(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define BUG_ON(condition)							\
	do {									\
		if (condition)							\
			panic("BUG at %s:%d: %s", __FILE__, __LINE__, #condition);	\
	} while (0)

/* drivers.c: the three small variants by platform */
extern bool on_xen;
void drivers_init(void);				/* before the first line of text */
void drivers_map(void);					/* after the kernel's own page tables are in force */
void console_write(const char *text, size_t count);
void irq_init(void);
void timer_start(void);
void irq_handle(unsigned int vector);
bool start_cpu(unsigned int cpu);
__noreturn void power_off(bool crashed);
extern volatile unsigned long ticks;

/* traps.c, descriptors.c */
struct regs {
#ifdef __x86_64__
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
#else
	unsigned long bx, cx, dx, si, di, bp, ax, ds, es;
#endif
	unsigned long vector, error, ip, cs, flags, sp, ss;
};

struct guard {
	unsigned long words[8];
};

int guard_enter(struct guard *guard) __attribute__((returns_twice));
__noreturn void guard_leave(struct guard *guard);
/* Run a statement that this platform may refuse; true if it came through. */
#define GUARDED(statement) ({							\
	struct guard __guard, *volatile __outer = current()->guard;		\
	volatile bool __done = false;						\
	unsigned long __flags = save_fl();					\
	if (!guard_enter(&__guard)) {						\
		current()->guard = &__guard;					\
		barrier();							\
		statement;							\
		__done = true;							\
	}									\
	current()->guard = __outer;						\
	if (!__done)								\
		restore_fl(__flags);						\
	__done; })

void do_trap(struct regs *regs);
void cpu_init(unsigned int cpu);
void tss_init(unsigned int cpu);			/* its descriptor, fresh: ltr marks it busy */
void load_segments(void);
struct tss_struct *cpu_tss(unsigned int cpu);
struct desc_struct *cpu_gdt(unsigned int cpu);
void set_kernel_stack(struct task *task);
extern struct gate_struct idt_table[NR_VECTORS];
extern bool sysenter_works;

/* memory.c: frames and the kernel's own page tables */
extern struct mm init_mm;
extern volatile u64 pgt_buf_start, pgt_buf_end, pgt_buf_top;
void memory_init(void);
void *alloc_page(void);					/* zeroed */
void free_page(void *page);
bool demand_fault(unsigned long address);
pte_t *area_pte(unsigned long address);
unsigned long pages_free(void);
static inline u64 virt_to_pfn(const void *address) { return ((unsigned long)address - KERNEL_BASE) >> PAGE_SHIFT; }
static inline void *pfn_to_virt(u64 pfn) { return (void *)((unsigned long)(pfn << PAGE_SHIFT) + KERNEL_BASE); }
#define pa(address)	((unsigned long)(address) - KERNEL_BASE)

/* mm.c: address spaces of processes */
struct mm *mm_create(void);
void mm_prepare(struct mm *mm, unsigned long address);	/* all tables on the way to an address */
void mm_destroy(struct mm *mm);
pte_t *mm_map(struct mm *mm, unsigned long address, void *page, pteval_t flags);
pte_t *mm_lookup(struct mm *mm, unsigned long address);

/* process.c */
#define NR_PROCESSES	2

struct task {
	unsigned int cpu, pid;
	struct thread_struct thread;
	struct mm *mm;
	struct guard *guard;
	unsigned long fault_handler;		/* user address that a bad access continues at */
	unsigned long tls;			/* FS base on x86_64, the gs selector on i386 */
	long exit_code;
	bool exited;
};

union task_stack {
	struct task task;
	u8 stack[STACK_SIZE];
};

static inline struct task *current(void)
{
	unsigned long sp;

#ifdef __x86_64__
	asm("mov %%rsp, %0" : "=r" (sp));
#else
	asm("mov %%esp, %0" : "=r" (sp));
#endif
	return (struct task *)(sp & ~(unsigned long)(STACK_SIZE - 1));
}

extern union task_stack boot_stack[MAX_CPUS];
bool do_syscall(struct regs *regs);
bool user_fault(struct regs *regs, unsigned long address);
void run_processes(void);
void switch_stack(unsigned long *save, unsigned long next);
void return_from_trap(void);
#ifdef __x86_64__
void entry_SYSCALL_64(void);
struct percpu {
	unsigned long kernel_sp, user_sp;	/* as entry_64.S knows */
};
extern struct percpu percpu[MAX_CPUS];
#else
void sysenter_entry(void);
#endif

/* patching.c, exercise.c, smp.c */
void patch_kernel(void);
void exercise(void);
void smp_run(void);
void secondary_entry(void);
__noreturn void secondary_main(unsigned int cpu);
extern unsigned int secondary_cpu;
extern unsigned long secondary_sp;

/* spinlock.c */
typedef struct { u32 val; } spinlock_t;
unsigned long spin_lock(spinlock_t *lock);
void spin_unlock(spinlock_t *lock, unsigned long flags);

/* report.c */
#define REPORT_MAGIC	0x5452		/* "RT" */
enum report_status { REPORT_RUNNING = 0, REPORT_DONE = 1, REPORT_PANIC = 2 };

struct guest_report {
	u32 magic, size;
	u32 status;			/* enum report_status */
	u32 ncpus;			/* that took part */
	u64 digest;			/* of all results: equal on every backend */
	u32 results;			/* how many results the digest holds */
	u32 refused;			/* guarded calls that this platform refused */
	u32 syscalls, page_faults, ticks, switches;
	u32 sites, pokes, alternatives, exercised;
	u64 spin_count;
	u32 exit_codes[4];
};

extern struct guest_report guest_report;
void digest(u64 value);
void report(void);

#endif

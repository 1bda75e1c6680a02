/* The program's only way out: system calls, and marks that whoever runs the machine sees. */
#ifndef SYSTEM_H
#define SYSTEM_H

typedef unsigned char u8;
typedef unsigned int u32;

enum { EFAULT = 14, EAGAIN = 11 };

/* Numbers of system calls: arch/x86/entry/syscalls/syscall_32.tbl and syscall_64.tbl. All are in 2.6.23 too. */
#ifdef __x86_64__
enum {
	SYS_read = 0, SYS_write = 1, SYS_mmap = 9, SYS_mprotect = 10, SYS_munmap = 11, SYS_rt_sigaction = 13,
	SYS_rt_sigprocmask = 14, SYS_rt_sigreturn = 15, SYS_ioctl = 16, SYS_pipe = 22, SYS_madvise = 28,
	SYS_setitimer = 38, SYS_getpid = 39, SYS_clone = 56, SYS_fork = 57, SYS_execve = 59, SYS_exit = 60,
	SYS_wait4 = 61, SYS_syslog = 103, SYS_getppid = 110, SYS_rt_sigtimedwait = 128, SYS_reboot = 169,
	SYS_futex = 202, SYS_sched_setaffinity = 203, SYS_sched_getaffinity = 204, SYS_exit_group = 231,
	SYS_tgkill = 234,
};
#else
enum {
	SYS_exit = 1, SYS_fork = 2, SYS_read = 3, SYS_write = 4, SYS_execve = 11, SYS_getpid = 20, SYS_pipe = 42,
	SYS_ioctl = 54, SYS_getppid = 64, SYS_reboot = 88, SYS_mmap = 90, SYS_munmap = 91, SYS_syslog = 103,
	SYS_setitimer = 104, SYS_wait4 = 114, SYS_clone = 120, SYS_mprotect = 125, SYS_rt_sigreturn = 173,
	SYS_rt_sigaction = 174, SYS_rt_sigprocmask = 175, SYS_rt_sigtimedwait = 177, SYS_madvise = 219,
	SYS_futex = 240, SYS_sched_setaffinity = 241, SYS_sched_getaffinity = 242, SYS_exit_group = 252,
	SYS_tgkill = 270,
};
#endif

/* The result, or the negative of an error number. */
static inline long call4(long number, long a, long b, long c, long d)
{
	long result;
#ifdef __x86_64__
	register long fourth asm("r10") = d;
	asm volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c), "r"(fourth) : "rcx", "r11", "memory");
#else
	asm volatile("int $0x80" : "=a"(result) : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
#endif
	return result;
}

#define call3(number, a, b, c) call4(number, (long)(a), (long)(b), (long)(c), 0)
#define call2(number, a, b) call3(number, a, b, 0)
#define call1(number, a) call2(number, a, 0)
#define call0(number) call1(number, 0)

/* A leaf of cpuid that no processor has: the machine tells who counts that the program stands here. It needs no
 * privilege, never enters the kernel, and is the same on every platform and in both widths. */
enum { MARK_LEAF = 0x70766f70 };

static inline void mark(u32 number)
{
	u32 leaf = MARK_LEAF;
	asm volatile("cpuid" : "+a"(leaf), "+c"(number) : : "ebx", "edx", "memory");
}

/* parts.c */
void print(const char *text);
void print_number(unsigned long number);
int same(const char *one, const char *other);
unsigned long number_at(const char **text);
void exit_process(int status) __attribute__((noreturn));
void pin(unsigned int cpu);
void look_for_processors(void);	/* threads.c; before pin */
unsigned int cpus(void);
void *map(unsigned long bytes);
void futex_wait(u32 *word, u32 while_it_is);
void futex_wake(u32 *word, int sleepers);
long start_thread(void (*run)(long), long argument, void *stack_top, u32 *alive);

/* What a check found wrong: a text, or 0. */
typedef const char *wrong;

/* One workload. Between make_ready and finish the host's counters are its own. */
struct workload {
	const char *name;
	wrong (*make_ready)(unsigned long rounds);
	wrong (*round)(unsigned long number);	/* one; of a workload of threads, which make them all, the last alone */
	wrong (*finish)(unsigned long rounds);
	int of_threads;
};

extern const struct workload process_workloads[], memory_workloads[], thread_workloads[];
/* What the rounds came to, which must be the same wherever they are made. */
extern unsigned long value;
extern char **environment;

#endif

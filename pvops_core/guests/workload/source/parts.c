/* What all workloads are made of. */
#include "system.h"

unsigned long value;

void print(const char *text)
{
	unsigned long length = 0;

	while (text[length])
		length++;
	call3(SYS_write, 1, text, length);
}

void print_number(unsigned long number)
{
	char digits[24], *at = digits + sizeof(digits);

	*--at = 0;
	do
		*--at = '0' + number % 10;
	while (number /= 10);
	print(at);
}

int same(const char *one, const char *other)
{
	while (*one && *one == *other)
		one++, other++;
	return *one == *other;
}

unsigned long number_at(const char **text)
{
	unsigned long number = 0;

	while (**text >= '0' && **text <= '9')
		number = number * 10 + *(*text)++ - '0';
	return number;
}

void exit_process(int status)
{
	for (;;)
		call1(SYS_exit_group, status);
}

/* A mask of CPUs as the kernel takes it: whole longs, little-endian, so that bytes do. */
struct mask {
	u8 bytes[1024];
};

static void clear(struct mask *mask)
{
	for (unsigned int at = 0; at < sizeof(mask->bytes); at++)
		mask->bytes[at] = 0;
}

/* How many CPUs the calling thread may run on. */
unsigned int cpus(void)
{
	struct mask mask;
	unsigned int found = 0;

	clear(&mask);
	call3(SYS_sched_getaffinity, 0, sizeof(mask), &mask);
	for (unsigned int cpu = 0; cpu < 8 * sizeof(mask); cpu++)
		found += mask.bytes[cpu / 8] >> cpu % 8 & 1;
	return found;
}

/* Have the calling thread run on one CPU alone, if there is such a one. */
void pin(unsigned int cpu)
{
	struct mask mask;

	clear(&mask);
	mask.bytes[cpu / 8] = 1 << cpu % 8;
	call3(SYS_sched_setaffinity, 0, sizeof(mask), &mask);
}

void *map(unsigned long bytes)
{
	/* Readable and writable, private and anonymous. */
#ifdef __x86_64__
	register long flags asm("r10") = 0x22, file asm("r8") = -1, offset asm("r9") = 0;
	long result;

	asm volatile("syscall" : "=a"(result)
		     : "0"((long)SYS_mmap), "D"(0L), "S"(bytes), "d"(3L), "r"(flags), "r"(file), "r"(offset)
		     : "rcx", "r11", "memory");
	return (void *)result;
#else
	long arguments[6] = { 0, bytes, 3, 0x22, -1, 0 };

	return (void *)call1(SYS_mmap, arguments);
#endif
}

enum { FUTEX_WAIT = 0, FUTEX_WAKE = 1 };

void futex_wait(u32 *word, u32 while_it_is)
{
	while (*(volatile u32 *)word == while_it_is)
		call4(SYS_futex, (long)word, FUTEX_WAIT, while_it_is, 0);
}

void futex_wake(u32 *word, int sleepers)
{
	call3(SYS_futex, word, FUTEX_WAKE, sleepers);
}

/* CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, CHILD_CLEARTID (include/uapi/linux/sched.h). */
enum { THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x200000 };

/* A thread of this process; its number, or the negative of an error number. It ends when its function returns: then
 * the kernel makes the word 0 and wakes who sleeps on it. */
long start_thread(void (*run)(long), long argument, void *stack_top, u32 *alive)
{
	long *stack = stack_top, result;

	*--stack = argument;
	*--stack = (long)run;
#ifdef __x86_64__
	register u32 *cleared asm("r10") = alive;

	asm volatile("xor %%r8d, %%r8d; syscall; test %%rax, %%rax; jnz 1f\n\t"
		     "pop %%rax; pop %%rdi; call *%%rax; mov %[leave], %%eax; xor %%edi, %%edi; syscall\n1:"
		     : "=a"(result)
		     : "0"((long)SYS_clone), "D"((long)THREAD), "S"(stack), "d"(0L), "r"(cleared), [leave] "i"(SYS_exit)
		     : "rcx", "r8", "r11", "memory");
#else
	asm volatile("int $0x80; test %%eax, %%eax; jnz 1f\n\t"
		     "pop %%eax; call *%%eax; mov %[leave], %%eax; xor %%ebx, %%ebx; int $0x80\n1:"
		     : "=a"(result)
		     : "0"((long)SYS_clone), "b"((long)THREAD), "c"(stack), "d"(0L), "S"(0L), "D"(alive),
		       [leave] "i"(SYS_exit)
		     : "memory");
#endif
	return result;
}

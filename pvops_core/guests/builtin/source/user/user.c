// SPDX-License-Identifier: GPL-2.0
/*
 * The user-mode program. It has no variables, only its stack and what it asks for. Its exit code sums up what it saw, so a byte that
 * was wrong anywhere changes it.
 */
#include "types.h"
#include "syscalls.h"

#ifdef __x86_64__

static inline long syscall(bool fast, long number, unsigned long a, unsigned long b)
{
	asm volatile("syscall" : "+a" (number) : "D" (a), "S" (b) : "rcx", "r11", "memory");
	return number;
}

static inline unsigned long tls_word(void)
{
	unsigned long word;

	asm volatile("mov %%fs:0, %0" : "=r" (word));
	return word;
}

/* Where the program begins. */
asm(".section .text.start, \"ax\"\n"
    "	.globl _start\n"
    "_start:\n"
    "	xor	%ebp, %ebp\n"
    "	xor	%edi, %edi\n"
    "	call	program\n"
    "	ud2\n"
    ".previous");

/* Write a byte; 0, or the error code of the fault that this was. */
long probe(void *address);
asm(".text\n"
    "probe:\n"
    "	mov	%rdi, %rdx\n"
    "	mov	$5, %eax\n"			/* SYS_ON_FAULT */
    "	lea	1f(%rip), %rdi\n"
    "	syscall\n"
    "	xor	%eax, %eax\n"
    "	movb	$1, (%rdx)\n"
    "1:	ret\n");

#else

/* sysenter keeps what it destroys on the stack, and tells the kernel where to go on. */
static inline long syscall(bool fast, long number, unsigned long a, unsigned long b)
{
	if (fast)
		asm volatile("push %%ebp; push %%ecx; push %%edx\n\t"
			     "call 1f\n"
			     "1:	pop %%edx\n\t"
			     "add $2f - 1b, %%edx\n\t"
			     "mov %%esp, %%ebp\n\t"
			     "sysenter\n"
			     "2:	pop %%edx; pop %%ecx; pop %%ebp"
			     : "+a" (number) : "b" (a), "c" (b) : "memory");
	else
		asm volatile("int $0x80" : "+a" (number) : "b" (a), "c" (b) : "memory");
	return number;
}

static inline unsigned long tls_word(void)
{
	unsigned long word;

	asm volatile("mov %%gs:0, %0" : "=r" (word));
	return word;
}

asm(".section .text.start, \"ax\"\n"
    "	.globl _start\n"
    "_start:\n"
    "	xor	%ebp, %ebp\n"
    "	mov	%esi, %eax\n"			/* whether sysenter works */
    "	call	program\n"
    "	ud2\n"
    ".previous");

long probe(void *address);
asm(".text\n"
    "probe:\n"
    "	push	%ebx\n"
    "	mov	%eax, %edx\n"
    "	mov	$5, %eax\n"			/* SYS_ON_FAULT */
    "	mov	$1f, %ebx\n"
    "	int	$0x80\n"
    "	xor	%eax, %eax\n"
    "	movb	$1, (%edx)\n"
    "1:	pop	%ebx\n"
    "	ret\n");

#endif

static unsigned long mix(unsigned long sum, unsigned long value)
{
	return (u32)((sum ^ value) * 16777619u);
}

/* Eight kilobytes of stack, so that several pages of it are touched. */
static noinline unsigned long use_stack(unsigned long sum)
{
	volatile u8 room[0x2000];
	unsigned int i;

	for (i = 0; i < sizeof(room); i += 512)
		room[i] = i >> 9;
	for (i = 0; i < sizeof(room); i += 512)
		sum = mix(sum, room[i]);
	return sum;
}

static unsigned long use_heap(bool fast, unsigned long sum)
{
	volatile u32 *heap = (u32 *)syscall(fast, SYS_BRK, 8 * PAGE_SIZE, 0);
	unsigned int i;

	for (i = 0; i < 8 * PAGE_SIZE / 4; i += 1024)
		heap[i] = i * 2654435761u;
	for (i = 0; i < 8 * PAGE_SIZE / 4; i += 1024)
		sum = mix(sum, heap[i]);
	return mix(sum, heap[1]);
}

static unsigned long use_tls(bool fast, unsigned long sum, volatile unsigned long *block)
{
	*block = 0x715 + syscall(fast, SYS_GETPID, 0, 0);
	syscall(fast, SYS_SET_TLS, (unsigned long)block, 0);
	syscall(fast, SYS_YIELD, 0, 0);
	return mix(sum, tls_word());
}

static const char greeting[] = "guest: hello from process 0\n";

static void greet(bool fast, unsigned int pid)
{
	char line[sizeof(greeting)];
	unsigned int i;

	for (i = 0; i < sizeof(greeting); i++)
		line[i] = greeting[i];
	line[sizeof(greeting) - 3] += pid;
	syscall(fast, SYS_WRITE, (unsigned long)line, sizeof(greeting) - 1);
}

__attribute__((used, noreturn)) static void program(bool fast)
{
	unsigned long tls_block = 0, sum = 2166136261u;
	unsigned int pid, turn;

	sum = use_heap(fast, sum);
	syscall(fast, SYS_FORK, 0, 0);
	pid = syscall(fast, SYS_GETPID, 0, 0);
	greet(fast, pid);
	sum = use_stack(mix(sum, pid));
	sum = use_tls(fast, sum, &tls_block);
	for (turn = 0; turn < 4; turn++) {
		syscall(fast, SYS_YIELD, 0, 0);
		sum = mix(sum, tls_word());
	}
	sum = mix(sum, probe((void *)USER_BASE));		/* its own text: read-only */
	sum = mix(sum, probe((void *)(USER_BASE + 0x80000)));	/* nothing there */
	sum = mix(sum, probe((void *)KERNEL_BASE));		/* not for user mode */
	for (;;)
		syscall(fast, SYS_EXIT, sum & 0x7fffffff, 0);
}

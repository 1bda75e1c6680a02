/* SPDX-License-Identifier: GPL-2.0 */
/* x86_64: start, traps, system calls and the way back. */
#include "types.h"
#include "segments.h"
#include "alternative.h"

#define PERCPU_KERNEL_SP	0
#define PERCPU_USER_SP		8
#define HYPERCALL_IRET		23

	.section .head.text, "ax"

/* rsi: virtual address of boot_info. */
	.globl	entry
	.type	entry, @function
entry:
	cld
	lea	boot_stack + STACK_SIZE(%rip), %rsp
	xor	%ebp, %ebp
	mov	%rsi, %rdi
	call	start_kernel
	ud2

/* A secondary vCPU: its index and stack are in secondary_cpu and secondary_sp. */
	.globl	secondary_entry
	.type	secondary_entry, @function
secondary_entry:
	cld
	mov	secondary_sp(%rip), %rsp
	xor	%ebp, %ebp
	mov	secondary_cpu(%rip), %edi
	call	secondary_main
	ud2

	.text

/*
 * The kernel's GS base is in force in kernel mode only. A Xen PV guest never swaps: Xen does. With XENPV it is on_xen that
 * tells, not the feature: who wants ops to be called on bare metal forces XENPV there, and traps are bare metal's still.
 */
.macro SWAP_GS_BASE
	ALTERNATIVE "call swapgs_by_flag", "swapgs", ALT_NOT(X86_FEATURE_XENPV)
.endm

swapgs_by_flag:
	cmpb	$0, on_xen(%rip)
	jne	1f
	swapgs
1:	ret

#define VECTOR(number, name, error)		\
	ENTRY_POINT number, name, error;

.macro ENTRY_POINT number, name, error
	.globl	\name, xen_\name
	.type	\name, @function
	.type	xen_\name, @function
	.balign	8
xen_\name:
	pop	%rcx
	pop	%r11
\name:
	.if \error == 0
	push	$0
	.endif
	push	$\number
	jmp	trap_common
	.pushsection .trap_entries, "a"
	.quad	\number, \name
	.popsection
.endm

#include "vectors.h"

/* The general registers as struct regs has them. */
.macro SAVE_REGS
	push	%rdi
	push	%rsi
	push	%rdx
	push	%rcx
	push	%rax
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
.endm

.macro RESTORE_REGS
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rax
	pop	%rcx
	pop	%rdx
	pop	%rsi
	pop	%rdi
.endm

/* Stack: vector, error code, ip, cs, flags, sp, ss. */
trap_common:
	cld
	testb	$3, 24(%rsp)
	jz	1f
	SWAP_GS_BASE
1:	SAVE_REGS
	mov	%rsp, %rdi
	call	do_trap
	.globl	return_from_trap
return_from_trap:
	RESTORE_REGS
	add	$16, %rsp
	testb	$3, 8(%rsp)
	jz	1f
	SWAP_GS_BASE
1:	ALTERNATIVE "jmp iret_by_flag", "iretq", ALT_NOT(X86_FEATURE_XENPV)

iret_by_flag:
	cmpb	$0, on_xen(%rip)
	jne	xen_iret
	iretq

/* The hypercall reads rax, r11, rcx, flags, then the frame. */
	.globl	xen_iret
	.type	xen_iret, @function
xen_iret:
	push	$0
	push	%rcx
	push	%r11
	push	%rax
	mov	$HYPERCALL_IRET, %eax
	syscall
	ud2

	.globl	entry_SYSCALL_64, xen_syscall_target
	.type	entry_SYSCALL_64, @function
entry_SYSCALL_64:
	SWAP_GS_BASE
	mov	%rsp, %gs:PERCPU_USER_SP
	mov	%gs:PERCPU_KERNEL_SP, %rsp
	push	$USER_DS
	push	%gs:PERCPU_USER_SP
	push	%r11
	push	$USER_CS
	push	%rcx
1:	push	$0
	push	$VECTOR_SYSCALL
	SAVE_REGS
	mov	%rsp, %rdi
	call	do_syscall
	jmp	return_from_trap

/* Xen delivers a user's syscall on the kernel stack: rcx, r11, ip, cs, flags, sp, ss. */
	.type	xen_syscall_target, @function
xen_syscall_target:
	pop	%rcx
	pop	%r11
	movq	$USER_CS, 8(%rsp)
	movq	$USER_DS, 32(%rsp)
	jmp	1b

	.globl	xen_hypervisor_callback, xen_failsafe_callback
	.type	xen_hypervisor_callback, @function
xen_hypervisor_callback:
	pop	%rcx
	pop	%r11
	push	$0
	push	$VECTOR_XEN_UPCALL
	jmp	trap_common

/* A segment register could not be reloaded on the way back: rcx, r11, ds, es, fs, gs, then the frame. */
	.type	xen_failsafe_callback, @function
xen_failsafe_callback:
	pop	%rcx
	pop	%r11
	add	$32, %rsp
	push	$0
	push	$VECTOR_PROTECTION
	jmp	trap_common

/* void switch_stack(unsigned long *save, unsigned long next) */
	.globl	switch_stack
	.type	switch_stack, @function
switch_stack:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, (%rdi)
	mov	%rsi, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

/* int guard_enter(struct guard *): 0 at first; 1 again when a fault inside calls guard_leave. */
	.globl	guard_enter, guard_leave
	.type	guard_enter, @function
guard_enter:
	mov	(%rsp), %rax
	mov	%rax, 0(%rdi)
	lea	8(%rsp), %rax
	mov	%rax, 8(%rdi)
	mov	%rbx, 16(%rdi)
	mov	%rbp, 24(%rdi)
	mov	%r12, 32(%rdi)
	mov	%r13, 40(%rdi)
	mov	%r14, 48(%rdi)
	mov	%r15, 56(%rdi)
	xor	%eax, %eax
	ret

	.type	guard_leave, @function
guard_leave:
	mov	16(%rdi), %rbx
	mov	24(%rdi), %rbp
	mov	32(%rdi), %r12
	mov	40(%rdi), %r13
	mov	48(%rdi), %r14
	mov	56(%rdi), %r15
	mov	8(%rdi), %rsp
	mov	$1, %eax
	jmp	*0(%rdi)

/* void load_segments(void): the selectors of our own GDT, on bare metal only (Xen gives its own). */
	.globl	load_segments
	.type	load_segments, @function
load_segments:
	pop	%rax
	push	$KERNEL_CS
	push	%rax
	mov	$KERNEL_DS, %eax
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	lretq

/* The gates: where implementations of ops have their addresses. The core fills them in before entry. */
	.section .gates, "ax"
	.globl	pvops_gates
	.type	pvops_gates, @object
	.balign	PAGE_SIZE
pvops_gates:
	.fill	NR_GATES * GATE_SIZE / 2, 2, 0x0b0f
	.size	pvops_gates, . - pvops_gates

	.section .note.GNU-stack, "", @progbits

/* SPDX-License-Identifier: GPL-2.0 */
/* i386: start, traps, system calls and the way back, with the assembly shapes of annotated sites. */
#include "types.h"
#include "segments.h"
#include "asm_offsets.h"

#define CLBR_NONE	0
#define CLBR_ANY	7

.macro PV_RECORD start, type, clobbers
	.pushsection .parainstructions, "a"
	.long	\start
	.byte	\type
	.byte	772b - \start
	.short	\clobbers
	.popsection
.endm

/* Jumped to, never called: 7 bytes, nothing may be destroyed. */
.macro PV_JUMP slot, type
771:	jmp	*%cs:\slot
772:	PV_RECORD 771b, \type, CLBR_NONE
.endm

/* 13 bytes; the caller says what may be destroyed. */
.macro PV_SAVED_CALL slot, type, clobbers
771:	push	%eax
	push	%ecx
	push	%edx
	call	*%cs:\slot
	pop	%edx
	pop	%ecx
	pop	%eax
772:	PV_RECORD 771b, \type, \clobbers
.endm

#define INTERRUPT_RETURN		PV_JUMP SLOT_iret, TYPE_iret
#define ENABLE_INTERRUPTS_SYSEXIT	PV_JUMP SLOT_irq_enable_sysexit, TYPE_irq_enable_sysexit
#define ENABLE_INTERRUPTS(clobbers)	PV_SAVED_CALL SLOT_irq_enable, TYPE_irq_enable, clobbers
#define DISABLE_INTERRUPTS(clobbers)	PV_SAVED_CALL SLOT_irq_disable, TYPE_irq_disable, clobbers

	.section .head.text, "ax"

/* esi: virtual address of boot_info. */
	.globl	entry
	.type	entry, @function
entry:
	cld
	mov	$boot_stack + STACK_SIZE, %esp
	xor	%ebp, %ebp
	mov	%esi, %eax
	call	start_kernel
	ud2

/* A secondary vCPU: its index and stack are in secondary_cpu and secondary_sp. */
	.globl	secondary_entry
	.type	secondary_entry, @function
secondary_entry:
	cld
	mov	secondary_sp, %esp
	xor	%ebp, %ebp
	mov	secondary_cpu, %eax
	call	secondary_main
	ud2

	.text

.macro SAVE_REGS
	cld
	push	%es
	push	%ds
	push	%eax
	push	%ebp
	push	%edi
	push	%esi
	push	%edx
	push	%ecx
	push	%ebx
	mov	$USER_DS, %edx
	mov	%edx, %ds
	mov	%edx, %es
.endm

.macro RESTORE_REGS
	pop	%ebx
	pop	%ecx
	pop	%edx
	pop	%esi
	pop	%edi
	pop	%ebp
	pop	%eax
	pop	%ds
	pop	%es
	add	$8, %esp
.endm

#define VECTOR(number, name, error)		\
	ENTRY_POINT number, name, error;

/* A 32-bit Xen frame is the processor's, so both names are one address. */
.macro ENTRY_POINT number, name, error
	.globl	\name, xen_\name
	.type	\name, @function
	.type	xen_\name, @function
	.balign	8
\name:
xen_\name:
	.if \error == 0
	push	$0
	.endif
	push	$\number
	jmp	trap_common
	.pushsection .trap_entries, "a"
	.long	\number, \name
	.popsection
.endm

#include "vectors.h"

/* Stack: vector, error code, ip, cs, flags and, from user mode, sp, ss. */
trap_common:
	SAVE_REGS
	mov	%esp, %eax
	call	do_trap
	RESTORE_REGS
	INTERRUPT_RETURN

	.globl	system_call, xen_system_call
	.type	system_call, @function
	.type	xen_system_call, @function
system_call:
xen_system_call:
	push	$0
	push	$VECTOR_SYSCALL
	SAVE_REGS
	ENABLE_INTERRUPTS(CLBR_NONE)
	mov	%esp, %eax
	call	do_syscall
	DISABLE_INTERRUPTS(CLBR_ANY)
	.globl	return_from_trap
return_from_trap:
	RESTORE_REGS
	INTERRUPT_RETURN
	.pushsection .trap_entries, "a"
	.long	VECTOR_SYSCALL, system_call
	.popsection

/*
 * eax: number, ebx: argument, edx: where to go on, ebp: user stack. esp points at the TSS, whose word at 4 is the kernel stack.
 * do_syscall says whether another task ran meanwhile: then the fast way back is another site, as a slow path would be.
 */
	.globl	sysenter_entry
	.type	sysenter_entry, @function
sysenter_entry:
	mov	4(%esp), %esp
	push	$USER_DS
	push	%ebp
	pushf
	push	$USER_CS
	push	%edx
	push	$0
	push	$VECTOR_SYSCALL
	SAVE_REGS
	ENABLE_INTERRUPTS(CLBR_NONE)
	mov	%esp, %eax
	call	do_syscall
	mov	%eax, %ebx
	DISABLE_INTERRUPTS(CLBR_ANY)
	test	%ebx, %ebx
	jnz	1f
	RESTORE_REGS
	mov	0(%esp), %edx
	mov	12(%esp), %ecx
	ENABLE_INTERRUPTS_SYSEXIT
1:	RESTORE_REGS
	mov	0(%esp), %edx
	mov	12(%esp), %ecx
	ENABLE_INTERRUPTS_SYSEXIT

	.globl	xen_hypervisor_callback, xen_failsafe_callback
	.type	xen_hypervisor_callback, @function
xen_hypervisor_callback:
	push	$0
	push	$VECTOR_XEN_UPCALL
	jmp	trap_common

/* A segment register could not be reloaded on the way back: ds, es, fs, gs, then the frame. */
	.type	xen_failsafe_callback, @function
xen_failsafe_callback:
	add	$16, %esp
	push	$0
	push	$VECTOR_PROTECTION
	jmp	trap_common

/*
 * lguest's way back: interrupts are on again from the store to lguest_data.irq_enabled (its first word) on, so the host delivers
 * none between the two labels.
 */
	.globl	lguest_iret, lguest_noirq_start, lguest_noirq_end
	.type	lguest_iret, @function
lguest_iret:
	push	%eax
	mov	12(%esp), %eax
lguest_noirq_start:
	mov	%eax, %ss:lguest_data
	pop	%eax
	iret
lguest_noirq_end:

/* void switch_stack(unsigned long *save, unsigned long next) */
	.globl	switch_stack
	.type	switch_stack, @function
switch_stack:
	push	%ebx
	push	%ebp
	push	%esi
	push	%edi
	mov	%esp, (%eax)
	mov	%edx, %esp
	pop	%edi
	pop	%esi
	pop	%ebp
	pop	%ebx
	ret

/* int guard_enter(struct guard *): 0 at first; 1 again when a fault inside calls guard_leave. */
	.globl	guard_enter, guard_leave
	.type	guard_enter, @function
guard_enter:
	mov	(%esp), %edx
	mov	%edx, 0(%eax)
	lea	4(%esp), %edx
	mov	%edx, 4(%eax)
	mov	%ebx, 8(%eax)
	mov	%ebp, 12(%eax)
	mov	%esi, 16(%eax)
	mov	%edi, 20(%eax)
	xor	%eax, %eax
	ret

	.type	guard_leave, @function
guard_leave:
	mov	%eax, %edx
	mov	8(%edx), %ebx
	mov	12(%edx), %ebp
	mov	16(%edx), %esi
	mov	20(%edx), %edi
	mov	4(%edx), %esp
	mov	$1, %eax
	jmp	*0(%edx)

/* void load_segments(void): the selectors of our own GDT, at the privilege level that we have. */
	.globl	load_segments
	.type	load_segments, @function
load_segments:
	mov	%cs, %ecx
	and	$3, %ecx
	pop	%edx
	lea	KERNEL_CS(%ecx), %eax
	push	%eax
	push	%edx
	lea	KERNEL_DS(%ecx), %eax
	mov	%eax, %ss
	mov	$USER_DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	lret

/* The gates: where implementations of ops have their addresses. The core fills them in before entry. */
	.section .gates, "ax"
	.globl	pvops_gates
	.type	pvops_gates, @object
	.balign	PAGE_SIZE
pvops_gates:
	.fill	NR_GATES * GATE_SIZE / 2, 2, 0x0b0f
	.size	pvops_gates, . - pvops_gates

	.section .note.GNU-stack, "", @progbits

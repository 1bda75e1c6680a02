/* SPDX-License-Identifier: GPL-2.0 */
/* What the user program and the kernel agree on. */
#ifndef GUEST_SYSCALLS_H
#define GUEST_SYSCALLS_H

#define SYS_EXIT	0	/* code; does not return */
#define SYS_WRITE	1	/* address, length */
#define SYS_GETPID	2
#define SYS_BRK		3	/* bytes to add; gives the old end */
#define SYS_YIELD	4
#define SYS_ON_FAULT	5	/* where to go on after a bad access, with its error code in the result register; 0: nowhere */
#define SYS_SET_TLS	6	/* base of the TLS segment (fs on x86_64, gs on i386) */
#define SYS_FORK	7	/* 0 in the child */

#define USER_HEAP	(USER_BASE + 0x100000)
#define USER_HEAP_SIZE	0x40000
#define USER_STACK_TOP	(USER_BASE + 0x400000)
#define USER_STACK_SIZE	0x10000

#endif

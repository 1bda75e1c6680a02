/* SPDX-License-Identifier: GPL-2.0 */
/* The user-mode program, as build.py linked and flattened it. */
	.section .user_image, "a"
	.incbin	"user.bin"
	.section .note.GNU-stack, "", @progbits

/* SPDX-License-Identifier: GPL-2.0 */
#include "types.h"

#ifdef __x86_64__
OUTPUT_ARCH(i386:x86-64)
#else
OUTPUT_ARCH(i386)
#endif
ENTRY(entry)

PHDRS
{
	text PT_LOAD FLAGS(5);
	data PT_LOAD FLAGS(6);
}

SECTIONS
{
	. = KERNEL_BASE + LOAD_PHYSICAL;

	.text : AT(ADDR(.text) - KERNEL_BASE) {
		_text = .;
		*(.head.text)
		*(.text .text.*)
		. = ALIGN(PAGE_SIZE);
		*(.gates)
		_etext = .;
	} :text

	.rodata : AT(ADDR(.rodata) - KERNEL_BASE) {
		*(.rodata .rodata.*)
		. = ALIGN(16);
		trap_entries = .;
		*(.trap_entries)
		trap_entries_end = .;
		. = ALIGN(PAGE_SIZE);
		user_image = .;
		*(.user_image)
		. = ALIGN(PAGE_SIZE);
		user_image_end = .;
	} :text

	.parainstructions : AT(ADDR(.parainstructions) - KERNEL_BASE) {
		. = ALIGN(8);
		__parainstructions = .;
		KEEP(*(.parainstructions))
		__parainstructions_end = .;
	} :text

	.altinstructions : AT(ADDR(.altinstructions) - KERNEL_BASE) {
		. = ALIGN(8);
		__alt_instructions = .;
		KEEP(*(.altinstructions))
		__alt_instructions_end = .;
	} :text

	.altinstr_replacement : AT(ADDR(.altinstr_replacement) - KERNEL_BASE) {
		*(.altinstr_replacement)
	} :text

	.boot_info_layout : AT(ADDR(.boot_info_layout) - KERNEL_BASE) {
		KEEP(*(.boot_info_layout))
	} :text

	.report_layout : AT(ADDR(.report_layout) - KERNEL_BASE) {
		KEEP(*(.report_layout))
	} :text

	. = ALIGN(PAGE_SIZE);
	.data : AT(ADDR(.data) - KERNEL_BASE) {
		*(.data .data.*)
	} :data

	.bss : AT(ADDR(.bss) - KERNEL_BASE) {
		*(.bss .bss.* COMMON)
		. = ALIGN(PAGE_SIZE);
		_end = .;
	} :data

	/DISCARD/ : { *(.comment) *(.note*) *(.eh_frame*) *(.gnu*) }
}

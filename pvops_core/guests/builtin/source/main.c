// SPDX-License-Identifier: GPL-2.0
/* The order of boot. */
#include "kernel.h"

struct boot_info boot_info;
union task_stack boot_stack[MAX_CPUS] __attribute__((aligned(STACK_SIZE)));
struct boot_ops boot_ops;
#ifndef __x86_64__
/* Where memory_setup may put the memory map, as Linux's e820. */
struct {
	u32 nr_map;
	struct {
		u64 address, size;
		u32 type;
	} __packed map[32];
} e820;
#endif
u8 empty_zero_page[PAGE_SIZE] __page_aligned;

PV_DEFINE_TABLES

void start_kernel(const struct boot_info *info);

void start_kernel(const struct boot_info *info)
{
	if (info->magic != BOOT_INFO_MAGIC || info->version != BOOT_INFO_VERSION || info->size != sizeof(*info))
		for (;;)
			asm volatile("ud2");
	memcpy(&boot_info, info, sizeof(boot_info));
	guest_report.ncpus = 1;
	drivers_init();
	printk("guest: " LAYOUT_NAME " starts, %u pages\n", (u32)boot_info.nr_pages);

	AT_EITHER_SITE(arch_setup());
#ifndef __x86_64__
	AT_EITHER_SITE(memory_setup());
	AT_EITHER_SITE(banner());
#endif
	cpu_init(0);
	memory_init();
	drivers_map();
#ifndef __x86_64__
	if (PV_PRESENT(init, post_allocator_init))
		AT_EITHER_SITE(post_allocator_init());
#endif
	patch_kernel();
	write_cr3(pa(init_mm.pgd));

	AT_EITHER_SITE(init_IRQ());
	irq_init();
	AT_EITHER_SITE(time_init());
	timer_start();
	irq_enable();

	exercise();
	run_processes();
	smp_run();
	report();
	irq_disable();
	guest_report.status = REPORT_DONE;
	power_off(false);
}

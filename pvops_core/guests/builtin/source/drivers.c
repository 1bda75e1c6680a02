// SPDX-License-Identifier: GPL-2.0
/* Chooses the drivers of the platform. */
#include "drivers.h"

bool on_xen;
volatile unsigned long ticks;
static const struct driver *driver = &bare_driver;

void drivers_init(void)
{
	if (boot_info.platform == PLATFORM_XEN) {
		on_xen = true;
		driver = &xen_driver;
	}
#ifndef __x86_64__
	if (boot_info.platform == PLATFORM_LGUEST)
		driver = &lguest_driver;
#endif
	driver->init();
}

void drivers_map(void) { driver->map(); }
void console_write(const char *text, size_t count) { driver->write(text, count); }
void irq_init(void) { driver->irq_init(); }
void timer_start(void) { driver->timer_start(); }
void irq_handle(unsigned int vector) { driver->irq(vector); }
bool start_cpu(unsigned int cpu) { return driver->start_cpu(cpu); }
void tick(void) { ticks++; }

void power_off(bool crashed)
{
	for (;;) {
		driver->power_off(crashed);
		asm volatile("rep; nop");
	}
}

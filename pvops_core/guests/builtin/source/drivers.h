/* SPDX-License-Identifier: GPL-2.0 */
/* Console, power, ticks and the start of CPUs: the only code that knows which platform it runs on. */
#ifndef GUEST_DRIVERS_H
#define GUEST_DRIVERS_H

#include "kernel.h"

#define TICK_HZ		(boot_info.tick_hz ? boot_info.tick_hz : 100)

struct driver {
	void (*init)(void);
	void (*map)(void);
	void (*write)(const char *text, size_t count);
	void (*irq_init)(void);
	void (*timer_start)(void);
	void (*irq)(unsigned int vector);
	bool (*start_cpu)(unsigned int cpu);
	void (*power_off)(bool crashed);
};

extern const struct driver bare_driver, xen_driver, lguest_driver;
void tick(void);

#endif

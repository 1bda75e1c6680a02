// SPDX-License-Identifier: GPL-2.0
/* Bare metal: 8250 at 0x3f8, 8259 pair, 8254, a power register at 0x604 and a CPU start register at 0x608. */
#include "drivers.h"

#define UART		0x3f8
#define UART_STATUS	(UART + 5)
#define UART_EMPTY	0x20
#define PIC_MASTER	0x20
#define PIC_SLAVE	0xa0
#define PIT_CHANNEL0	0x40
#define PIT_MODE	0x43
#define PIT_HZ		1193182
#define POWER		0x604
#define POWER_OFF	0x2000
#define POWER_CRASH	0x2400		/* sleep type 1: what ran is not to be trusted */
#define CPU_START	0x608

static void outb(u16 port, u8 value) { asm volatile("outb %0, %1" : : "a" (value), "Nd" (port)); }
static void outw(u16 port, u16 value) { asm volatile("outw %0, %1" : : "a" (value), "Nd" (port)); }
static void outl(u16 port, u32 value) { asm volatile("outl %0, %1" : : "a" (value), "Nd" (port)); }

static u8 inb(u16 port)
{
	u8 value;

	asm volatile("inb %1, %0" : "=a" (value) : "Nd" (port));
	return value;
}

static void bare_nothing(void) { }

static void bare_write(const char *text, size_t count)
{
	unsigned int tries;

	for (; count; count--, text++) {
		for (tries = 1000; tries && !(inb(UART_STATUS) & UART_EMPTY); tries--)
			;
		outb(UART, *text);
	}
}

static void bare_irq_init(void)
{
	outb(PIC_MASTER, 0x11);
	outb(PIC_SLAVE, 0x11);
	outb(PIC_MASTER + 1, VECTOR_IRQ0);
	outb(PIC_SLAVE + 1, VECTOR_IRQ0 + 8);
	outb(PIC_MASTER + 1, 4);
	outb(PIC_SLAVE + 1, 2);
	outb(PIC_MASTER + 1, 1);
	outb(PIC_SLAVE + 1, 1);
	outb(PIC_MASTER + 1, 0xfe);
	outb(PIC_SLAVE + 1, 0xff);
}

static void bare_timer_start(void)
{
	u32 count = PIT_HZ / TICK_HZ;

	outb(PIT_MODE, 0x34);		/* channel 0, both bytes, rate generator */
	outb(PIT_CHANNEL0, count);
	outb(PIT_CHANNEL0, count >> 8);
}

static void bare_irq(unsigned int vector)
{
	if (vector >= VECTOR_IRQ0 + 8)
		outb(PIC_SLAVE, 0x20);
	outb(PIC_MASTER, 0x20);
	if (vector == VECTOR_IRQ0)
		tick();
}

static bool bare_start_cpu(unsigned int cpu)
{
	outl(CPU_START, cpu);
	return true;
}

static void bare_power_off(bool crashed)
{
	outw(POWER, crashed ? POWER_CRASH : POWER_OFF);
}

const struct driver bare_driver = {
	.init = bare_nothing,
	.map = bare_nothing,
	.write = bare_write,
	.irq_init = bare_irq_init,
	.timer_start = bare_timer_start,
	.irq = bare_irq,
	.start_cpu = bare_start_cpu,
	.power_off = bare_power_off,
};

// SPDX-License-Identifier: GPL-2.0
/* lguest: hypercalls by int $0x1f, one shared page, ticks by SET_CLOCKEVENT. One CPU. */
#include "drivers.h"
#include "lguest.h"

struct lguest_data lguest_data;

extern char lguest_noirq_start[], lguest_noirq_end[];

static u32 hcall(u32 call, u32 arg1, u32 arg2, u32 arg3)
{
	asm volatile("int $0x1f" : "+a" (call) : "d" (arg1), "b" (arg2), "c" (arg3) : "memory");
	return call;
}

static void lguest_init(void)
{
	memset(lguest_data.hcall_status, 0xff, sizeof(lguest_data.hcall_status));
	lguest_data.noirq_start = (u32)lguest_noirq_start;
	lguest_data.noirq_end = (u32)lguest_noirq_end;
#ifdef LAYOUT_2_6_24
	lguest_data.kernel_address = KERNEL_BASE;
	lguest_data.syscall_vec = VECTOR_SYSCALL;
#endif
	hcall(LHCALL_LGUEST_INIT, pa(&lguest_data), 0, 0);
}

static void lguest_nothing(void) { }

#ifdef LAYOUT_2_6_23

/* July 2007: text goes out as a DMA to the console's key. Empty sections end the list. */
static void lguest_write(const char *text, size_t count)
{
	static struct lguest_dma dma;
	static char chunk[128] __attribute__((aligned(128)));

	while (count) {
		size_t piece = count < sizeof(chunk) ? count : sizeof(chunk);

		memcpy(chunk, text, piece);
		dma.used_len = 0;
		dma.addr[0] = pa(chunk);
		dma.len[0] = piece;
		hcall(LHCALL_SEND_DMA, CONSOLE_KEY, pa(&dma), 0);
		text += piece;
		count -= piece;
	}
}

#else

static void lguest_write(const char *text, size_t count)
{
	static char chunk[17];

	while (count) {
		size_t piece = count < sizeof(chunk) - 1 ? count : sizeof(chunk) - 1;

		memcpy(chunk, text, piece);
		chunk[piece] = 0;
		hcall(LHCALL_NOTIFY, pa(chunk), 0, 0);
		text += piece;
		count -= piece;
	}
}

#endif

static void lguest_irq_init(void)
{
	WRITE_ONCE(lguest_data.blocked_interrupts[0], ~1u);
}

static void lguest_timer_start(void)
{
	hcall(LHCALL_SET_CLOCKEVENT, 1000000000u / TICK_HZ, 0, 0);
}

static void lguest_irq(unsigned int vector)
{
	if (vector != VECTOR_IRQ0)
		return;
	tick();
	lguest_timer_start();
}

static bool lguest_start_cpu(unsigned int cpu)
{
	(void)cpu;
	return false;
}

static void lguest_power_off(bool crashed)
{
	static const char down[] = "Power down", crash[] = "guest panic";

	hcall(LHCALL_CRASH, pa(crashed ? crash : down), 1, 0);
}

const struct driver lguest_driver = {
	.init = lguest_init,
	.map = lguest_nothing,
	.write = lguest_write,
	.irq_init = lguest_irq_init,
	.timer_start = lguest_timer_start,
	.irq = lguest_irq,
	.start_cpu = lguest_start_cpu,
	.power_off = lguest_power_off,
};

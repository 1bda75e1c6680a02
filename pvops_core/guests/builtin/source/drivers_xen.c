// SPDX-License-Identifier: GPL-2.0
/* Xen PV: hypercalls by `syscall` or `int $0x82`, text by console_io, ticks by VIRQ_TIMER and the one-shot timer. */
#include "drivers.h"
#include "paging.h"
#include "xen.h"

#define SHARED_INFO	((struct shared_info *)(FIXADDR_TOP - AREA_SIZE / 4))

/* Per-CPU copies that Xen is told to use instead of those in shared_info, as Linux does: fixed addresses for patchlets. */
struct vcpu_info xen_vcpu_info[MAX_CPUS] __page_aligned;

static struct vcpu_info *vcpu_infos[MAX_CPUS];
static u32 timer_port;

static long hypercall(unsigned long nr, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
#ifdef __x86_64__
	register unsigned long r10 asm("r10") = d;

	asm volatile("syscall" : "+a" (nr), "+D" (a), "+S" (b), "+d" (c), "+r" (r10) : : "rcx", "r11", "r8", "r9", "memory");
#else
	asm volatile("int $0x82" : "+a" (nr), "+b" (a), "+c" (b), "+d" (c), "+S" (d) : : "memory");
#endif
	return nr;
}

static long update_va_mapping(const void *va, u64 entry)
{
#ifdef __x86_64__
	return hypercall(HYPERCALL_UPDATE_VA_MAPPING, (unsigned long)va, entry, UVMF_INVLPG, 0);
#else
	return hypercall(HYPERCALL_UPDATE_VA_MAPPING, (unsigned long)va, entry, entry >> 32, UVMF_INVLPG);
#endif
}

static u64 virt_to_mfn(const void *address)
{
	return ((const unsigned long *)(unsigned long)boot_info.mfn_list)[virt_to_pfn(address)];
}

static void xen_init(void) { }

/* Events need shared_info in our own tables; then each CPU's part of it moves to an address that is known when linking. */
static void xen_map(void)
{
	struct {
		u64 mfn;
		u32 offset, reserved;
	} where;
	unsigned int cpu;

	BUG_ON(update_va_mapping(SHARED_INFO, boot_info.shared_info | PAGE_KERNEL));
	for (cpu = 0; cpu < boot_info.ncpus && cpu < MAX_CPUS; cpu++) {
		where.mfn = virt_to_mfn(&xen_vcpu_info[cpu]);
		where.offset = (unsigned long)&xen_vcpu_info[cpu] % PAGE_SIZE;
		where.reserved = 0;
		vcpu_infos[cpu] = &xen_vcpu_info[cpu];
		if (hypercall(HYPERCALL_VCPU_OP, VCPUOP_REGISTER_VCPU_INFO, cpu, (unsigned long)&where, 0))
			vcpu_infos[cpu] = &SHARED_INFO->vcpu_info[cpu];
	}
}

static void xen_write(const char *text, size_t count)
{
	hypercall(HYPERCALL_CONSOLE_IO, CONSOLEIO_WRITE, count, (unsigned long)text, 0);
}

static void xen_irq_init(void)
{
	struct {
		u32 virq, vcpu, port;
	} bind = { .virq = VIRQ_TIMER, .vcpu = 0 };
	unsigned int word;

	for (word = 0; word < EVENT_WORDS; word++)
		WRITE_ONCE(SHARED_INFO->evtchn_mask[word], ~0ul);
	BUG_ON(hypercall(HYPERCALL_EVENT_CHANNEL_OP, EVTCHNOP_BIND_VIRQ, (unsigned long)&bind, 0, 0));
	timer_port = bind.port;
	asm volatile("lock btr %1, %0" : "+m" (SHARED_INFO->evtchn_mask) : "r" ((unsigned long)timer_port) : "memory");
}

/* Nanoseconds since the machine started, from the CPU's time record. */
static u64 system_time(void)
{
	const volatile struct vcpu_time_info *time = &vcpu_infos[current()->cpu]->time;
	u32 version, low, high;
	u64 now, delta;

	do {
		version = time->version;
		barrier();
		asm volatile("rdtsc" : "=a" (low), "=d" (high));
		delta = (((u64)high << 32) | low) - time->tsc_timestamp;
		delta = time->tsc_shift < 0 ? delta >> -time->tsc_shift : delta << time->tsc_shift;
		now = time->system_time + (delta >> 32) * time->tsc_to_system_mul +
		      (((delta & 0xffffffff) * time->tsc_to_system_mul) >> 32);
		barrier();
	} while ((version & 1) || version != time->version);
	return now;
}

static void set_timer(void)
{
	struct {
		u64 timeout;
		u32 flags;
	} __packed timer = { .timeout = system_time() + 1000000000u / TICK_HZ };

	BUG_ON(hypercall(HYPERCALL_VCPU_OP, VCPUOP_SET_SINGLESHOT_TIMER, 0, (unsigned long)&timer, 0));
}

static void xen_timer_start(void)
{
	hypercall(HYPERCALL_VCPU_OP, VCPUOP_STOP_PERIODIC_TIMER, 0, 0, 0);
	set_timer();
}

static void event(unsigned int port)
{
	asm volatile("lock btr %1, %0" : "+m" (SHARED_INFO->evtchn_pending) : "r" ((unsigned long)port) : "memory");
	if (port != timer_port)
		return;
	tick();
	set_timer();
}

static void xen_irq(unsigned int vector)
{
	volatile struct vcpu_info *vcpu = vcpu_infos[current()->cpu];

	(void)vector;
	do {
		unsigned long words = 0;

		vcpu->upcall_pending = 0;
		asm volatile("xchg %0, %1" : "+r" (words), "+m" (vcpu->pending_sel) : : "memory");
		for (; words; words &= words - 1) {
			unsigned int word = __builtin_ctzl(words);
			unsigned long bits = READ_ONCE(SHARED_INFO->evtchn_pending[word]) & ~SHARED_INFO->evtchn_mask[word];

			for (; bits; bits &= bits - 1)
				event(word * 8 * sizeof(bits) + __builtin_ctzl(bits));
		}
	} while (vcpu->upcall_pending);
}

#define PUT(offset, value)	(*(unsigned long *)(context + (offset)) = (unsigned long)(value))

extern char xen_hypervisor_callback[], xen_failsafe_callback[], xen_syscall_target[];

static void fill_context(u8 *context, unsigned int cpu)
{
	u64 root = virt_to_mfn(init_mm.pgd);

	memset(context, 0, CONTEXT_SIZE);
	PUT(CONTEXT_FLAGS, VGCF_IN_KERNEL);
	PUT(CONTEXT_IP, secondary_entry);
	PUT(CONTEXT_SP, secondary_sp);
	PUT(CONTEXT_REGFLAGS, 0x1000);
	PUT(CONTEXT_GDT_FRAMES, virt_to_mfn(cpu_gdt(cpu)));
	PUT(CONTEXT_GDT_ENTS, GDT_ENTRIES);
	PUT(CONTEXT_KERNEL_SP, secondary_sp);
	PUT(CONTEXT_EVENT, xen_hypervisor_callback);
	PUT(CONTEXT_FAILSAFE, xen_failsafe_callback);
#ifdef __x86_64__
	PUT(CONTEXT_CS, FLAT_KERNEL_CS);
	PUT(CONTEXT_SS, FLAT_KERNEL_SS);
	PUT(CONTEXT_KERNEL_SS, FLAT_KERNEL_SS);
	PUT(CONTEXT_SYSCALL, xen_syscall_target);
	PUT(CONTEXT_CR3, root << PAGE_SHIFT);
#else
	PUT(CONTEXT_CS, KERNEL_CS | 1);
	PUT(CONTEXT_SS, KERNEL_DS | 1);
	PUT(CONTEXT_DS, USER_DS);
	PUT(CONTEXT_ES, USER_DS);
	PUT(CONTEXT_KERNEL_SS, KERNEL_DS | 1);
	PUT(CONTEXT_EVENT_CS, KERNEL_CS | 1);
	PUT(CONTEXT_FAILSAFE_CS, KERNEL_CS | 1);
	PUT(CONTEXT_CR3, (root << PAGE_SHIFT) | (root >> 20));
#endif
}

/* The GDT's page must be read-only before Xen takes it. Its descriptors are written when the page still is ours. */
static bool xen_start_cpu(unsigned int cpu)
{
	static u8 context[CONTEXT_SIZE] __page_aligned;

	memcpy(cpu_gdt(cpu), cpu_gdt(0), GDT_ENTRIES * sizeof(struct desc_struct));
	BUG_ON(update_va_mapping(cpu_gdt(cpu), (virt_to_mfn(cpu_gdt(cpu)) << PAGE_SHIFT) | (PAGE_KERNEL & ~_PAGE_RW)));
	fill_context(context, cpu);
	if (hypercall(HYPERCALL_VCPU_OP, VCPUOP_INITIALISE, cpu, (unsigned long)context, 0))
		return false;
	return !hypercall(HYPERCALL_VCPU_OP, VCPUOP_UP, cpu, 0, 0);
}

static void xen_power_off(bool crashed)
{
	u32 reason = crashed ? SHUTDOWN_CRASH : SHUTDOWN_POWEROFF;

	hypercall(HYPERCALL_SCHED_OP, SCHEDOP_SHUTDOWN, (unsigned long)&reason, 0, 0);
}

const struct driver xen_driver = {
	.init = xen_init,
	.map = xen_map,
	.write = xen_write,
	.irq_init = xen_irq_init,
	.timer_start = xen_timer_start,
	.irq = xen_irq,
	.start_cpu = xen_start_cpu,
	.power_off = xen_power_off,
};

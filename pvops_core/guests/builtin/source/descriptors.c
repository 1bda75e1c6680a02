// SPDX-License-Identifier: GPL-2.0
/* GDT, IDT, TSS and what a CPU needs before it can take traps from user mode. */
#include "kernel.h"

/* One page a CPU: a hypervisor makes the page of a loaded GDT read-only. */
static struct {
	struct desc_struct table[GDT_ENTRIES];
} __page_aligned gdt_pages[MAX_CPUS];
struct gate_struct idt_table[NR_VECTORS] __page_aligned;
static struct {
	struct tss_struct tss;
} __page_aligned tss_pages[MAX_CPUS];

extern const struct trap_entry {
	unsigned long vector, handler;
} trap_entries[], trap_entries_end[];

bool sysenter_works;

struct desc_struct *cpu_gdt(unsigned int cpu) { return gdt_pages[cpu].table; }
struct tss_struct *cpu_tss(unsigned int cpu) { return &tss_pages[cpu].tss; }

static const struct {
	int entry;
	struct desc_struct desc;
} segments[] = {
#ifdef __x86_64__
	{ GDT_ENTRY_KERNEL_CS, { 0x0000ffff, 0x00af9b00 } },
	{ GDT_ENTRY_KERNEL_DS, { 0x0000ffff, 0x00cf9300 } },
	{ GDT_ENTRY_USER_DS, { 0x0000ffff, 0x00cff300 } },
	{ GDT_ENTRY_USER_CS, { 0x0000ffff, 0x00affb00 } },
#else
	{ GDT_ENTRY_KERNEL_CS, { 0x0000ffff, 0x00cf9a00 } },
	{ GDT_ENTRY_KERNEL_DS, { 0x0000ffff, 0x00cf9200 } },
	{ GDT_ENTRY_USER_CS, { 0x0000ffff, 0x00cffa00 } },
	{ GDT_ENTRY_USER_DS, { 0x0000ffff, 0x00cff200 } },
#endif
};

#define DESC_TSS	0x89		/* type 9, present: what write_gdt_entry's last argument calls it */
#define DESC_CODE_DATA	0x10

#ifdef __x86_64__

static void put_segment(struct desc_struct *gdt, int entry, const struct desc_struct *desc)
{
	write_gdt_entry(gdt, entry, desc, DESC_CODE_DATA);
}

static void put_tss(struct desc_struct *gdt, struct tss_struct *tss)
{
	unsigned long base = (unsigned long)tss;
	struct {
		struct desc_struct low;
		u32 base_high, zero;
	} desc = {
		.low.low = (sizeof(*tss) - 1) | (base << 16),
		.low.high = ((base >> 16) & 0xff) | (DESC_TSS << 8) | (base & 0xff000000),
		.base_high = base >> 32,
	};

	write_gdt_entry(gdt, GDT_ENTRY_TSS, &desc, 9);
}

static void put_gate(unsigned int vector, unsigned long handler, unsigned int dpl)
{
	struct gate_struct gate = {
		.low = (KERNEL_CS << 16) | (handler & 0xffff),
		.high = (handler & 0xffff0000) | 0x8e00 | (dpl << 13),
		.offset_high = handler >> 32,
	};

	write_idt_entry(idt_table, vector, &gate);
}

#else

static void put_segment(struct desc_struct *gdt, int entry, const struct desc_struct *desc)
{
	write_gdt_entry(gdt, entry, desc->low, desc->high);
}

static void put_tss(struct desc_struct *gdt, struct tss_struct *tss)
{
	u32 base = (u32)tss;

	write_gdt_entry(gdt, GDT_ENTRY_TSS, (sizeof(*tss) - 1) | (base << 16),
			((base >> 16) & 0xff) | (DESC_TSS << 8) | (base & 0xff000000));
}

static void put_gate(unsigned int vector, unsigned long handler, unsigned int dpl)
{
	/* The system call's gate leaves interrupts as they are: lguest lets such go to the guest directly. */
	u32 type = vector == VECTOR_SYSCALL ? 0x8f00 : 0x8e00;
	u32 cs;

	asm("mov %%cs, %0" : "=r" (cs));
	write_idt_entry(idt_table, vector, ((KERNEL_CS | (cs & 3)) << 16) | (handler & 0xffff),
			(handler & 0xffff0000) | type | (dpl << 13));
}

#endif

static void fill_idt(void)
{
	const struct trap_entry *entry;

	for (entry = trap_entries; entry < trap_entries_end; entry++)
		put_gate(entry->vector, entry->handler, entry->vector == VECTOR_SYSCALL || entry->vector == 3 ? 3 : 0);
}

/* The stack that traps from user mode start on. */
void set_kernel_stack(struct task *task)
{
	unsigned int cpu = task->cpu;

#ifdef __x86_64__
	percpu[cpu].kernel_sp = task->thread.sp0;
	cpu_tss(cpu)->sp0 = task->thread.sp0;
	load_sp0(task->thread.sp0);
#else
	load_esp0(cpu_tss(cpu), &task->thread);
#endif
}

#define MSR_SYSENTER_CS		0x174
#define MSR_SYSENTER_ESP	0x175
#define MSR_SYSENTER_EIP	0x176
#define MSR_EFER		0xc0000080
#define EFER_SCE		1
#define MSR_STAR		0xc0000081
#define MSR_LSTAR		0xc0000082
#define MSR_SYSCALL_MASK	0xc0000084
#define MSR_GS_BASE		0xc0000101

#ifdef __x86_64__

struct percpu percpu[MAX_CPUS];

static void wrmsrl(unsigned int msr, u64 value)
{
	write_msr(msr, value, value >> 32);
}

static void syscall_init(unsigned int cpu)
{
	int error;
	u64 efer;

	wrmsrl(MSR_GS_BASE, (unsigned long)&percpu[cpu]);
	wrmsrl(MSR_STAR, ((u64)(USER_CS - 16) << 48) | ((u64)KERNEL_CS << 32));
	wrmsrl(MSR_LSTAR, (unsigned long)entry_SYSCALL_64);
	wrmsrl(MSR_SYSCALL_MASK, 0x47700);	/* TF, IF, DF, IOPL, NT, AC */
	efer = read_msr_safe(MSR_EFER, &error) | EFER_SCE;
	write_msr_safe(MSR_EFER, efer, efer >> 32);
}

#else

static void syscall_init(unsigned int cpu)
{
	u32 eax = 1, ebx, ecx = 0, edx;

	cpuid(&eax, &ebx, &ecx, &edx);
	sysenter_works = edx & (1 << 11);
	if (!sysenter_works)
		return;
	write_msr(MSR_SYSENTER_CS, KERNEL_CS, 0);
	write_msr(MSR_SYSENTER_ESP, (u32)cpu_tss(cpu), 0);
	write_msr(MSR_SYSENTER_EIP, (u32)sysenter_entry, 0);
}

#endif

void tss_init(unsigned int cpu)
{
	put_tss(cpu_gdt(cpu), cpu_tss(cpu));
}

void cpu_init(unsigned int cpu)
{
	struct desc_ptr gdtr = { sizeof(gdt_pages[0].table) - 1, (unsigned long)cpu_gdt(cpu) };
	struct desc_ptr idtr = { sizeof(idt_table) - 1, (unsigned long)idt_table };
	struct tss_struct *tss = cpu_tss(cpu);
	struct task *task = current();
	unsigned int i;

	task->cpu = cpu;
	task->mm = &init_mm;
	task->thread.sp0 = (unsigned long)task + STACK_SIZE;
	for (i = 0; i < ARRAY_SIZE(segments); i++)
		put_segment(cpu_gdt(cpu), segments[i].entry, &segments[i].desc);
	tss_init(cpu);
	load_gdt(&gdtr);
#ifdef __x86_64__
	if (!on_xen)
#endif
		load_segments();
	if (cpu == 0)
		fill_idt();
	load_idt(&idtr);
	tss->io_bitmap_base = sizeof(*tss);	/* outside: no port is open to user mode */
#ifndef __x86_64__
	tss->ss0 = KERNEL_DS;
#endif
	load_tr_desc();
	syscall_init(cpu);
	set_kernel_stack(task);
}

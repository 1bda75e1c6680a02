// SPDX-License-Identifier: GPL-2.0
/* Compiled to assembly only: build.py turns the "=>" lines into asm_offsets.h for entry_32.S. */
#include "layout.h"

#define DEFINE(name, value)	asm volatile("\n=> " #name " %c0" : : "i" (value))
#define SITE(group, op)								\
	DEFINE(TYPE_##op, PV_TYPE(group, op));					\
	asm volatile("\n=> SLOT_" #op " %c0" : : "i" (&PV_SLOT(group, op)))

void offsets(void);

void offsets(void)
{
#ifndef __x86_64__
	SITE(cpu, iret);
	SITE(cpu, irq_enable_sysexit);
	SITE(irq, irq_enable);
	SITE(irq, irq_disable);
#endif
}

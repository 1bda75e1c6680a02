// SPDX-License-Identifier: GPL-2.0
/*
 * The guest patches itself as Linux does: each annotated site through the patch hook, into a buffer that begins as a copy of the
 * site, filled up with nops and poked in one piece; then, on x86_64, the alternatives. The command line can ask for the two ways of
 * 2007 that went wrong: patch=two-stage and patch=uninitialised.
 */
#include "paging.h"

#define MAX_PATCH	254

struct para_site {
	unsigned long instr;
	u8 type;
	u8 len;
#ifdef __x86_64__
	u8 padding[6];
#else
	u16 clobbers;
#endif
};

extern const struct para_site __parainstructions[], __parainstructions_end[];

#define MAX_NOP		8

/* Nops of 1 to 8 bytes, one after the other. */
#ifdef __x86_64__
static const u8 nops[] = {
	0x90, 0x66, 0x90, 0x0f, 0x1f, 0x00, 0x0f, 0x1f, 0x40, 0x00, 0x0f, 0x1f, 0x44, 0x00, 0x00,
	0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00, 0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00,
	0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00,
};

static const u8 *nop_table(void) { return nops; }
#else
static const u8 intel_nops[] = {
	0x90, 0x89, 0xf6, 0x8d, 0x76, 0x00, 0x8d, 0x74, 0x26, 0x00, 0x90, 0x8d, 0x74, 0x26, 0x00,
	0x8d, 0xb6, 0x00, 0x00, 0x00, 0x00, 0x8d, 0xb4, 0x26, 0x00, 0x00, 0x00, 0x00,
	0x90, 0x8d, 0xb4, 0x26, 0x00, 0x00, 0x00, 0x00,
};
static const u8 k8_nops[] = {
	0x90, 0x66, 0x90, 0x66, 0x66, 0x90, 0x66, 0x66, 0x66, 0x90, 0x66, 0x66, 0x90, 0x66, 0x90,
	0x66, 0x66, 0x90, 0x66, 0x66, 0x90, 0x66, 0x66, 0x66, 0x90, 0x66, 0x66, 0x90,
	0x66, 0x66, 0x66, 0x90, 0x66, 0x66, 0x66, 0x90,
};
static const u8 k7_nops[] = {
	0x90, 0x8b, 0xc0, 0x8d, 0x04, 0x20, 0x8d, 0x44, 0x20, 0x00, 0x8d, 0x44, 0x20, 0x00, 0x90,
	0x8d, 0x80, 0x00, 0x00, 0x00, 0x00, 0x8d, 0x04, 0x05, 0x00, 0x00, 0x00, 0x00,
	0x8d, 0x04, 0x05, 0x00, 0x00, 0x00, 0x00, 0x90,
};

static bool has_feature(unsigned int feature)
{
	return boot_info.features[feature / 32] & (1u << (feature % 32));
}

static const u8 *nop_table(void)
{
	return has_feature(X86_FEATURE_K8) ? k8_nops : has_feature(X86_FEATURE_K7) ? k7_nops : intel_nops;
}
#endif

static const u8 *nop(unsigned int length)
{
	return nop_table() + length * (length - 1) / 2;
}

static void add_nops(u8 *to, unsigned int length)
{
	while (length) {
		unsigned int piece = length > MAX_NOP ? MAX_NOP : length;

		memcpy(to, nop(piece), piece);
		to += piece;
		length -= piece;
	}
}

/* cpuid makes the processor fetch what was written; the op would be a site, so the plain instruction. */
static void sync_core(void)
{
	u32 eax = 0, ebx, ecx = 0, edx;

	asm volatile("cpuid" : "+a" (eax), "=b" (ebx), "+c" (ecx), "=d" (edx) : : "memory");
}

static void text_poke(void *to, const void *code, unsigned int length)
{
	memcpy(to, code, length);
	sync_core();
	guest_report.pokes++;
}

/* As in July 2007 (19d36ccdc34f): look whether the page is writable first. The walk calls ops at sites being patched. */
static noinline void text_poke_checked(void *to, const void *code, unsigned int length)
{
	pte_t *pte = walk(init_mm.pgd, (unsigned long)to);

	BUG_ON(!pte || !(pte_val(*pte) & _PAGE_RW) || (pgd_val(init_mm.pgd[level_index(ROOT_LEVEL, (unsigned long)to)]) == 0));
	text_poke(to, code, length);
}

static unsigned int ask(const struct para_site *site, u8 *insnbuf)
{
	unsigned int used;

#ifdef __x86_64__
	used = boot_patch(site->type, 0, insnbuf, site->instr, site->len);
#else
	used = boot_patch(site->type, site->clobbers, insnbuf, site->instr, site->len);
#endif
	BUG_ON(used > site->len);
	return used;
}

static void patch_site(const struct para_site *site)
{
	u8 insnbuf[MAX_PATCH];
	unsigned int used;

	memcpy(insnbuf, (void *)site->instr, site->len);
	used = ask(site, insnbuf);
	add_nops(insnbuf + used, site->len - used);
	text_poke((void *)site->instr, insnbuf, site->len);
}

/* ab144f5ec64c: one poke, but the buffer holds what the stack held; d34fda4a84c1 copies the site into it. */
static noinline void patch_site_uninitialised(const struct para_site *site)
{
	u8 insnbuf[MAX_PATCH];
	unsigned int used;

	asm volatile("" : "=m" (insnbuf));
	used = ask(site, insnbuf);
	add_nops(insnbuf + used, site->len - used);
	text_poke((void *)site->instr, insnbuf, site->len);
}

/* Before ab144f5ec64c: the new code goes in place, then the rest is filled with nops, piece by piece. */
static void patch_site_two_stage(const struct para_site *site)
{
	u8 insnbuf[MAX_PATCH], *at = (u8 *)site->instr;
	unsigned int used, left;

	memcpy(insnbuf, at, site->len);
	used = ask(site, insnbuf);
	memcpy(at, insnbuf, used);
	sync_core();
	guest_report.pokes++;
	for (left = site->len - used, at += used; left; ) {
		unsigned int piece = left > MAX_NOP ? MAX_NOP : left;

		text_poke_checked(at, nop(piece), piece);
		at += piece;
		left -= piece;
	}
}

static void apply_paravirt(void)
{
	void (*how)(const struct para_site *) = patch_site;
	const struct para_site *site;

	if (option("noreplace-paravirt"))
		return;
	if (option("patch=two-stage"))
		how = patch_site_two_stage;
	else if (option("patch=uninitialised"))
		how = patch_site_uninitialised;
	for (site = __parainstructions; site < __parainstructions_end; site++) {
		BUG_ON(site->len > MAX_PATCH);
		how(site);
	}
}

#ifdef __x86_64__

extern const struct alt_instr __alt_instructions[], __alt_instructions_end[];

static bool has_feature(unsigned int feature)
{
	return boot_info.features[feature / 32] & (1u << (feature % 32));
}

/* A jump's displacement counts from the site; one that fits in eight bits becomes a short jump. Gives the bytes used. */
static unsigned int relocate(u8 *code, unsigned int length, const u8 *replacement, const u8 *site)
{
	int displacement;

	if (length != 5 || (code[0] != 0xe8 && code[0] != 0xe9))
		return length;
	memcpy(&displacement, code + 1, 4);
	displacement += replacement - site;
	if (code[0] == 0xe9 && displacement + 3 >= -128 && displacement + 3 <= 127) {
		code[0] = 0xeb;
		code[1] = displacement + 3;
		return 2;
	}
	memcpy(code + 1, &displacement, 4);
	return length;
}

static void apply_alternatives(void)
{
	const struct alt_instr *alt;

	for (alt = __alt_instructions; alt < __alt_instructions_end; alt++) {
		u8 *site = (u8 *)&alt->instr_offset + alt->instr_offset;
		const u8 *replacement = (const u8 *)&alt->repl_offset + alt->repl_offset;
		u8 code[MAX_PATCH];
		unsigned int used;

		BUG_ON(alt->instrlen > MAX_PATCH || alt->replacementlen > alt->instrlen);
		if (has_feature(alt->cpuid & ~ALTINSTR_FLAG_INV) == !!(alt->cpuid & ALTINSTR_FLAG_INV))
			continue;
		memcpy(code, replacement, alt->replacementlen);
		used = relocate(code, alt->replacementlen, replacement, site);
		add_nops(code + used, alt->instrlen - used);
		text_poke(site, code, alt->instrlen);
		guest_report.alternatives++;
	}
}

#endif

/* With interrupts off, before other CPUs run. */
void patch_kernel(void)
{
	guest_report.sites = __parainstructions_end - __parainstructions;
	apply_paravirt();
#ifdef __x86_64__
	if (!option("noreplace-alternatives"))
		apply_alternatives();
#endif
}

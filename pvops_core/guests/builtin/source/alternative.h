/* SPDX-License-Identifier: GPL-2.0 */
/* ALTERNATIVE as Linux 6.1 has it: the entry, the feature flag with its inversion, and the padding of a site that is too short. */
#ifndef GUEST_ALTERNATIVE_H
#define GUEST_ALTERNATIVE_H

#define ALTINSTR_FLAG_INV	0x8000
#define ALT_NOT(feature)	(ALTINSTR_FLAG_INV | (feature))
#define X86_FEATURE_K7		(3 * 32 + 4)
#define X86_FEATURE_K8		(3 * 32 + 5)
#define X86_FEATURE_XENPV	(8 * 32 + 16)
#define X86_FEATURE_PVUNLOCK	(8 * 32 + 20)
#define X86_FEATURE_VCPUPREEMPT	(8 * 32 + 21)

#ifdef __ASSEMBLER__

.macro ALTERNATIVE old, new, feature
771:	\old
773:	.skip	-(((776f - 775f) - (773b - 771b)) > 0) * ((776f - 775f) - (773b - 771b)), 0x90
774:
	.pushsection .altinstr_replacement,"ax"
775:	\new
776:
	.popsection
	.pushsection .altinstructions,"a"
	.long	771b - .
	.long	775b - .
	.word	\feature
	.byte	774b - 771b
	.byte	776b - 775b
	.popsection
.endm

#else

#include "types.h"

struct alt_instr {
	int instr_offset;		/* relative to its own address, as is the next */
	int repl_offset;
	u16 cpuid;			/* feature, with ALTINSTR_FLAG_INV */
	u8 instrlen;
	u8 replacementlen;
} __packed;

#define __ALT_STR(x)	#x
#define ALT_STR(x)	__ALT_STR(x)

#define ALTERNATIVE(old, new, feature)						\
	"661:\n\t" old "\n662:\n\t"						\
	".skip -(((665f-664f)-(662b-661b)) > 0) * ((665f-664f)-(662b-661b)),0x90\n663:\n\t"	\
	".pushsection .altinstructions,\"a\"\n\t"				\
	".long 661b - .\n\t.long 664f - .\n\t.word " ALT_STR(feature) "\n\t"	\
	".byte 663b-661b\n\t.byte 665f-664f\n\t.popsection\n\t"			\
	".pushsection .altinstr_replacement,\"ax\"\n664:\n\t" new "\n665:\n\t.popsection\n\t"

#endif
#endif

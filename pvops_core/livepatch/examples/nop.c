/* SPDX-License-Identifier: GPL-2.0 */
/*
 * In the role of xen_nop: a function becomes nops up to its last byte, so the source has nothing to say.
 *
 *	pvops livepatch build nop.c -o nop.livepatch --function memset=
 */
#include <livepatch.h>

LIVEPATCH_METADATA("role=nop");

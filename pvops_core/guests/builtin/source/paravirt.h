/* SPDX-License-Identifier: GPL-2.0 */
#ifndef GUEST_PARAVIRT_H
#define GUEST_PARAVIRT_H

#ifdef __x86_64__
#include "paravirt_64.h"
#else
#include "paravirt_32.h"
#include "alternative.h"
#endif

#endif

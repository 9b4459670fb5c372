/* SPDX-License-Identifier: MIT */
#ifndef LUNATIK_SHIM_STDINT_H
#define LUNATIK_SHIM_STDINT_H

#include <linux/types.h>

#ifndef UINTPTR_MAX
#define UINTPTR_MAX	(~0UL)
#endif
#ifndef INTPTR_MAX
#define INTPTR_MAX	LONG_MAX
#endif

#endif

/* SPDX-License-Identifier: MIT */
#ifndef LUNATIK_SHIM_STDINT_H
#define LUNATIK_SHIM_STDINT_H

#include <linux/types.h>

/* No INTPTR_MAX: 6.1 has no intptr_t, and Lua then takes ptrdiff_t, the same long. */
#ifndef UINTPTR_MAX
#define UINTPTR_MAX	(~0UL)
#endif

#endif

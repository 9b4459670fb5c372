/* SPDX-License-Identifier: MIT */
#ifndef LUNATIK_SHIM_STDIO_H
#define LUNATIK_SHIM_STDIO_H

#include <linux/kernel.h>

/* Only ever a pointer in a declaration of lauxlib.h. */
typedef struct lunatik_file FILE;

#endif

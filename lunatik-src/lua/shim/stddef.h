/* SPDX-License-Identifier: MIT */
#ifndef LUNATIK_SHIM_STDDEF_H
#define LUNATIK_SHIM_STDDEF_H

#include <linux/stddef.h>
#include <linux/types.h>

#endif

/* SPDX-License-Identifier: MIT */
#ifndef LUNATIK_SHIM_STDLIB_H
#define LUNATIK_SHIM_STDLIB_H

#include <linux/bug.h>
#include <linux/kernel.h>

/* Reached only by an error outside every protected call: a bug of a binding. */
#define abort()		BUG()

#endif

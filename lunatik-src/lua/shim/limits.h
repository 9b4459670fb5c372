/* SPDX-License-Identifier: MIT */
#ifndef LUNATIK_SHIM_LIMITS_H
#define LUNATIK_SHIM_LIMITS_H

#include <linux/limits.h>
#include <linux/kernel.h>

/* Lua compares these in #if, where the kernel's casts are no expressions. */
#undef INT_MAX
#undef LONG_MAX
#undef LLONG_MAX
#define INT_MAX		2147483647
#define LONG_MAX	9223372036854775807L
#define LLONG_MAX	9223372036854775807LL

#ifndef CHAR_BIT
#define CHAR_BIT	8
#endif
#ifndef UCHAR_MAX
#define UCHAR_MAX	255
#endif
#ifndef SCHAR_MAX
#define SCHAR_MAX	127
#endif
#ifndef CHAR_MAX
#define CHAR_MAX	((char)255 > 0 ? 255 : 127)
#endif

#endif

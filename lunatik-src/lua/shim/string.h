/* SPDX-License-Identifier: MIT */
#ifndef LUNATIK_SHIM_STRING_H
#define LUNATIK_SHIM_STRING_H

#include <linux/string.h>

#define strcoll(a, b)	strcmp(a, b)

#endif

/* SPDX-License-Identifier: MIT */
#ifndef LUNATIK_SHIM_ASSERT_H
#define LUNATIK_SHIM_ASSERT_H

#define assert(condition)	((void)0)

#endif

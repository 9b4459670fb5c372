/* SPDX-License-Identifier: MIT */
#ifndef LUNATIK_SHIM_FLOAT_H
#define LUNATIK_SHIM_FLOAT_H

/* A lua_Number is a 64-bit integer here: 63 binary, 19 decimal digits. */
#define DBL_DIG			19
#define DBL_MANT_DIG		63
#define DBL_MAX_10_EXP		19

#endif

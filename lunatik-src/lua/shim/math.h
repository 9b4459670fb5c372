/* SPDX-License-Identifier: MIT */
#ifndef LUNATIK_SHIM_MATH_H
#define LUNATIK_SHIM_MATH_H

/*
 * Nothing here is ever executed: no value has the float tag, so the compiler
 * drops each branch that would use these. They only have to be valid C over
 * integers.
 */
#define HUGE_VAL	LLONG_MAX
#define HUGE_VALF	LLONG_MAX

#define floor(x)	(x)
#define fabs(x)		(x)
#define fmod(a, b)	((void)(a), (void)(b), 0)
#define pow(a, b)	((void)(a), (void)(b), 0)
#define ldexp(x, e)	((void)(e), (x))
#define frexp(x, e)	(*(e) = 0, (x))

#endif

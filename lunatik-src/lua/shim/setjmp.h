/* SPDX-License-Identifier: MIT */
#ifndef LUNATIK_SHIM_SETJMP_H
#define LUNATIK_SHIM_SETJMP_H

/* rbx, rbp, r12 to r15, rsp and the return address: what the ABI keeps. */
typedef unsigned long jmp_buf[8];

int lunatik_setjmp(jmp_buf env) __attribute__((returns_twice));
void lunatik_longjmp(jmp_buf env, int value);

#define setjmp(env)		lunatik_setjmp(env)
#define longjmp(env, value)	lunatik_longjmp(env, value)

#endif

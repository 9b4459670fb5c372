/* SPDX-License-Identifier: MIT */
/*
 * What the kernel wants Lua to be: included at the end of luaconf.h, so every
 * file of Lua, of the runtime and of the bindings sees the same limits.
 */
#ifndef LUAKERNEL_H
#define LUAKERNEL_H

/*
 * objtool knows no function of a module that doesn't return, and complains of
 * callers that end in one; without the attribute the compiler emits a return
 * that is never reached.
 */
#define l_noret			void

/* No FILE, no environment, no process: guards in lauxlib, lbaselib, ldblib. */
#define LUA_NOSTDIO

/* No bytecode in or out: the loader trusts it, and no verifier exists. */
#define LUA_NOBYTECODE

#define LUA_NOFLOAT		"floating point is not available in the kernel"

/* A jump table is a table of indirect jumps, slow and noisy with retpolines. */
#define LUA_USE_JUMPTABLE	0

/* Slots of a Lua stack: 3.2 MB, below the memory that a runtime may hold. */
#define LUAI_MAXSTACK		200000

#undef lua_getlocaledecpoint
#define lua_getlocaledecpoint()	'.'

/* Operators whose operands are always floats; never executed. */
#define luai_numdiv(L, a, b)	((void)(L), (void)(a), (void)(b), 0)
#define luai_numidiv(L, a, b)	((void)(L), (void)(a), (void)(b), 0)
#define luai_numpow(L, a, b)	((void)(L), (void)(a), (void)(b), 0)

/* sparse wants no extern on a definition. */
#undef LUA_API
#define LUA_API
#define LUAI_FUNC
#define LUAI_DDEC(dec)		extern dec
#define LUAI_DDEF

unsigned int lunatikvm_seed(void);
unsigned long long lunatikvm_pointer(const void *p);
int lunatikvm_unsafe(void);
int lunatikvm_format(char *text, __SIZE_TYPE__ size, const char *form, long long n);

/* Scripts see that two objects are the same, but not where they are. */
#undef lua_pointer2str
#define lua_pointer2str(buff, sz, p)  \
	snprintf(buff, sz, "0x%016llx", lunatikvm_pointer(p))

/* luaB_print, which the runtime replaces by its own */
#define lua_writestring(s, l)		((void)(s), (void)(l))
#define lua_writeline()			((void)0)

#define luai_makeseed()			lunatikvm_seed()

#endif

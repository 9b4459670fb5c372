/* SPDX-License-Identifier: MIT */
/*
 * Budget, stop and C stack of a state: a part of its global_State.
 *
 * Lua charges itself for what it does, roughly in instructions of its machine.
 * 'slice' is what may be spent before somebody looks; it goes below zero when
 * it is spent or the state is stopped, so that one comparison serves both.
 * Where an error may be thrown Lua charges (luai_charge), elsewhere, in the
 * collector for one, it only notes (luai_note), and the next charge throws.
 */
#ifndef LUABUDGET_H
#define LUABUDGET_H

#include <linux/types.h>

#include "lua.h"

struct lunatikvm {
	s64 slice;		/* may be spent before the next look */
	s64 left;		/* of the budget, beyond the slice */
	s64 granted;		/* to this entry, all in all */
	u64 used;		/* by former entries */
	u64 spent;		/* by the entry that was stopped */
	unsigned int depth;	/* of nested entries */
	int requested;		/* reason; written from any context */
	int stopped;		/* reason, as the owner of the state knows it */
	bool exempt;		/* running a finalizer in C: nothing throws */
	bool overflowing;	/* handling a C stack overflow */
	bool outermost;		/* of the states on this CPU's interrupt stack */
	unsigned long lowest;	/* address that the C stack may come down to */
	void (*pause)(lua_State *L, void *data);
	void *data;
	char where[LUA_IDSIZE + 12];
	char warning[160];	/* as far as it has come */
	bool silent;		/* warnings are off */
};

/* Throws when the C stack is short. */
void lunatikvm_checkstack(lua_State *L);

/* Looks what is left: throws LUA_ERRSTOP, or grants the next slice. */
void lunatikvm_spent(lua_State *L);

/* follows LUA_ERRERR, LUA_ERRFILE; three bits of a call status hold it */
#define LUA_ERRSTOP		(LUA_ERRERR + 2)

#define luai_note(L, n)		(G(L)->vm.slice -= (s64)(n))

#define luai_charge(L, n)  \
	{ if (l_unlikely(luai_note(L, n) < 0)) lunatikvm_spent(L); }

/* for what finalizers in C do as well */
#define luai_chargeC(L, n)  \
	{ if (l_unlikely(luai_note(L, n) < 0) && !G(L)->vm.exempt) \
	    lunatikvm_spent(L); }

/* bytes copied, compared or cleared, in instructions */
#define luai_bytes(n)		((n) >> 5)

/* a long string is hashed, compared or scanned byte by byte */
#define luai_notelong(L, o)  \
	{ if (l_unlikely(ttislngstring(o))) \
	    luai_note(L, tsvalue(o)->u.lnglen >> 3); }

/* a call of a C function, on top of what it charges itself */
#define LUAI_CALLCOST		12

/* true when the C stack has come down too far for another level */
#define luai_stacklow(L)  \
	((unsigned long)__builtin_frame_address(0) < G(L)->vm.lowest)

/*
 * Too near to that for a finalizer, which has one chance: its call looks for
 * room again some 450 bytes further down (GCTM, luaD_pcall, ccall), and one
 * that fails there has let go of nothing.
 */
#define LUAI_STACKFINAL		1024
#define luai_stackshort(L)  \
	((unsigned long)__builtin_frame_address(0) < G(L)->vm.lowest + LUAI_STACKFINAL)

/* keyed, at random unless the module parameter hashseed says otherwise */
unsigned int lunatikvm_hash(u64 n);
unsigned int lunatikvm_hashbytes(const char *bytes, size_t length);
void lunatikvm_setsecret(void);

/* a local variable that is filled before it is read, whatever the kernel clears */
#if __has_attribute(uninitialized)
#define LUAI_UNCLEARED		__attribute__((uninitialized))
#else
#define LUAI_UNCLEARED
#endif

/* what a C stack overflow leaves for its handlers */
#define LUAI_STACKEXTRA		1536

#endif

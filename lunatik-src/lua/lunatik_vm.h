/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the runtime asks of the Lua machine beyond lua.h: budget, stop, stack.
 *
 * A state belongs to one context at a time, and that context alone calls what
 * stands here. Only lunatikvm_stop() and lunatikvm_stopped() may be called
 * from anywhere, interrupts included, as long as the state exists.
 *
 *	lua_newstate(); lunatikvm_init();
 *	lunatikvm_enter(); lua_pcall(); ... lunatikvm_leave();
 *	lunatikvm_enter(); lua_close();
 */
#ifndef LUNATIK_VM_H
#define LUNATIK_VM_H

#include <linux/types.h>

#include "lua.h"

/*
 * Why a state is stopped. Once it is, it stays so: no Lua function of it runs
 * again, finalizers and __close included. Every protected call returns
 * LUA_ERRSTOP (luabudget.h) to C; pcall, xpcall and coroutines never return to Lua.
 */
enum lunatikvm_reason {
	LUNATIKVM_RUNNING,
	LUNATIKVM_BUDGET,	/* instructions of one entry used up */
	LUNATIKVM_REQUEST,	/* somebody asked for it */
	LUNATIKVM_REASONS
};

/*
 * Called each few thousand instructions, outside of every lock of Lua's: may
 * sleep if the state's context may, and may call lunatikvm_stop().
 */
typedef void (*lunatikvm_pause)(lua_State *L, void *data);

void lunatikvm_init(lua_State *L, lunatikvm_pause pause, void *data);

/*
 * Before each call from the kernel into the state, and after it. The outermost
 * enter grants the budget and measures the C stack that is left; nested ones
 * live on what remains. leave returns what this entry was charged, 0 if it was
 * nested.
 */
void lunatikvm_enter(lua_State *L, u64 instructions);
u64 lunatikvm_leave(lua_State *L);

/* What came of lunatikvm_call(). */
struct lunatikvm_result {
	int value;		/* what the function returned, if it did */
	u64 instructions;	/* charged */
};

/*
 * enter, lua_pcall() of a C function without its detours, leave: calls
 * @function(@L, @arg) with an empty stack of LUA_MINSTACK slots. Nobody is
 * inside the state.
 *
 * Return: LUA_OK with the stack as it was; or what lua_pcall() would, with the
 * message that @handler made of the error on top, to be taken off.
 */
int lunatikvm_call(lua_State *L, u64 instructions, int (*function)(lua_State *L, void *arg),
		   void *arg, lua_CFunction handler, struct lunatikvm_result *result);

/*
 * lua_pcall() of a C function in the frame of the one that calls: with its
 * stack, and with errors that tell the place in the script. Nothing is charged.
 *
 * Return: LUA_OK with as many values on the stack as before; or what
 * lua_pcall() would, with the error on top of them.
 */
int lunatikvm_try(lua_State *L, void (*function)(lua_State *L, void *arg), void *arg);

/* Instructions charged since the state exists. */
u64 lunatikvm_used(lua_State *L);

/* For loops in C that a script can make long: throws when over budget. */
void lunatikvm_charge(lua_State *L, size_t instructions);

/* Throws if less C stack is left than a call of a C function wants. */
void lunatikvm_checkstack(lua_State *L);

void lunatikvm_stop(lua_State *L, enum lunatikvm_reason reason);
enum lunatikvm_reason lunatikvm_stopped(lua_State *L);

/* "instruction budget exceeded" */
const char *lunatikvm_why(enum lunatikvm_reason reason);

/* "script.lua:12", where the state was when it was stopped; "" if unknown. */
const char *lunatikvm_where(lua_State *L);

/* The full userdata of exactly @size bytes at stack index @index, or NULL. */
void *lunatikvm_touserdata(lua_State *L, int index, size_t size);

/*
 * Opens base, coroutine, debug, math, string, table and utf8. May throw. Of
 * debug only what can do no harm, unless the module parameter unsafe_debug.
 */
void lunatikvm_openlibs(lua_State *L);

/* The seed for lua_newstate(). */
unsigned int lunatikvm_seed(void);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * xt_lua.h - what iptables hands to the match "lua" and the target "LUA"
 *
 * Shared with tools/xtables/libxt_lua.c: this is binary interface.
 */
#ifndef XT_LUA_H
#define XT_LUA_H

#define XT_LUA_NAME_MAX		32
#define XT_LUA_ARGUMENT_MAX	128

/**
 * struct xt_lua_info - one rule's "--function NAME [--argument TEXT]"
 * @function: name that a script gave its function; ends with a NUL
 * @argument: handed to the function; ends with a NUL
 * @flags: XT_LUA_INVERT, of the match only
 * @slot: the kernel's
 */
struct xt_lua_info {
	char function[XT_LUA_NAME_MAX];
	char argument[XT_LUA_ARGUMENT_MAX];
	__u32 flags;
	void *slot;
};

#define XT_LUA_INVERT	1

#endif /* XT_LUA_H */

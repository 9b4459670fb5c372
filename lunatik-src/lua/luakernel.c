// SPDX-License-Identifier: GPL-2.0-only
/*
 * What Lua finds in an operating system and here gets from the kernel.
 */
#include <linux/export.h>
#include <linux/printk.h>
#include <linux/random.h>

#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"
#include "lunatik_vm.h"

unsigned int lunatikvm_seed(void)
{
	return get_random_u32();
}

void lunatikvm_print(const char *text, unsigned long length)
{
	pr_cont("%.*s", (int)length, text);
}

static const luaL_Reg libraries[] = {
	{LUA_GNAME, luaopen_base},
	{LUA_COLIBNAME, luaopen_coroutine},
	{LUA_DBLIBNAME, luaopen_debug},
	{LUA_MATHLIBNAME, luaopen_math},
	{LUA_STRLIBNAME, luaopen_string},
	{LUA_TABLIBNAME, luaopen_table},
	{LUA_UTF8LIBNAME, luaopen_utf8},
	{}
};

void lunatikvm_openlibs(lua_State *L, int flags)
{
	const luaL_Reg *library;

	for (library = libraries; library->name; library++) {
		luaL_requiref(L, library->name, library->func, 1);
		lua_pop(L, 1);
	}
}

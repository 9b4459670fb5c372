// SPDX-License-Identifier: GPL-2.0-only
/*
 * require(): Lua files below /lib/modules/lua, and C libraries by symbol.
 *
 * A runtime pins every module whose code its Lua state may call, from the
 * first look until the state is closed.
 */
#include <linux/ctype.h>
#include <linux/kmod.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "core.h"

#define LUNATIK_SYMBOL_MAX	56	/* MODULE_NAME_LEN holds the alias, too */

struct pin {
	struct list_head node;	/* runtime->pins, by the owner of its Lua state */
	struct module *owner;	/* held; or NULL and */
	void *symbol;		/* its module is held by __symbol_get() */
};

static struct pin *add_pin(struct lunatik_runtime *runtime, gfp_t gfp)
{
	struct pin *pin = NULL;

	if (!lunatik_fault())
		pin = kzalloc(sizeof(*pin), gfp | __GFP_NOWARN);
	if (pin)
		list_add(&pin->node, &runtime->pins);
	return pin;
}

/* Hold @owner until @runtime is gone; false when out of memory. */
bool lunatik_pin(struct lunatik_runtime *runtime, struct module *owner, gfp_t gfp)
{
	struct pin *pin;

	if (!owner || owner == THIS_MODULE)
		return true;
	list_for_each_entry(pin, &runtime->pins, node)
		if (pin->owner == owner)
			return true;

	pin = add_pin(runtime, gfp);
	if (!pin)
		return false;
	__module_get(owner);
	pin->owner = owner;
	return true;
}

void lunatik_unpin_all(struct lunatik_runtime *runtime)
{
	struct pin *pin, *next;

	list_for_each_entry_safe(pin, next, &runtime->pins, node) {
		if (pin->symbol)
			symbol_put_addr(pin->symbol);
		module_put(pin->owner);
		kfree(pin);
	}
	INIT_LIST_HEAD(&runtime->pins);
}

/* ---- searchers: push the loader and its extra value, or a message ---- */

/* "linux.nf" -> "linux_nf"; false if no symbol can be called so */
static bool symbol_of(const char *name, char *symbol, size_t size)
{
	size_t i;

	for (i = 0; name[i]; i++) {
		if (i + 1 >= size || !(isalnum(name[i]) || strchr("._", name[i])))
			return false;
		symbol[i] = name[i] == '.' ? '_' : name[i];
	}
	symbol[i] = '\0';
	return i > 0;
}

/* One for each symbol is enough, however often a script forgets that it has it. */
static void forget_second(struct lunatik_runtime *runtime, struct pin *pin)
{
	struct pin *other;

	list_for_each_entry(other, &runtime->pins, node) {
		if (other == pin || other->symbol != pin->symbol)
			continue;
		symbol_put_addr(pin->symbol);
		list_del(&pin->node);
		kfree(pin);
		return;
	}
}

static int search_c(lua_State *L, const char *name)
{
	char symbol[LUNATIK_SYMBOL_MAX], function[LUNATIK_SYMBOL_MAX + 16];
	struct pin *pin;

	if (!symbol_of(name, symbol, sizeof(symbol))) {
		lua_pushliteral(L, "\n\tno C library of that name");
		return 1;
	}
	snprintf(function, sizeof(function), "luaopen_%s", symbol);

	/* First: nothing may throw before a second pin is forgotten. */
	lua_pushstring(L, function);
	pin = add_pin(lunatik_toruntime(L), GFP_KERNEL);
	if (!pin)
		return luaL_error(L, "not enough memory");
	pin->symbol = __symbol_get(function);
	/* modprobe may want the very lock that all wait for. */
	if (!pin->symbol && !lunatik_hurried(L)) {
		request_module("lunatik-%s", symbol);
		pin->symbol = __symbol_get(function);
		lunatik_slept(L);
	}
	if (!pin->symbol) {
		list_del(&pin->node);
		kfree(pin);
		lua_pushfstring(L, "\n\tno symbol '%s'", function);
		return 1;
	}
	lua_pushcfunction(L, (lua_CFunction)pin->symbol);
	lua_insert(L, -2);
	forget_second(lunatik_toruntime(L), pin);
	return 2;
}

/* One template of package.path: "/lib/modules/lua/?.lua" */
static bool search_template(lua_State *L, const char *template, size_t length,
			    const char *file)
{
	char path[256];
	const char *mark = memchr(template, '?', length);
	int used, status;

	if (!mark || strncmp(template, LUNATIK_ROOT, strlen(LUNATIK_ROOT)))
		return false;
	used = snprintf(path, sizeof(path), "%.*s%s%.*s", (int)(mark - template), template,
			file, (int)(template + length - mark - 1), mark + 1);
	if (used >= sizeof(path) || strstr(path, ".."))
		return false;

	status = lunatik_load_path(L, path + strlen(LUNATIK_ROOT));
	if (status == -ENOENT) {
		lua_pushfstring(L, "\n\tno file '%s'", path);
		return false;
	}
	if (status)
		lua_error(L);
	lua_pushstring(L, path);
	return true;
}

/* Leaves loader and path, or the messages as one string. */
static int search_lua(lua_State *L, const char *name)
{
	int base = lua_gettop(L);
	const char *path, *end, *file;
	size_t length;

	luaL_gsub(L, name, ".", "/");
	file = lua_tolstring(L, -1, &length);
	lua_getfield(L, lua_upvalueindex(1), "path");
	path = lua_tostring(L, -1);
	if (!path)
		luaL_error(L, "'package.path' must be a string");

	for (;; path = end + 1) {
		int count = lua_gettop(L);

		end = strchrnul(path, ';');
		luaL_checkstack(L, 8, NULL);
		/* All of it, however much of the name search_template() has room for. */
		lunatikvm_charge(L, (end - path + length) / 16);
		if (search_template(L, path, end - path, file))
			return 2;
		lunatikvm_charge(L, 100);
		if (lua_gettop(L) == count)
			lua_pushfstring(L, "\n\tno template below '%s'", LUNATIK_ROOT);
		if (count > base + 2)
			lua_concat(L, 2);
		if (!*end)
			break;
	}
	return 1;
}

static int search_preload(lua_State *L, const char *name)
{
	lua_getfield(L, lua_upvalueindex(1), "preload");
	if (lua_type(L, -1) == LUA_TTABLE && lua_getfield(L, -1, name) != LUA_TNIL) {
		lua_pushliteral(L, ":preload:");
		return 2;
	}
	lua_pushfstring(L, "\n\tno field package.preload['%s']", name);
	return 1;
}

static int require(lua_State *L)
{
	static int (*const searchers[])(lua_State *, const char *) = {
		search_preload, search_lua, search_c,
	};
	size_t length;
	const char *name = luaL_checklstring(L, 1, &length);
	int i, found = 0;

	/* Files and symbols end at a zero, and another name would be loaded. */
	luaL_argcheck(L, strlen(name) == length, 1, "zero byte in the name of a module");
	lua_settop(L, 1);
	lua_getfield(L, lua_upvalueindex(1), "loaded");		/* 2 */
	luaL_checktype(L, 2, LUA_TTABLE);
	if (lua_getfield(L, 2, name) != LUA_TNIL)
		return 1;
	lua_settop(L, 2);
	lunatik_checksleep(L, "require");
	lunatikvm_checkstack(L);

	lua_pushfstring(L, "module '%s' not found:", name);	/* 3: messages */
	for (i = 0; i < ARRAY_SIZE(searchers) && found != 2; i++) {
		found = searchers[i](L, name);
		if (found == 1) {
			lua_pushvalue(L, 3);
			lua_insert(L, -2);
			lua_concat(L, 2);
			lua_replace(L, 3);
			lua_settop(L, 3);
		}
	}
	if (found != 2) {
		lua_settop(L, 3);
		return lua_error(L);
	}

	/* loader, extra */
	lua_pushvalue(L, 1);
	lua_pushvalue(L, -2);		/* loader, extra, name, extra */
	lua_pushvalue(L, -4);
	lua_insert(L, -3);		/* loader, extra, loader, name, extra */
	lua_call(L, 2, 1);
	if (!lua_isnil(L, -1))
		lua_setfield(L, 2, name);
	if (lua_getfield(L, 2, name) == LUA_TNIL) {
		/* It returned nothing and set nothing: it is there, that is all. */
		lua_pushboolean(L, true);
		lua_pushvalue(L, -1);
		lua_setfield(L, 2, name);
	}
	return 1;
}

void lunatik_open_package(lua_State *L)
{
	lua_createtable(L, 0, 4);
	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	lua_setfield(L, -2, "loaded");
	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
	lua_setfield(L, -2, "preload");
	lua_pushliteral(L, LUNATIK_ROOT "?.lua;" LUNATIK_ROOT "?/init.lua");
	lua_setfield(L, -2, "path");
	lua_pushliteral(L, "/\n;\n?\n!\n-\n");
	lua_setfield(L, -2, "config");

	lua_pushvalue(L, -1);
	lua_pushcclosure(L, require, 1);
	lua_setglobal(L, "require");

	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	lua_pushvalue(L, -2);
	lua_setfield(L, -2, "package");
	lua_pop(L, 1);
	lua_setglobal(L, "package");
}

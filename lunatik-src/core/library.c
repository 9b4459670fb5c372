// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a binding is made of: libraries, constants, and checks of arguments.
 */
#include <linux/export.h>
#include <linux/string.h>

#include "core.h"

static const char *context_name(enum lunatik_context context)
{
	switch (context) {
	case LUNATIK_PROCESS:
		return "process";
	case LUNATIK_SOFTIRQ:
		return "softirq";
	default:
		return "hardirq";
	}
}

void lunatik_checkcontext(lua_State *L, unsigned int contexts, const char *what)
{
	enum lunatik_context context = lunatik_toruntime(L)->context;

	if (!(context & contexts))
		luaL_error(L, "%s: not available in a %s runtime", what, context_name(context));
}
EXPORT_SYMBOL_GPL(lunatik_checkcontext);

void lunatik_checksleep(lua_State *L, const char *what)
{
	if (!lunatik_maysleep(L))
		luaL_error(L, "%s: may sleep, which an interrupt can't", what);
	/* A finalizer: nobody could wake it, and the end would not come. */
	if (lunatik_toruntime(L)->closing)
		luaL_error(L, "%s: not while the runtime ends", what);
}
EXPORT_SYMBOL_GPL(lunatik_checksleep);

void lunatik_checkwait(lua_State *L, const char *what)
{
	lunatik_checksleep(L, what);
	if (lunatik_hurried(L))
		luaL_error(L, "%s: not where all the kernel waits", what);
}
EXPORT_SYMBOL_GPL(lunatik_checkwait);

lua_Integer lunatik_checkrange(lua_State *L, int arg, lua_Integer min, lua_Integer max)
{
	lua_Integer value = luaL_checkinteger(L, arg);

	if (unlikely(value < min || value > max))
		luaL_argerror(L, arg, "out of bounds");
	return value;
}
EXPORT_SYMBOL_GPL(lunatik_checkrange);

lua_Integer lunatik_optrange(lua_State *L, int arg, lua_Integer fallback,
			     lua_Integer min, lua_Integer max)
{
	return lua_isnoneornil(L, arg) ? fallback : lunatik_checkrange(L, arg, min, max);
}
EXPORT_SYMBOL_GPL(lunatik_optrange);

static lua_Integer field_range(lua_State *L, const char *name, lua_Integer min, lua_Integer max)
{
	int isinteger;
	lua_Integer value = lua_tointegerx(L, -1, &isinteger);

	if (!isinteger)
		luaL_error(L, "bad field '%s' (integer expected, got %s)", name,
			   luaL_typename(L, -1));
	if (value < min || value > max)
		luaL_error(L, "bad field '%s' (out of bounds)", name);
	lua_pop(L, 1);
	return value;
}

lua_Integer lunatik_fieldrange(lua_State *L, int table, const char *name,
			       lua_Integer min, lua_Integer max)
{
	lua_getfield(L, table, name);
	return field_range(L, name, min, max);
}
EXPORT_SYMBOL_GPL(lunatik_fieldrange);

lua_Integer lunatik_optfieldrange(lua_State *L, int table, const char *name,
				  lua_Integer fallback, lua_Integer min, lua_Integer max)
{
	if (lua_getfield(L, table, name) == LUA_TNIL) {
		lua_pop(L, 1);
		return fallback;
	}
	return field_range(L, name, min, max);
}
EXPORT_SYMBOL_GPL(lunatik_optfieldrange);

/* The value stays on the stack: a metamethod may have made it for us only. */
static const char *field_string(lua_State *L, const char *name, size_t *length)
{
	if (lua_type(L, -1) != LUA_TSTRING)
		luaL_error(L, "bad field '%s' (string expected, got %s)", name,
			   luaL_typename(L, -1));
	return lua_tolstring(L, -1, length);
}

const char *lunatik_fieldstring(lua_State *L, int table, const char *name, size_t *length)
{
	lua_getfield(L, table, name);
	return field_string(L, name, length);
}
EXPORT_SYMBOL_GPL(lunatik_fieldstring);

const char *lunatik_optfieldstring(lua_State *L, int table, const char *name, size_t *length)
{
	return lua_getfield(L, table, name) == LUA_TNIL ? NULL : field_string(L, name, length);
}
EXPORT_SYMBOL_GPL(lunatik_optfieldstring);

int lunatik_fieldoption(lua_State *L, int table, const char *name, int fallback,
			const char *const *options)
{
	const char *value = lunatik_optfieldstring(L, table, name, NULL);
	int i = fallback;

	if (value)
		for (i = 0; options[i] && strcmp(options[i], value); i++)
			;
	if (!options[i])
		luaL_error(L, "bad field '%s' (invalid option '%s')", name, value);
	lua_pop(L, 1);
	return i;
}
EXPORT_SYMBOL_GPL(lunatik_fieldoption);

int lunatik_fieldref(lua_State *L, int table, const char *name, bool optional)
{
	int type = lua_getfield(L, table, name);

	if (type == LUA_TNIL && optional) {
		lua_pop(L, 1);
		return LUA_NOREF;
	}
	if (type != LUA_TFUNCTION)
		luaL_error(L, "bad field '%s' (function expected, got %s)", name,
			   luaL_typename(L, -1));
	return luaL_ref(L, LUA_REGISTRYINDEX);
}
EXPORT_SYMBOL_GPL(lunatik_fieldref);

int lunatik_ref(lua_State *L, int index)
{
	lua_pushvalue(L, index);
	return luaL_ref(L, LUA_REGISTRYINDEX);
}
EXPORT_SYMBOL_GPL(lunatik_ref);

void lunatik_pushref(lua_State *L, int ref)
{
	lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
}
EXPORT_SYMBOL_GPL(lunatik_pushref);

void lunatik_unref(lua_State *L, int ref)
{
	luaL_unref(L, LUA_REGISTRYINDEX, ref);
}
EXPORT_SYMBOL_GPL(lunatik_unref);

void lunatik_attempt(lua_State *L, void (*take)(lua_State *L, void *arg),
		     void (*drop)(lua_State *L, void *arg), void *arg)
{
	if (lunatikvm_try(L, take, arg) == LUA_OK)
		return;
	drop(L, arg);
	lua_error(L);
}
EXPORT_SYMBOL_GPL(lunatik_attempt);

void lunatik_setconstants(lua_State *L, const struct lunatik_constant *constants)
{
	for (; constants->name; constants++) {
		lua_pushinteger(L, constants->value);
		lua_setfield(L, -2, constants->name);
	}
}
EXPORT_SYMBOL_GPL(lunatik_setconstants);

/* "ct.tcp": push the table at that path below the one on top of the stack. */
static void push_namespace(lua_State *L, const char *path)
{
	const char *end;

	lua_pushvalue(L, -1);
	for (; path; path = *end ? end + 1 : NULL) {
		end = strchrnul(path, '.');
		lua_pushlstring(L, path, end - path);
		if (lua_rawget(L, -2) == LUA_TNIL) {
			lua_pop(L, 1);
			lua_newtable(L);
			lua_pushlstring(L, path, end - path);
			lua_pushvalue(L, -2);
			lua_rawset(L, -4);
		}
		lua_remove(L, -2);
	}
}

int lunatik_open(lua_State *L, const struct lunatik_library *library)
{
	const struct lunatik_namespace *namespace;

	lunatik_checkcontext(L, library->contexts, library->name);
	luaL_checkstack(L, LUA_MINSTACK, NULL);
	lua_newtable(L);
	if (library->functions)
		luaL_setfuncs(L, library->functions, 0);
	for (namespace = library->namespaces; namespace && namespace->constants; namespace++) {
		push_namespace(L, namespace->name);
		lunatik_setconstants(L, namespace->constants);
		lua_pop(L, 1);
	}
	if (library->open)
		library->open(L);
	return 1;
}
EXPORT_SYMBOL_GPL(lunatik_open);

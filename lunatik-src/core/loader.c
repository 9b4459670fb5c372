// SPDX-License-Identifier: GPL-2.0-only
/*
 * Scripts from /lib/modules/lua into a Lua state. Process context.
 */
#include <linux/ctype.h>
#include <linux/kernel_read_file.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "core.h"

/* A path below LUNATIK_ROOT that can't leave it; also fit to be printed. */
bool lunatik_valid_name(const char *name)
{
	size_t length = strlen(name);
	size_t i;

	if (!length || length > LUNATIK_NAME_MAX - 8)	/* room for ":1023" */
		return false;
	if (name[0] == '/' || strstr(name, "..") || strchr(name, ':'))
		return false;
	for (i = 0; i < length; i++)
		if (!isgraph(name[i]) || !isascii(name[i]))
			return false;
	return true;
}

/**
 * lunatik_load_path() - push the compiled chunk of a file
 * @L: Lua state
 * @path: relative to LUNATIK_ROOT
 *
 * Return: 0; -ENOENT with nothing pushed; another non-zero value with the
 * message pushed.
 */
int lunatik_load_path(lua_State *L, const char *path)
{
	const char *chunkname = lua_pushfstring(L, "@%s", path);
	const char *full = lua_pushfstring(L, "%s%s", LUNATIK_ROOT, path);
	void *text = NULL;
	ssize_t length = -ESRCH;
	int status;

	/*
	 * From the root of all: a callback runs in the task of whoever opens a
	 * device or makes an interface, whose own root may be anything.
	 */
	if (lunatik_has_files())
		length = kernel_read_file_from_path_initns(full, 0, &text,
							   LUNATIK_SCRIPT_MAX, NULL,
							   READING_UNKNOWN);
	if (length < 0) {
		const char *name = lunatik_errname(length);

		if (length == -ENOENT || length == -ENOTDIR) {
			lua_pop(L, 2);
			return -ENOENT;
		}
		lua_pushfstring(L, "cannot read '%s': %s", full, name ? name : "error");
		lua_replace(L, -3);
		lua_pop(L, 1);
		return LUA_ERRRUN;
	}
	status = luaL_loadbufferx(L, text, length, chunkname, "t");
	vfree(text);
	lua_replace(L, -3);
	lua_pop(L, 1);
	return status;
}

/* The same for a script's name; its absence is an error, too. */
int lunatik_load_script(lua_State *L, const char *name)
{
	const char *path;
	int status;

	if (!lunatik_valid_name(name)) {
		lua_pushliteral(L, "invalid script name");
		return LUA_ERRRUN;
	}
	path = lua_pushfstring(L, "%s.lua", name);
	status = lunatik_load_path(L, path);
	if (status == -ENOENT)
		lua_pushfstring(L, "cannot open '%s%s.lua'", LUNATIK_ROOT, name);
	lua_remove(L, -2);
	return status;
}

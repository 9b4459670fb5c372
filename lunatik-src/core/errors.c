// SPDX-License-Identifier: GPL-2.0-only
/*
 * Errors: names of the kernel's, tracebacks of the script's, and the log.
 */
#include <linux/errno.h>
#include <linux/export.h>
#include <linux/printk.h>
#include <linux/ratelimit.h>
#include <linux/string.h>

#include "core.h"

/* A line of the kernel log holds about 1000 bytes, its prefix included. */
#define LUNATIK_LOG_LINE	800
#define LUNATIK_LOG_LINES	24

const char *lunatik_errname(int err)
{
	switch (abs(err)) {
#define ERRNO(name) case E##name: return "E" #name
#include "errnames.h"
#undef ERRNO
	default:
		return NULL;
	}
}
EXPORT_SYMBOL_GPL(lunatik_errname);

int lunatik_throw(lua_State *L, int err)
{
	const char *name = lunatik_errname(err);

	if (name)
		lua_pushstring(L, name);
	else
		lua_pushfstring(L, "error %d", err);
	return lua_error(L);
}
EXPORT_SYMBOL_GPL(lunatik_throw);

/*
 * Message handler: whatever was thrown becomes text with a traceback. The
 * __tostring of an error object is the script's code: the budget covers it.
 */
int lunatik_traceback(lua_State *L)
{
	const char *message = lua_tostring(L, 1);

	if (!message) {
		if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING)
			message = lua_tostring(L, -1);
		else
			message = lua_pushfstring(L, "(error object is a %s value)",
						  luaL_typename(L, 1));
	}
	/* A traceback takes more C stack than an overflow leaves. */
	if (strnstr(message, "stack overflow", strnlen(message, 512)))
		lua_pushstring(L, message);
	else
		luaL_traceback(L, L, message, 1);
	return 1;
}

/* Of a hook that is called for each packet the first failure tells enough. */
static bool worth_logging(struct lunatik_runtime *runtime, const struct lunatik_hook *hook)
{
	return hook ? !hook->told : __ratelimit(&runtime->log_limit);
}

/* The text behind its first line, and how much of that is shown. */
static const char *skip_line(const char *text, int *shown)
{
	int length = strcspn(text, "\n");

	*shown = min(length, LUNATIK_LOG_LINE);
	return text + length + (text[length] == '\n');
}

static bool has_room(struct lunatik_runtime *runtime, const char *text)
{
	size_t length = 0;
	int lines, shown;

	for (lines = 0; *text && lines < LUNATIK_LOG_LINES; lines++) {
		text = skip_line(text, &shown);
		length += shown;
	}
	return lunatik_may_write(runtime, LUNATIK_ERRORS, lines, length);
}

/*
 * Line by line, since the kernel log knows no other; a flood is cut. @hook: the
 * one whose callback failed, if it is to be told of once only, or NULL. With the
 * lock of the runtime held.
 */
void lunatik_log(struct lunatik_runtime *runtime, struct lunatik_hook *hook, const char *text)
{
	int lines, shown;

	/* Whole or not at all: then the next failure of the hook is told of. */
	if (!worth_logging(runtime, hook) || !has_room(runtime, text))
		return;
	if (hook)
		hook->told = true;

	for (lines = 0; *text && lines < LUNATIK_LOG_LINES; lines++) {
		const char *rest = skip_line(text, &shown);

		lunatik_printk(runtime, KERN_ERR "lunatik: %s: %.*s\n", runtime->name, shown,
			       text);
		text = rest;
	}
	if (*text)
		lunatik_printk(runtime, KERN_ERR "lunatik: %s: ...\n", runtime->name);
}

void lunatik_tell_refused(struct lunatik_runtime *runtime, const char *what, int ret)
{
	static DEFINE_RATELIMIT_STATE(limit, 5 * HZ, 10);

	if (ret != -EBUSY && ret != -EDEADLK && ret != -EINTR && ret != -EAGAIN)
		return;
	if (__ratelimit(&limit))
		pr_warn("lunatik: %s: %s did not run: %s\n", runtime->name, what,
			lunatik_errname(ret));
}
EXPORT_SYMBOL_GPL(lunatik_tell_refused);

// SPDX-License-Identifier: GPL-2.0-only
/* completion - one runtime waits until another, of any context, says go on */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/jiffies.h>
#include <linux/sched.h>

#include "lunatik.h"

static const struct lunatik_class completion_class;

static int completion_complete(lua_State *L)
{
	struct completion *done = lunatik_check(L, 1, &completion_class);

	complete(done);
	return 0;
}

static int completion_push(lua_State *L, long left)
{
	if (left > 0) {
		lua_pushboolean(L, true);
		return 1;
	}
	lua_pushnil(L);
	switch (left) {
	case 0:
		lua_pushstring(L, "timeout");
		break;
	case -ERESTARTSYS:
		lua_pushstring(L, "interrupt");
		break;
	default:
		lua_pushstring(L, "unknown");
	}
	return 2;
}

/* completion:wait([ms]); without a limit, until completed or interrupted */
static int completion_wait(lua_State *L)
{
	struct completion *done = lunatik_check(L, 1, &completion_class);
	lua_Integer ms = lunatik_optrange(L, 2, -1, 0, INT_MAX);
	long left;

	lunatik_checkwait(L, "completion.wait");
	left = wait_for_completion_interruptible_timeout(done, ms < 0 ? MAX_SCHEDULE_TIMEOUT :
							 msecs_to_jiffies(ms));
	lunatik_slept(L);
	return completion_push(L, left);
}

static const luaL_Reg completion_methods[] = {
	{ "complete", completion_complete },
	{ "wait", completion_wait },
	{ NULL, NULL }
};

/* No monitor: a completion has a lock of its own. */
static const struct lunatik_class completion_class = {
	.name = "completion",
	.methods = completion_methods,
	.owner = THIS_MODULE,
};

static int completion_new(lua_State *L)
{
	struct completion *done = lunatik_new(L, &completion_class, sizeof(*done));

	init_completion(done);
	return 1;
}

static const luaL_Reg completion_functions[] = {
	{ "new", completion_new },
	{ NULL, NULL }
};

static const struct lunatik_library completion_library = {
	.name = "completion",
	.contexts = LUNATIK_ANY,
	.functions = completion_functions,
};

LUNATIK_LIBRARY(completion, completion_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: waiting for an event");

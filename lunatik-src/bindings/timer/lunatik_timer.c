// SPDX-License-Identifier: GPL-2.0-only
/*
 * timer - calls a script once, some time from now
 *
 * A timer is made while the script is loaded, and started and stopped whenever
 * it likes: from its own callback, from a packet's. What a hook cannot do is
 * wait; a timer is how it comes back to something.
 */
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/timer.h>

#include "lunatik.h"

#define TIMER_MS_MAX	(24 * 60 * 60 * 1000)

/* Owned by its hook's references. Not Lua's memory: it outlives the script. */
struct timer {
	struct lunatik_hook hook;
	struct timer_list list;
	int callback;			/* reference, in the script's runtime */
};

static int timer_call(lua_State *L, void *arg)
{
	struct timer *timer = arg;

	lunatik_pushref(L, timer->callback);
	lua_call(L, 0, 0);
	return 0;
}

/* Softirq. One that the runtime refuses is lost, as one that fails. */
static void timer_expired(struct timer_list *list)
{
	struct timer *timer = container_of(list, struct timer, list);

	lunatik_run(timer->hook.runtime, timer_call, timer);
}

/* Process context, once. Whoever starts it from now on does nothing. */
static void timer_hook_stop(struct lunatik_hook *hook)
{
	timer_shutdown_sync(&container_of(hook, struct timer, hook)->list);
}

static void timer_hook_free(struct lunatik_hook *hook)
{
	lunatik_free(container_of(hook, struct timer, hook));
}

static const struct lunatik_hook_ops timer_hook_ops = {
	.name = "timer",
	.stop = timer_hook_stop,
	.free = timer_hook_free,
	.owner = THIS_MODULE,
};

/* What the script holds: one reference to the hook. */
struct timer_handle {
	struct timer *timer;
};

static const struct lunatik_class timer_class;

static void timer_release(void *private)
{
	struct timer_handle *handle = private;

	if (handle->timer)
		lunatik_hook_put(&handle->timer->hook);
}

/* start(ms): expire in so many, whenever it would have otherwise */
static int timer_start(lua_State *L)
{
	struct timer_handle *handle = lunatik_check(L, 1, &timer_class);
	lua_Integer ms = lunatik_checkrange(L, 2, 0, TIMER_MS_MAX);
	struct timer_list *list = &handle->timer->list;
	int cpu = lunatik_cpu(handle->timer->hook.runtime);

	if (cpu < 0) {
		mod_timer(list, jiffies + msecs_to_jiffies(ms));
		return 0;
	}
	/* On another CPU the runtime of one would not answer. Its lock is held. */
	timer_delete(list);
	list->expires = jiffies + msecs_to_jiffies(ms);
	add_timer_on(list, cpu);
	return 0;
}

/* cancel() -> whether it was to expire; does not wait for one that does */
static int timer_cancel(lua_State *L)
{
	struct timer_handle *handle = lunatik_check(L, 1, &timer_class);

	lua_pushboolean(L, timer_delete(&handle->timer->list));
	return 1;
}

static const luaL_Reg timer_methods[] = {
	{ "start", timer_start },
	{ "cancel", timer_cancel },
	{ NULL, NULL }
};

static const struct lunatik_class timer_class = {
	.name = "timer",
	.flags = LUNATIK_SINGLE,
	.methods = timer_methods,
	.release = timer_release,
	.owner = THIS_MODULE,
};

struct making {
	struct timer_handle *handle;
	int callback;			/* what is taken so far */
};

/* All that can fail comes before the hook is the core's. */
static void making_take(lua_State *L, void *arg)
{
	struct making *making = arg;
	struct timer *timer;

	making->callback = lunatik_ref(L, 1);
	timer = lunatik_alloc(L, sizeof(*timer));
	timer->callback = making->callback;
	timer_setup(&timer->list, timer_expired,
		    lunatik_cpu(lunatik_toruntime(L)) < 0 ? 0 : TIMER_PINNED);

	lunatik_hook_add(L, &timer->hook, &timer_hook_ops);
	lunatik_hook_get(&timer->hook);
	making->handle->timer = timer;
}

static void making_drop(lua_State *L, void *arg)
{
	lunatik_unref(L, ((struct making *)arg)->callback);
}

/* new(function) -> a timer that is not started */
static int timer_new(lua_State *L)
{
	struct making making = { .callback = LUA_NOREF };

	luaL_checktype(L, 1, LUA_TFUNCTION);
	lunatik_checksleep(L, "timer.new");
	making.handle = lunatik_new(L, &timer_class, sizeof(*making.handle));
	lunatik_attempt(L, making_take, making_drop, &making);
	return 1;
}

static const luaL_Reg timer_functions[] = {
	{ "new", timer_new },
	{ NULL, NULL }
};

static const struct lunatik_library timer_library = {
	.name = "timer",
	.contexts = LUNATIK_SOFTIRQ,
	.functions = timer_functions,
};

LUNATIK_LIBRARY(timer, timer_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: calls a script some time from now");

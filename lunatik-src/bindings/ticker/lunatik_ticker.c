// SPDX-License-Identifier: GPL-2.0-only
/*
 * ticker: calls a script again and again, in softirq.
 *
 * The worked example of docs/c-api.md: a library, a class of objects and a
 * hook, in as few lines as are right.
 */
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

#include "lunatik.h"

#define TICKER_MS_MAX	60000

/* Owned by its hook's references. Not Lua's memory: it outlives the script. */
struct ticker {
	struct lunatik_hook hook;
	struct timer_list timer;
	unsigned long period;		/* jiffies */
	int callback;			/* reference; LUA_NOREF: stopped; by the runtime's lock */
	u64 count;			/* ticks so far; by the timer alone */
};

static int ticker_call(lua_State *L, void *arg)
{
	struct ticker *ticker = arg;

	if (ticker->callback == LUA_NOREF)
		return 0;
	lunatik_pushref(L, ticker->callback);
	lua_pushinteger(L, ticker->count);
	lua_call(L, 1, 0);
	return 0;
}

/* Not pending. */
static void ticker_arm(struct ticker *ticker)
{
	ticker->timer.expires = jiffies + ticker->period;
	lunatik_add_timer(ticker->hook.runtime, &ticker->timer);
}

/* Softirq. Whatever came of it, a ticker's fallback is the next tick. */
static void ticker_expired(struct timer_list *timer)
{
	struct ticker *ticker = container_of(timer, struct ticker, timer);

	ticker->count++;
	lunatik_run(ticker->hook.runtime, ticker_call, ticker);
	ticker_arm(ticker);
}

/* Process context, once. A timer that re-arms itself is gone after this. */
static void ticker_stop_hook(struct lunatik_hook *hook)
{
	timer_shutdown_sync(&container_of(hook, struct ticker, hook)->timer);
}

static void ticker_free(struct lunatik_hook *hook)
{
	lunatik_free(container_of(hook, struct ticker, hook));
}

static const struct lunatik_hook_ops ticker_ops = {
	.name = "ticker",
	.stop = ticker_stop_hook,
	.free = ticker_free,
	.owner = THIS_MODULE,
};

/* What the script holds: one reference to the hook. */
struct ticker_handle {
	struct ticker *ticker;
};

static void handle_release(void *private)
{
	struct ticker_handle *handle = private;

	if (handle->ticker)
		lunatik_hook_put(&handle->ticker->hook);
}

/* ticker:stop(), also from its own callback. In an entry, the lock held. */
static void handle_stop(lua_State *L, void *private)
{
	struct ticker_handle *handle = private;
	struct ticker *ticker = handle->ticker;

	lunatik_hook_cancel(&ticker->hook);
	lunatik_unref(L, ticker->callback);
	ticker->callback = LUA_NOREF;
}

static const struct lunatik_class ticker_class = {
	.name = "ticker",
	.flags = LUNATIK_SINGLE,
	.release = handle_release,
	.stop = handle_stop,
	.owner = THIS_MODULE,
};

struct making {
	unsigned long period;
	struct ticker_handle *handle;
	int callback;			/* what is taken so far */
};

/* All that can fail comes before the hook is the core's. */
static void making_take(lua_State *L, void *arg)
{
	struct making *making = arg;
	struct ticker *ticker;

	making->callback = lunatik_ref(L, 2);
	ticker = lunatik_alloc(L, sizeof(*ticker));
	ticker->period = making->period;
	ticker->callback = making->callback;
	timer_setup(&ticker->timer, ticker_expired,
		    lunatik_cpu(lunatik_toruntime(L)) < 0 ? 0 : TIMER_PINNED);

	lunatik_hook_add(L, &ticker->hook, &ticker_ops);
	lunatik_hook_get(&ticker->hook);
	making->handle->ticker = ticker;
	ticker_arm(ticker);
}

static void making_drop(lua_State *L, void *arg)
{
	lunatik_unref(L, ((struct making *)arg)->callback);
}

/* new(ms, function(count)) */
static int ticker_new(lua_State *L)
{
	struct making making = { .callback = LUA_NOREF };

	making.period = msecs_to_jiffies(lunatik_checkrange(L, 1, 1, TICKER_MS_MAX));
	luaL_checktype(L, 2, LUA_TFUNCTION);
	lunatik_checksleep(L, "ticker.new");
	making.handle = lunatik_new(L, &ticker_class, sizeof(*making.handle));
	lunatik_attempt(L, making_take, making_drop, &making);
	return 1;
}

static const luaL_Reg ticker_functions[] = {
	{"new", ticker_new},
	{}
};

static const struct lunatik_library ticker_library = {
	.name = "ticker",
	.contexts = LUNATIK_SOFTIRQ,
	.functions = ticker_functions,
};

LUNATIK_LIBRARY(ticker, ticker_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: calls a script again and again");

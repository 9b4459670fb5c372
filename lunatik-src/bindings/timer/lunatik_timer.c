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
#include <linux/rcupdate.h>
#include <linux/spinlock.h>
#include <linux/timer.h>

#include "lunatik.h"

#define TIMER_MS_MAX	(24 * 60 * 60 * 1000)
#define TIMER_RETRY	(HZ / 10)	/* jiffies until a CPU is looked for again */

/* Owned by its hook's references. Not Lua's memory: it outlives the script. */
struct timer {
	struct lunatik_hook hook;
	struct timer_list list;
	raw_spinlock_t lock;		/* it is armed by one at a time; IRQs off */
	bool wanted;			/* started, and not cancelled since; by lock */
	int callback;			/* reference, in the script's runtime */
};

static int timer_call(lua_State *L, void *arg)
{
	struct timer *timer = arg;

	lunatik_pushref(L, timer->callback);
	lua_call(L, 0, 0);
	return 0;
}

static void timer_arm(struct timer *timer, unsigned long expires)
{
	lockdep_assert_held(&timer->lock);

	timer->list.expires = expires;
	lunatik_add_timer(timer->hook.runtime, &timer->list);
}

/* Its CPU went offline and left it to this one: it expires when that is back. */
static void timer_wait(struct timer *timer)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&timer->lock, flags);
	if (timer->wanted && !timer_pending(&timer->list))
		timer_arm(timer, jiffies + TIMER_RETRY);
	raw_spin_unlock_irqrestore(&timer->lock, flags);
}

/* Softirq. One that the runtime refuses is lost, as one that fails. */
static void timer_expired(struct timer_list *list)
{
	struct timer *timer = container_of(list, struct timer, list);
	int cpu = lunatik_cpu(timer->hook.runtime);

	if (cpu >= 0 && cpu != smp_processor_id())
		timer_wait(timer);
	else
		lunatik_run(timer->hook.runtime, timer_call, timer);
}

/* Process context, once. Whoever starts it from now on does nothing. */
static void timer_hook_stop(struct lunatik_hook *hook)
{
	timer_shutdown_sync(&container_of(hook, struct timer, hook)->list);
	/* That does not wait for a CPU that has just armed it for another. */
	if (lunatik_cpu(hook->runtime) >= 0)
		synchronize_rcu();
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
	struct timer *timer = handle->timer;
	unsigned long flags;

	raw_spin_lock_irqsave(&timer->lock, flags);
	timer->wanted = true;
	timer_delete(&timer->list);
	timer_arm(timer, jiffies + msecs_to_jiffies(ms));
	raw_spin_unlock_irqrestore(&timer->lock, flags);
	return 0;
}

/* cancel() -> whether it was to expire; does not wait for one that does */
static int timer_cancel(lua_State *L)
{
	struct timer_handle *handle = lunatik_check(L, 1, &timer_class);
	struct timer *timer = handle->timer;
	unsigned long flags;
	bool pending;

	raw_spin_lock_irqsave(&timer->lock, flags);
	timer->wanted = false;
	pending = timer_delete(&timer->list);
	raw_spin_unlock_irqrestore(&timer->lock, flags);
	lua_pushboolean(L, pending);
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
	timer->wanted = false;
	raw_spin_lock_init(&timer->lock);
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

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hooks: who owns them, and who ends them, once.
 *
 * A hook is on its runtime's list from lunatik_hook_add() until somebody takes
 * it off, under hooks_lock, and thereby becomes the one that stops it.
 */
#include <linux/export.h>
#include <linux/string.h>

#include "core.h"

/* Each may take a grace period to end, one after the other. */
#define LUNATIK_HOOKS_MAX	512

static void hook_free(struct kref *kref)
{
	struct lunatik_hook *hook = container_of(kref, struct lunatik_hook, kref);
	struct lunatik_runtime *runtime = hook->runtime;
	struct module *owner = hook->ops->owner;

	hook->ops->free(hook);
	module_put(owner);
	lunatik_put(runtime);
}

struct lunatik_hook *lunatik_hook_get(struct lunatik_hook *hook)
{
	kref_get(&hook->kref);
	return hook;
}
EXPORT_SYMBOL_GPL(lunatik_hook_get);

void lunatik_hook_put(struct lunatik_hook *hook)
{
	kref_put(&hook->kref, hook_free);
}
EXPORT_SYMBOL_GPL(lunatik_hook_put);

static bool take_off(struct lunatik_hook *hook)
{
	struct lunatik_runtime *runtime = hook->runtime;
	bool taken;

	mutex_lock(&runtime->hooks_lock);
	taken = !list_empty(&hook->node);
	runtime->hooks_count -= taken;
	list_del_init(&hook->node);
	mutex_unlock(&runtime->hooks_lock);
	return taken;
}

/* Stop a hook that the caller has taken off the list. */
static void end(struct lunatik_hook *hook)
{
	if (hook->ops->stop)
		hook->ops->stop(hook);
	lunatik_hook_put(hook);
}

/* The caller has a reference to the hook, or to its runtime. */
void lunatik_hook_end(struct lunatik_hook *hook)
{
	struct lunatik_runtime *runtime = lunatik_get(hook->runtime);

	/* Who stops the runtime finds it on the list, or has seen this. */
	atomic_inc(&runtime->hooks_ending);
	if (take_off(hook))
		end(hook);
	if (atomic_dec_and_test(&runtime->hooks_ending))
		wake_up_all(&runtime->unlocked);
	lunatik_put(runtime);
}
EXPORT_SYMBOL_GPL(lunatik_hook_end);

/* A work: process context, nothing held; the runtime may be running. */
static void end_work(struct work_struct *work)
{
	struct lunatik_hook *hook = container_of(work, struct lunatik_hook, work);

	lunatik_hook_end(hook);
	lunatik_hook_put(hook);
}

int lunatik_hook_add_to(struct lunatik_runtime *runtime, struct lunatik_hook *hook,
			const struct lunatik_hook_ops *ops)
{
	int ret = 0;

	hook->runtime = runtime;
	hook->ops = ops;
	kref_init(&hook->kref);
	INIT_LIST_HEAD(&hook->node);
	INIT_WORK(&hook->work, end_work);
	atomic_set(&hook->cancelled, 0);
	hook->told = false;

	mutex_lock(&runtime->hooks_lock);
	if (runtime->hooks_closed) {
		ret = -ESHUTDOWN;
	} else if (runtime->hooks_count == LUNATIK_HOOKS_MAX) {
		ret = -ENOSPC;
	} else {
		runtime->hooks_count++;
		list_add_tail(&hook->node, &runtime->hooks);
	}
	mutex_unlock(&runtime->hooks_lock);
	if (ret)
		return ret;
	lunatik_get(runtime);
	__module_get(ops->owner);
	return 0;
}
EXPORT_SYMBOL_GPL(lunatik_hook_add_to);

void lunatik_hook_add(lua_State *L, struct lunatik_hook *hook,
		      const struct lunatik_hook_ops *ops)
{
	int ret = -EPERM;

	if (lunatik_maysleep(L))
		ret = lunatik_hook_add_to(lunatik_toruntime(L), hook, ops);
	if (!ret)
		return;
	ops->free(hook);
	if (ret == -EPERM)
		luaL_error(L, "%s: not while the runtime serves interrupts", ops->name);
	lunatik_throw(L, ret);
}
EXPORT_SYMBOL_GPL(lunatik_hook_add);

/*
 * The hooks of a runtime are stopped only after its last entry has left, and
 * whoever registers one is inside an entry, so that the runtime's end is no
 * danger at this moment. It is to who uses lunatik_hook_add_to() from another
 * runtime, and lunatik_hook_cancel() to who made the hook known before: they
 * hold a reference meanwhile. Whoever took the hook off then has stopped it.
 */
void lunatik_hook_abort(struct lunatik_hook *hook)
{
	if (take_off(hook))
		lunatik_hook_put(hook);
}
EXPORT_SYMBOL_GPL(lunatik_hook_abort);

void lunatik_hook_cancel(struct lunatik_hook *hook)
{
	if (atomic_xchg(&hook->cancelled, 1))
		return;
	lunatik_hook_get(hook);
	queue_work(lunatik_workqueue, &hook->work);
}
EXPORT_SYMBOL_GPL(lunatik_hook_cancel);

/*
 * End all hooks, the youngest first, and let none be added any more. Those that
 * somebody else is ending are out of the kernel by then as well.
 */
void lunatik_hooks_stop(struct lunatik_runtime *runtime)
{
	struct lunatik_hook *hook;

	for (;;) {
		mutex_lock(&runtime->hooks_lock);
		runtime->hooks_closed = true;
		hook = NULL;
		if (!list_empty(&runtime->hooks)) {
			hook = list_last_entry(&runtime->hooks, struct lunatik_hook, node);
			list_del_init(&hook->node);
		}
		mutex_unlock(&runtime->hooks_lock);
		if (!hook)
			break;
		end(hook);
	}
	wait_event(runtime->unlocked, !atomic_read(&runtime->hooks_ending));
}

/* "netfilter netfilter thread"; returns the length, cut to @size - 1. */
size_t lunatik_hooks_names(struct lunatik_runtime *runtime, char *buffer, size_t size)
{
	struct lunatik_hook *hook;
	size_t length = 0;

	buffer[0] = '\0';
	mutex_lock(&runtime->hooks_lock);
	list_for_each_entry(hook, &runtime->hooks, node)
		length += scnprintf(buffer + length, size - length, "%s%s",
				    length ? " " : "", hook->ops->name);
	mutex_unlock(&runtime->hooks_lock);
	return length;
}

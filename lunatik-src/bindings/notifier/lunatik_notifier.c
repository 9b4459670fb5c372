// SPDX-License-Identifier: GPL-2.0-only
/*
 * notifier - scripts that are told what happens to network devices, keys and
 * virtual terminals
 *
 * The kernel calls back in the middle of its own work: under RTNL for devices,
 * in an RCU section or with interrupts off for the others. So a notifier is
 * never taken out on the spot, but by the core's workqueue; from stop() on its
 * callbacks are left out.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/keyboard.h>
#include <linux/list.h>
#include <linux/netdevice.h>
#include <linux/notifier.h>
#include <linux/nsproxy.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/vt.h>
#include <linux/vt_kern.h>
#include <net/net_namespace.h>

#include "lunatik.h"

/* Events of devices that wait: of those that there are, of those that come. */
#define NOTIFIER_REPLAY_MAX	4096
#define NOTIFIER_LATE_MAX	64

/*
 * Of a runtime, those that are not closed. While it is busy each of them holds
 * up an event for as long as lunatik_run_hurried() waits.
 */
#define NOTIFIER_MAX		16

struct notifier;

/**
 * struct notifier_kind - what a notifier listens to
 * @name: for messages and `lunatik list`
 * @context: enum lunatik_context that it calls scripts in
 * @call: the kernel's callback
 * @enter: into the kernel's list
 * @leave: out of it, after the last callback. Process context
 */
struct notifier_kind {
	const char *name;
	unsigned int context;
	notifier_fn_t call;
	int (*enter)(struct notifier_block *block);
	int (*leave)(struct notifier_block *block);
};

struct event {
	struct list_head node;		/* in notifier->pending */
	unsigned long event;
	union {
		struct {
			char name[IFNAMSIZ];
			int ifindex;		/* 0: of another namespace */
		} device;
		struct keyboard_notifier_param *key;	/* lent for the call */
		struct vt_notifier_param *vt;		/* lent for the call */
	};
};

struct notifier {
	struct lunatik_hook hook;
	struct notifier_block block;
	const struct notifier_kind *kind;	/* fixed */
	int callback;			/* reference; guarded by the runtime's lock */
	bool closed;			/* set under the runtime's lock, never cleared */

	/* Devices only */
	u64 namespace;			/* cookie of the script's; fixed */
	spinlock_t pending_lock;	/* guards the next three */
	struct list_head pending;	/* events to be told before any other */
	unsigned int pending_count;
	bool replaying;			/* registering: all events go there */
};

/* The object that a script holds. */
struct handle {
	struct notifier *notifier;	/* its hook is counted */
};

/* Where the registry says how many there are; guarded by the runtime's lock. */
static char count_key;

/* ---- calling a script --------------------------------------------------- */

/* What a script may answer; anything else would be taken for an errno. */
static int answer(lua_State *L)
{
	lua_Integer value = lua_isnil(L, -1) ? NOTIFY_DONE : -1;

	if (lua_isinteger(L, -1))
		value = lua_tointeger(L, -1);
	switch (value) {
	case NOTIFY_DONE:
	case NOTIFY_OK:
	case NOTIFY_BAD:
	case NOTIFY_STOP:
		return value;
	default:
		return luaL_error(L, "notifier callback returned no NOTIFY_ value");
	}
}

struct request {
	struct notifier *notifier;
	struct event *event;
	int (*push)(lua_State *L, const struct event *event);
};

static int ask(lua_State *L, struct request *request, const struct event *event)
{
	int ret;

	if (request->notifier->closed)
		return NOTIFY_DONE;
	lunatik_pushref(L, request->notifier->callback);
	lua_pushinteger(L, event->event);
	lua_call(L, 1 + request->push(L, event), 1);
	ret = answer(L);
	lua_pop(L, 1);
	return ret;
}

static int ask_one(lua_State *L, void *arg)
{
	struct request *request = arg;

	return ask(L, request, request->event);
}

/* ---- network devices ---------------------------------------------------- */

static int push_device(lua_State *L, const struct event *event)
{
	lua_pushstring(L, event->device.name);
	if (!event->device.ifindex)
		return 1;
	lua_pushinteger(L, event->device.ifindex);
	return 2;
}

static void keep(struct notifier *notifier, const struct event *event, unsigned int max)
{
	struct event *copy = NULL;

	if (!lunatik_fault())
		copy = kmemdup(event, sizeof(*event), GFP_KERNEL);
	if (!copy)
		return;
	spin_lock(&notifier->pending_lock);
	if (notifier->pending_count < max) {
		list_add_tail(&copy->node, &notifier->pending);
		WRITE_ONCE(notifier->pending_count, notifier->pending_count + 1);
		copy = NULL;
	}
	spin_unlock(&notifier->pending_lock);
	kfree(copy);
}

static bool take(struct notifier *notifier, struct event *event)
{
	struct event *first;

	spin_lock(&notifier->pending_lock);
	first = list_first_entry_or_null(&notifier->pending, struct event, node);
	if (first) {
		list_del(&first->node);
		WRITE_ONCE(notifier->pending_count, notifier->pending_count - 1);
	}
	spin_unlock(&notifier->pending_lock);
	if (!first)
		return false;
	*event = *first;
	kfree(first);
	return true;
}

static int ask_kept(lua_State *L, void *arg)
{
	struct request *request = arg;
	struct event event;

	if (take(request->notifier, &event))
		ask(L, request, &event);
	return 0;
}

/* Each kept event in an entry of its own, so that an error ends one only. */
static int ask_all(struct request *request)
{
	struct notifier *notifier = request->notifier;
	struct lunatik_runtime *runtime = notifier->hook.runtime;
	unsigned int count;
	int ret;

	for (count = READ_ONCE(notifier->pending_count); count; count--) {
		ret = lunatik_run_hurried(runtime, ask_kept, request);
		if (ret < 0 && ret != -EINVAL)
			return ret;
	}
	return lunatik_run_hurried(runtime, ask_one, request);
}

/* The task in netdevice_call(). Written under RTNL; read to find oneself. */
static struct task_struct *rtnl_task;

/* Events of devices that the kernel takes back when somebody refuses them. */
static bool refusable(unsigned long event)
{
	switch (event) {
	case NETDEV_POST_INIT:
	case NETDEV_REGISTER:
	case NETDEV_PRE_UP:
	case NETDEV_PRE_CHANGEADDR:
	case NETDEV_PRECHANGEMTU:
	case NETDEV_CHANGEMTU:
	case NETDEV_PRECHANGEUPPER:
	case NETDEV_CHANGEUPPER:
	case NETDEV_PRE_TYPE_CHANGE:
		return true;
	default:
		return false;
	}
}

/*
 * An answer that stops the chain keeps the event from whoever comes next: one
 * who is not told that a device goes would hold it for ever.
 */
static int allowed(unsigned long event, int said)
{
	if (!(said & NOTIFY_STOP_MASK))
		return said;
	return notifier_to_errno(said) && refusable(event) ? said : NOTIFY_DONE;
}

/*
 * Under RTNL. While the script registers, its own task brings the events of
 * the devices that there are already, with the runtime's lock held: they are
 * kept, and told when RTNL has been let go. So are those that come between
 * this and the end of the script's body.
 */
static int netdevice_call(struct notifier_block *block, unsigned long code, void *info)
{
	struct notifier *notifier = container_of(block, struct notifier, block);
	struct net_device *dev = netdev_notifier_info_to_dev(info);
	struct event event = { .event = code };
	struct request request = {
		.notifier = notifier,
		.event = &event,
		.push = push_device,
	};
	struct task_struct *outer = rtnl_task;
	int ret;

	ASSERT_RTNL();
	if (READ_ONCE(notifier->closed))
		return NOTIFY_DONE;
	strscpy(event.device.name, dev->name, sizeof(event.device.name));
	/* Names and numbers come again in each namespace. */
	if (dev_net(dev)->net_cookie == notifier->namespace)
		event.device.ifindex = dev->ifindex;
	if (READ_ONCE(notifier->replaying)) {
		keep(notifier, &event, NOTIFIER_REPLAY_MAX);
		return NOTIFY_DONE;
	}
	WRITE_ONCE(rtnl_task, current);
	ret = ask_all(&request);
	WRITE_ONCE(rtnl_task, outer);
	if (ret == -ESHUTDOWN)
		keep(notifier, &event, NOTIFIER_LATE_MAX);
	return ret < 0 ? NOTIFY_DONE : allowed(code, ret);
}

/* Tell what was kept. No C function of Lua's, for that a script could find and call. */
static void replay(lua_State *L, void *arg)
{
	struct request request = {
		.notifier = arg,
		.push = push_device,
	};
	struct event event;

	while (take(request.notifier, &event))
		ask(L, &request, &event);
}

static const struct notifier_kind netdevice_kind = {
	.name = "notifier.netdevice",
	.context = LUNATIK_PROCESS,
	.call = netdevice_call,
	.enter = register_netdevice_notifier,
	.leave = unregister_netdevice_notifier,
};

/* ---- keyboard and terminals --------------------------------------------- */

#ifdef CONFIG_VT
static int call_now(struct notifier_block *block, struct event *event,
		    int (*push)(lua_State *L, const struct event *event))
{
	struct notifier *notifier = container_of(block, struct notifier, block);
	struct request request = {
		.notifier = notifier,
		.event = event,
		.push = push,
	};
	int ret;

	if (READ_ONCE(notifier->closed))
		return NOTIFY_DONE;
	ret = lunatik_run(notifier->hook.runtime, ask_one, &request);
	return ret < 0 ? NOTIFY_DONE : ret;
}

static int push_key(lua_State *L, const struct event *event)
{
	lua_pushboolean(L, event->key->down);
	lua_pushboolean(L, event->key->shift);
	lua_pushinteger(L, event->key->value);
	return 3;
}

/* In an atomic chain: interrupts off. */
static int keyboard_call(struct notifier_block *block, unsigned long code, void *info)
{
	struct event event = { .event = code, .key = info };

	return call_now(block, &event, push_key);
}

static int push_vt(lua_State *L, const struct event *event)
{
	/* Those of terminals that come and go have no character. */
	lua_pushinteger(L, event->event == VT_WRITE || event->event == VT_PREWRITE ?
			   event->vt->c : 0);
	lua_pushinteger(L, event->vt->vc->vc_num);
	return 2;
}

/*
 * In an atomic chain, often with the lock of the console held. Also from the terminal's
 * console driver, while it writes the kernel log: then interrupts are off, and
 * who prints on another CPU waits for this one. So the runtime's lock may be
 * spun for only because nobody who holds it prints to the consoles: what a
 * hardirq runtime prints is deferred (core/output.c).
 */
static int vterm_call(struct notifier_block *block, unsigned long code, void *info)
{
	struct event event = { .event = code, .vt = info };

	return call_now(block, &event, push_vt);
}

static const struct notifier_kind keyboard_kind = {
	.name = "notifier.keyboard",
	.context = LUNATIK_HARDIRQ,
	.call = keyboard_call,
	.enter = register_keyboard_notifier,
	.leave = unregister_keyboard_notifier,
};

static const struct notifier_kind vterm_kind = {
	.name = "notifier.vterm",
	.context = LUNATIK_HARDIRQ,
	.call = vterm_call,
	.enter = register_vt_notifier,
	.leave = unregister_vt_notifier,
};
#endif

/* ---- life ---------------------------------------------------------------- */

static void notifier_stop(struct lunatik_hook *hook)
{
	struct notifier *notifier = container_of(hook, struct notifier, hook);

	WRITE_ONCE(notifier->closed, true);
	notifier->kind->leave(&notifier->block);
}

static void notifier_free(struct lunatik_hook *hook)
{
	struct notifier *notifier = container_of(hook, struct notifier, hook);
	struct event *event, *next;

	list_for_each_entry_safe(event, next, &notifier->pending, node)
		kfree(event);
	lunatik_free(notifier);
}

static const struct lunatik_hook_ops notifier_ops = {
	.name = "notifier",
	.stop = notifier_stop,
	.free = notifier_free,
	.owner = THIS_MODULE,
};

static void handle_release(void *private)
{
	struct handle *handle = private;

	if (handle->notifier)
		lunatik_hook_put(&handle->notifier->hook);
}

static lua_Integer get_count(lua_State *L)
{
	lua_Integer count;

	lua_rawgetp(L, LUA_REGISTRYINDEX, &count_key);
	count = lua_tointeger(L, -1);
	lua_pop(L, 1);
	return count;
}

/* Takes memory, and may fail, the first time only. */
static void set_count(lua_State *L, lua_Integer count)
{
	lua_pushinteger(L, count);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &count_key);
}

/* In an entry, the runtime's lock held. From here on no callback comes. */
static void notifier_close(lua_State *L, struct notifier *notifier)
{
	if (notifier->closed)
		return;
	WRITE_ONCE(notifier->closed, true);
	lunatik_hook_cancel(&notifier->hook);
	set_count(L, get_count(L) - 1);
	lunatik_unref(L, notifier->callback);
}

static void handle_stop(lua_State *L, void *private)
{
	struct handle *handle = private;

	if (handle->notifier)
		notifier_close(L, handle->notifier);
}

/* Single: it drops a reference of its runtime's. */
static const struct lunatik_class handle_class = {
	.name = "notifier",
	.flags = LUNATIK_SINGLE,
	.release = handle_release,
	.stop = handle_stop,
	.owner = THIS_MODULE,
};

struct making {
	const struct notifier_kind *kind;
	struct handle *handle;
	int callback;			/* what is taken so far */
};

static void making_take(lua_State *L, void *arg)
{
	struct making *making = arg;
	struct notifier *notifier;
	int ret;

	making->callback = lunatik_ref(L, 1);
	notifier = lunatik_alloc(L, sizeof(*notifier));
	notifier->kind = making->kind;
	notifier->callback = making->callback;
	notifier->block.notifier_call = making->kind->call;
	spin_lock_init(&notifier->pending_lock);
	INIT_LIST_HEAD(&notifier->pending);
	notifier->namespace = current->nsproxy->net_ns->net_cookie;
	notifier->replaying = true;
	lunatik_hook_add(L, &notifier->hook, &notifier_ops);

	ret = making->kind->enter(&notifier->block);
	if (ret) {
		lunatik_hook_abort(&notifier->hook);
		lunatik_throw(L, ret);
	}
	WRITE_ONCE(notifier->replaying, false);
	lunatik_hook_get(&notifier->hook);
	making->handle->notifier = notifier;
}

static void making_drop(lua_State *L, void *arg)
{
	lunatik_unref(L, ((struct making *)arg)->callback);
}

static struct notifier *notifier_new(lua_State *L, const struct notifier_kind *kind)
{
	struct making making = { .kind = kind, .callback = LUA_NOREF };

	lunatik_checkcontext(L, kind->context, kind->name);
	lunatik_checksleep(L, kind->name);
	luaL_checktype(L, 1, LUA_TFUNCTION);
	if (!lunatik_has_files())
		lunatik_throw(L, ESRCH);
	if (get_count(L) >= NOTIFIER_MAX)
		luaL_error(L, "%s: a runtime has %d notifiers at most", kind->name, NOTIFIER_MAX);
	set_count(L, get_count(L));
	making.handle = lunatik_new(L, &handle_class, sizeof(*making.handle));
	lunatik_attempt(L, making_take, making_drop, &making);
	set_count(L, get_count(L) + 1);
	return making.handle->notifier;
}

/* The script gets no object that it could stop. */
static void replay_failed(lua_State *L, void *arg)
{
	notifier_close(L, arg);
}

static int notifier_netdevice(lua_State *L)
{
	struct notifier *notifier;

	if (READ_ONCE(rtnl_task) == current)
		return luaL_error(L, "notifier.netdevice: not in the callback of another one");
	notifier = notifier_new(L, &netdevice_kind);
	lunatik_attempt(L, replay, replay_failed, notifier);
	return 1;
}

static int notifier_keyboard(lua_State *L)
{
#ifdef CONFIG_VT
	notifier_new(L, &keyboard_kind);
	return 1;
#else
	return lunatik_throw(L, EOPNOTSUPP);
#endif
}

static int notifier_vterm(lua_State *L)
{
#ifdef CONFIG_VT
	notifier_new(L, &vterm_kind);
	return 1;
#else
	return lunatik_throw(L, EOPNOTSUPP);
#endif
}

static const luaL_Reg notifier_functions[] = {
	{ "netdevice", notifier_netdevice },
	{ "keyboard", notifier_keyboard },
	{ "vterm", notifier_vterm },
	{ NULL, NULL }
};

static const struct lunatik_library notifier_library = {
	.name = "notifier",
	.contexts = LUNATIK_PROCESS | LUNATIK_HARDIRQ,
	.functions = notifier_functions,
};

LUNATIK_LIBRARY(notifier, notifier_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: notifiers");

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Objects: what scripts hold as userdata and runtimes share.
 *
 * In each runtime an object is a userdata that holds one reference to it. The
 * metatable of its class is made when the first one arrives, and is kept in
 * the registry under the address of the class. Scripts can't reach it.
 */
#include <linux/export.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "core.h"

/*
 * Owned by its references. @private and @class never change but by
 * lunatik_attach(), under the lock of the one runtime that has the object.
 */
struct lunatik_object {
	struct kref kref;
	const struct lunatik_class *class;
	struct lunatik_runtime *runtime;	/* counted: whose account; NULL: nobody's */
	size_t size;
	bool published;		/* was in a shared table; once it is it stays so */
	void *private;
	union {
		struct mutex mutex;	/* LUNATIK_SLEEP: the monitor */
		spinlock_t spin;	/* otherwise: the monitor; IRQs off */
	};
	union {
		struct work_struct work;	/* LUNATIK_DEFER, once unreferenced */
		struct rcu_head rcu;		/* then */
	};
	u64 data[];
};

/* The userdata. Nothing else in a Lua state looks like it. */
struct handle {
	struct handle *self;
	struct lunatik_object *object;	/* NULL once collected */
};

static struct handle *tohandle(lua_State *L, int arg)
{
	struct handle *handle = lunatikvm_touserdata(L, arg, sizeof(*handle));

	return handle && handle->self == handle ? handle : NULL;
}

struct lunatik_object *lunatik_object(lua_State *L, int arg)
{
	struct handle *handle = tohandle(L, arg);

	return handle ? handle->object : NULL;
}
EXPORT_SYMBOL_GPL(lunatik_object);

void *lunatik_test(lua_State *L, int arg, const struct lunatik_class *class)
{
	struct lunatik_object *object = lunatik_object(L, arg);

	return object && object->class == class ? object->private : NULL;
}
EXPORT_SYMBOL_GPL(lunatik_test);

void *lunatik_check(lua_State *L, int arg, const struct lunatik_class *class)
{
	struct lunatik_object *object = lunatik_object(L, arg);

	if (unlikely(!object || object->class != class))
		luaL_typeerror(L, arg, class->name);
	if (unlikely(!object->private))
		luaL_error(L, "%s is closed", class->name);
	return object->private;
}
EXPORT_SYMBOL_GPL(lunatik_check);

/* Is it on a runtime's account? If not it is the core's own. */
bool lunatik_owned(const struct lunatik_object *object)
{
	return object->runtime;
}

void *lunatik_private(struct lunatik_object *object)
{
	return object->private;
}
EXPORT_SYMBOL_GPL(lunatik_private);

const struct lunatik_class *lunatik_classof(const struct lunatik_object *object)
{
	return object->class;
}
EXPORT_SYMBOL_GPL(lunatik_classof);

void lunatik_attach(struct lunatik_object *object, void *private)
{
	WARN_ON_ONCE(!(object->class->flags & LUNATIK_SINGLE));
	object->private = private;
}
EXPORT_SYMBOL_GPL(lunatik_attach);

/* ---- life ---- */

/* A callback of RCU: softirq, nothing held. */
static void object_reclaim(struct rcu_head *rcu)
{
	struct lunatik_object *object = container_of(rcu, struct lunatik_object, rcu);

	lunatik_reclaimed(object->runtime, object->size);
	kvfree(object);
}

/*
 * lunatik_object_get_live() may still be looking at the count of one that was in a
 * table. All others are freed at once: RCU would take as much as a script drops
 * until it is through.
 */
static void destroy(struct lunatik_object *object)
{
	const struct lunatik_class *class = object->class;
	struct lunatik_runtime *runtime = object->runtime;

	if (class->release && object->private)
		class->release(object->private);
	if (runtime)
		module_put(class->owner);
	/* Nor does vfree() defer itself where interrupts are off: see lunatik_free(). */
	if (READ_ONCE(object->published) || (irqs_disabled() && is_vmalloc_addr(object))) {
		lunatik_lapse(runtime, object->size, &object->rcu, object_reclaim);
		return;
	}
	lunatik_unaccount(runtime, object->size);
	kvfree(object);
	if (runtime)
		lunatik_put(runtime);
}

static void destroy_work(struct work_struct *work)
{
	destroy(container_of(work, struct lunatik_object, work));
}

static void unreferenced(struct kref *kref)
{
	struct lunatik_object *object = container_of(kref, struct lunatik_object, kref);

	if (object->class->flags & LUNATIK_DEFER) {
		INIT_WORK(&object->work, destroy_work);
		queue_work(lunatik_workqueue, &object->work);
	} else {
		destroy(object);
	}
}

struct lunatik_object *lunatik_object_get(struct lunatik_object *object)
{
	kref_get(&object->kref);
	return object;
}
EXPORT_SYMBOL_GPL(lunatik_object_get);

/* The same for one that others find in a table from now on. The count orders the mark. */
struct lunatik_object *lunatik_object_publish(struct lunatik_object *object)
{
	WRITE_ONCE(object->published, true);
	return lunatik_object_get(object);
}

void lunatik_object_put(struct lunatik_object *object)
{
	kref_put(&object->kref, unreferenced);
}
EXPORT_SYMBOL_GPL(lunatik_object_put);

/* Under rcu_read_lock(): NULL if its last reference is gone already. */
struct lunatik_object *lunatik_object_get_live(struct lunatik_object *object)
{
	return kref_get_unless_zero(&object->kref) ? object : NULL;
}

/* NULL when over the cap or out of memory. @runtime may be NULL. */
struct lunatik_object *lunatik_object_create(struct lunatik_runtime *runtime,
					     const struct lunatik_class *class,
					     size_t size, gfp_t gfp)
{
	struct lunatik_object *object = NULL;
	size_t total = sizeof(*object) + size;

	if (total > INT_MAX || !lunatik_account(runtime, total))
		return NULL;
	gfp |= __GFP_ZERO | __GFP_NOWARN;
	if (!lunatik_fault())
		object = gfpflags_allow_blocking(gfp) ? kvmalloc(total, gfp) : kmalloc(total, gfp);
	if (!object) {
		lunatik_unaccount(runtime, total);
		return NULL;
	}
	kref_init(&object->kref);
	object->class = class;
	object->runtime = runtime ? lunatik_get(runtime) : NULL;
	object->size = total;
	object->private = size ? object->data : NULL;
	if (runtime)	/* the core's own must not keep it loaded */
		__module_get(class->owner);
	if (class->flags & LUNATIK_SLEEP)
		mutex_init(&object->mutex);
	else
		spin_lock_init(&object->spin);
	return object;
}

/* ---- in a runtime ---- */

static int handle_gc(lua_State *L)
{
	struct handle *handle = tohandle(L, 1);

	if (handle && handle->object) {
		struct lunatik_object *object = handle->object;

		handle->object = NULL;
		lunatik_object_put(object);
	}
	return 0;
}

static int handle_close(lua_State *L)
{
	struct lunatik_object *object = lunatik_object(L, 1);

	if (object && object->class->stop && object->private)
		object->class->stop(L, object->private);
	return 0;
}

static int handle_eq(lua_State *L)
{
	struct lunatik_object *object = lunatik_object(L, 1);

	lua_pushboolean(L, object && object == lunatik_object(L, 2));
	return 1;
}

static int handle_tostring(lua_State *L)
{
	struct lunatik_object *object = lunatik_object(L, 1);

	lua_pushfstring(L, "%s: %p", object ? object->class->name : "object", object);
	return 1;
}

static const luaL_Reg handle_metamethods[] = {
	{"__gc", handle_gc},
	{"__close", handle_close},
	{"__eq", handle_eq},
	{"__tostring", handle_tostring},
	{}
};

/* Metamethods go to the metatable, methods to its __index: no way back. */
static void set_methods(lua_State *L, const struct lunatik_class *class)
{
	int metatable = lua_gettop(L);
	bool indexed = false;
	const luaL_Reg *method;

	lua_newtable(L);
	for (method = class->methods; method && method->name; method++) {
		bool meta = strncmp(method->name, "__", 2) == 0;

		indexed |= strcmp(method->name, "__index") == 0;
		lua_pushcfunction(L, method->func);
		lua_setfield(L, meta ? metatable : metatable + 1, method->name);
	}
	if (class->stop) {
		lua_pushcfunction(L, handle_close);
		lua_setfield(L, -2, "stop");
	}
	if (indexed)
		lua_pop(L, 1);
	else
		lua_setfield(L, metatable, "__index");
}

static void push_metatable(lua_State *L, const struct lunatik_class *class)
{
	if (likely(lua_rawgetp(L, LUA_REGISTRYINDEX, class) == LUA_TTABLE))
		return;
	lua_pop(L, 1);

	if (!lunatik_pin(lunatik_toruntime(L), class->owner, lunatik_gfp(L)))
		luaL_error(L, "not enough memory");
	luaL_checkstack(L, 5, NULL);
	lua_newtable(L);
	luaL_setfuncs(L, handle_metamethods, 0);
	lua_pushstring(L, class->name);
	lua_setfield(L, -2, "__name");
	lua_pushboolean(L, false);
	lua_setfield(L, -2, "__metatable");
	set_methods(L, class);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, class);
}

static void check_context(lua_State *L, const struct lunatik_class *class)
{
	if (class->flags & LUNATIK_SLEEP &&
	    lunatik_toruntime(L)->context != LUNATIK_PROCESS)
		luaL_error(L, "%s: process-context class in interrupt-context runtime",
			   class->name);
}

static struct handle *push_handle(lua_State *L, const struct lunatik_class *class)
{
	struct handle *handle;

	luaL_checkstack(L, 3, NULL);
	handle = lua_newuserdatauv(L, sizeof(*handle), 0);
	handle->self = handle;
	handle->object = NULL;
	push_metatable(L, class);
	lua_setmetatable(L, -2);
	return handle;
}

void lunatik_push(lua_State *L, struct lunatik_object *object)
{
	struct handle *handle;

	if (object->class->flags & LUNATIK_SINGLE)
		luaL_error(L, "cannot share SINGLE object");
	check_context(L, object->class);
	handle = push_handle(L, object->class);
	handle->object = lunatik_object_get(object);
}
EXPORT_SYMBOL_GPL(lunatik_push);

/*
 * A handle first, its object later: for who gets a reference where Lua must
 * not be called. Put it (or NULL) where the result points, then bless it with
 * its class. Whatever throws in between, the collector drops the reference.
 */
struct lunatik_object **lunatik_push_blank(lua_State *L)
{
	static const struct lunatik_class blank_class = {
		.name = "object",
		.owner = THIS_MODULE,
	};

	return &push_handle(L, &blank_class)->object;
}

void lunatik_bless(lua_State *L)
{
	struct lunatik_object *object = lunatik_object(L, -1);

	check_context(L, object->class);
	push_metatable(L, object->class);
	lua_setmetatable(L, -2);
}

void *lunatik_new(lua_State *L, const struct lunatik_class *class, size_t size)
{
	struct lunatik_runtime *runtime = lunatik_toruntime(L);
	struct handle *handle;

	check_context(L, class);
	lunatikvm_charge(L, size / 64);
	if (unlikely(!lunatik_await_reclaim(L)))
		luaL_error(L, "not enough memory");
	handle = push_handle(L, class);
	handle->object = lunatik_object_create(runtime, class, size, lunatik_gfp(L));
	if (!handle->object) {
		lua_gc(L, LUA_GCCOLLECT);
		handle->object = lunatik_object_create(runtime, class, size, lunatik_gfp(L));
	}
	if (!handle->object)
		luaL_error(L, "not enough memory");
	return size ? handle->object->private : handle->object;
}
EXPORT_SYMBOL_GPL(lunatik_new);

/* ---- monitors ---- */

void lunatik_lock(void *private, const struct lunatik_class *class, unsigned long *flags)
{
	struct lunatik_object *object = container_of(private, struct lunatik_object, data);

	if (class->flags & LUNATIK_SLEEP) {
		*flags = 0;
		mutex_lock(&object->mutex);
	} else {
		spin_lock_irqsave(&object->spin, *flags);
		__release(&object->spin);	/* for sparse: see lunatik_unlock() */
	}
}
EXPORT_SYMBOL_GPL(lunatik_lock);

void lunatik_unlock(void *private, const struct lunatik_class *class, unsigned long flags)
{
	struct lunatik_object *object = container_of(private, struct lunatik_object, data);

	if (class->flags & LUNATIK_SLEEP) {
		mutex_unlock(&object->mutex);
	} else {
		__acquire(&object->spin);
		spin_unlock_irqrestore(&object->spin, flags);
	}
}
EXPORT_SYMBOL_GPL(lunatik_unlock);

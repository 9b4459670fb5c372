// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tables shared between runtimes.
 *
 * Readers walk a bucket under rcu_read_lock(), writers hold the table's lock.
 * An entry never changes: a write puts a new one in the place of the old one,
 * so that a reader finds either, wherever it stands. A reader that wants the
 * object of an entry takes a reference to it inside the RCU section; the last
 * reference may be gone by then, and then the entry is, too.
 */
#include <linux/export.h>
#include <linux/jhash.h>
#include <linux/log2.h>
#include <linux/random.h>
#include <linux/rculist.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "core.h"
#include "lunatik_table.h"

/*
 * Scripts choose the number of buckets, and a writer walks one with interrupts
 * off: no more than about 100 us. The kernel's own tables hold what all scripts
 * together put there.
 */
#define TABLE_CHAIN_MAX		2048
#define TABLE_KERNEL_BUCKETS	1024

struct entry {
	struct hlist_node node;		/* in a bucket, under table->lock, read by RCU */
	struct kref kref;		/* the bucket's, and those of walks */
	int type;			/* LUA_TBOOLEAN, LUA_TNUMBER, LUA_TUSERDATA */
	u32 hash;			/* of the key: what tells most of them apart */
	union {
		bool boolean;
		lua_Integer integer;
		struct lunatik_object *object;	/* counted */
	};
	struct rcu_head rcu;
	struct lunatik_runtime *runtime;	/* counted: whose account; NULL: stays for ever */
	size_t size;
	size_t length;
	char key[];
};

struct table {
	spinlock_t lock;		/* guards the buckets; IRQs off */
	u32 seed;
	u32 mask;			/* number of buckets - 1 */
	struct hlist_head *buckets;	/* lunatik_free() */
};

/* A callback of RCU: softirq, nothing held. */
static void entry_reclaim(struct rcu_head *rcu)
{
	struct entry *entry = container_of(rcu, struct entry, rcu);
	struct lunatik_runtime *runtime = entry->runtime;

	lunatik_reclaimed(runtime, entry->size);
	kfree(entry);
}

static void entry_free(struct kref *kref)
{
	struct entry *entry = container_of(kref, struct entry, kref);
	struct lunatik_runtime *runtime = entry->runtime;

	if (entry->type == LUA_TUSERDATA)
		lunatik_object_put(entry->object);
	lunatik_lapse(runtime, entry->size, &entry->rcu, entry_reclaim);
}

static void entry_put(struct entry *entry)
{
	kref_put(&entry->kref, entry_free);
}

/* Deferred to a workqueue: there may be very many entries. */
static void table_release(void *private)
{
	struct table *table = private;
	struct hlist_node *next;
	struct entry *entry;
	u32 i;

	if (!table->buckets)
		return;
	for (i = 0; i <= table->mask; i++) {
		hlist_for_each_entry_safe(entry, next, &table->buckets[i], node) {
			hlist_del_rcu(&entry->node);
			entry_put(entry);
			cond_resched();
		}
	}
	lunatik_free(table->buckets);
}

/* A key, and what looking for it took. */
struct sought {
	const char *key;
	size_t length;
	u32 hash;
	size_t steps;			/* to be charged, where nothing is held */
};

static struct hlist_head *bucket_of(struct table *table, u32 hash)
{
	return &table->buckets[hash & table->mask];
}

/* Scripts choose how many entries share a bucket: each of them is a step. */
static struct entry *find(struct table *table, struct sought *sought)
{
	struct entry *entry;

	hlist_for_each_entry_rcu(entry, bucket_of(table, sought->hash), node,
				 lockdep_is_held(&table->lock)) {
		sought->steps++;
		if (entry->hash == sought->hash && entry->length == sought->length &&
		    !memcmp(entry->key, sought->key, sought->length))
			return entry;
	}
	return NULL;
}

static void seek(lua_State *L, struct table *table, struct sought *sought)
{
	sought->key = luaL_checklstring(L, 2, &sought->length);
	sought->steps = 0;
	lunatikvm_charge(L, sought->length / 16 + 1);
	sought->hash = jhash(sought->key, sought->length, table->seed);
}

static const struct lunatik_class table_class;

struct found {
	int type;			/* LUA_TNIL: nothing */
	bool boolean;
	lua_Integer integer;
};

/*
 * @object: where to put a reference if it is one; NULL: leave it.
 *
 * An entry leaves its bucket before it lets go of its object, so whoever comes
 * too late for the object finds the next entry, or none, when he looks again:
 * smp_rmb() pairs with the release in kref_put(). Each turn takes a writer.
 */
static void look_up(struct table *table, struct sought *sought, struct found *found,
		    struct lunatik_object **object)
{
	struct entry *entry;

	rcu_read_lock();
again:
	found->type = LUA_TNIL;
	entry = find(table, sought);
	if (entry) {
		found->type = entry->type;
		if (entry->type == LUA_TBOOLEAN) {
			found->boolean = entry->boolean;
		} else if (entry->type == LUA_TNUMBER) {
			found->integer = entry->integer;
		} else if (object) {
			*object = lunatik_object_get_live(entry->object);
			if (!*object) {
				smp_rmb();	/* see above */
				goto again;
			}
		}
	}
	rcu_read_unlock();
}

static int table_index(lua_State *L)
{
	struct table *table = lunatik_check(L, 1, &table_class);
	struct lunatik_object **object;
	struct sought sought;
	struct found found;

	seek(L, table, &sought);
	look_up(table, &sought, &found, NULL);
	if (found.type == LUA_TUSERDATA) {
		object = lunatik_push_blank(L);
		look_up(table, &sought, &found, object);
		if (*object) {
			lunatik_bless(L);
			lunatikvm_charge(L, sought.steps);
			return 1;
		}
	}

	lunatikvm_charge(L, sought.steps);
	if (found.type == LUA_TNUMBER)
		lua_pushinteger(L, found.integer);
	else if (found.type == LUA_TBOOLEAN)
		lua_pushboolean(L, found.boolean);
	else
		lua_pushnil(L);
	return 1;
}

static struct entry *new_entry(lua_State *L, const struct sought *sought)
{
	size_t length = sought->length;
	struct lunatik_runtime *runtime = lunatik_toruntime(L);
	size_t size = struct_size((struct entry *)NULL, key, length);
	struct entry *entry = NULL;

	if (length > PAGE_SIZE)
		luaL_argerror(L, 2, "key too long");
	if (!lunatik_await_reclaim(L) || !lunatik_account(runtime, size))
		luaL_error(L, "not enough memory");
	if (!lunatik_fault())
		entry = kmalloc(size, lunatik_gfp(L) | __GFP_NOWARN);
	if (!entry) {
		lunatik_unaccount(runtime, size);
		luaL_error(L, "not enough memory");
		return NULL;
	}
	kref_init(&entry->kref);
	entry->runtime = lunatik_get(runtime);
	entry->size = size;
	entry->hash = sought->hash;
	entry->length = length;
	memcpy(entry->key, sought->key, length);
	return entry;
}

/*
 * The object that a script wants to store. A table goes into those of the
 * kernel's only: among others it could come to hold itself, and would stay for
 * ever, its module with it.
 */
static struct lunatik_object *storable(lua_State *L)
{
	struct lunatik_object *object = lunatik_object(L, 3);

	if (!object)
		luaL_argerror(L, 3, "invalid object");
	if (lunatik_classof(object)->flags & LUNATIK_SINGLE)
		luaL_error(L, "cannot share SINGLE object");
	if (lunatik_classof(object) == &table_class &&
	    (lunatik_owned(lunatik_object(L, 1)) || !lunatik_owned(object)))
		luaL_error(L, "cannot store a table in a table but lunatik._ENV");
	return object;
}

static int table_newindex(lua_State *L)
{
	struct table *table = lunatik_check(L, 1, &table_class);
	struct lunatik_object *object = NULL;
	struct entry *entry = NULL, *old;
	int type = lua_type(L, 3);
	struct sought sought;
	unsigned long flags;
	bool fixed, full;

	seek(L, table, &sought);
	if (type == LUA_TUSERDATA)
		object = storable(L);
	else if (type != LUA_TNIL && type != LUA_TBOOLEAN && type != LUA_TNUMBER)
		return luaL_argerror(L, 3, "boolean, integer, object or nil expected");

	if (type != LUA_TNIL) {
		entry = new_entry(L, &sought);
		entry->type = type;
		if (object)
			entry->object = lunatik_object_publish(object);
		else if (type == LUA_TBOOLEAN)
			entry->boolean = lua_toboolean(L, 3);
		else
			entry->integer = lua_tointeger(L, 3);
	}

	spin_lock_irqsave(&table->lock, flags);
	old = find(table, &sought);
	fixed = old && !old->runtime;
	full = !old && entry && sought.steps >= TABLE_CHAIN_MAX;
	if (fixed || full)
		old = entry;	/* it goes instead */
	else if (old && entry)
		hlist_replace_rcu(&old->node, &entry->node);
	else if (entry)
		hlist_add_head_rcu(&entry->node, bucket_of(table, sought.hash));
	else if (old)
		hlist_del_rcu(&old->node);
	spin_unlock_irqrestore(&table->lock, flags);
	if (old)
		entry_put(old);
	lunatikvm_charge(L, sought.steps);
	if (fixed)
		return luaL_error(L, "lunatik._ENV.%s is there to stay", sought.key);
	if (full)
		return luaL_error(L, "too many entries in one bucket: it takes more buckets");
	return 0;
}

static const luaL_Reg table_methods[] = {
	{"__index", table_index},
	{"__newindex", table_newindex},
	{}
};

static const struct lunatik_class table_class = {
	.name = "rcu.table",
	.flags = LUNATIK_DEFER,
	.methods = table_methods,
	.release = table_release,
	.owner = THIS_MODULE,
};

static void init_table(struct table *table, size_t buckets, struct hlist_head *heads)
{
	spin_lock_init(&table->lock);
	table->seed = get_random_u32();
	table->mask = buckets - 1;
	table->buckets = heads;	/* zeroed: empty */
}

void lunatik_table_new(lua_State *L, size_t buckets)
{
	struct table *table = lunatik_new(L, &table_class, sizeof(*table));

	buckets = roundup_pow_of_two(buckets);
	init_table(table, buckets, lunatik_alloc(L, buckets * sizeof(struct hlist_head)));
}
EXPORT_SYMBOL_GPL(lunatik_table_new);

/* ---- walking ---- */

/* The entries of one bucket, held. An object, so that no error leaks it. */
struct walk {
	size_t count;
	size_t capacity;
	struct entry **entries;		/* lunatik_free() */
};

static void walk_clear(struct walk *walk)
{
	while (walk->count)
		entry_put(walk->entries[--walk->count]);
}

static void walk_release(void *private)
{
	struct walk *walk = private;

	walk_clear(walk);
	lunatik_free(walk->entries);
}

static const struct lunatik_class walk_class = {
	.name = "rcu.walk",
	.flags = LUNATIK_SINGLE,
	.release = walk_release,
	.owner = THIS_MODULE,
};

/* Hold up to @walk->capacity entries; returns how many there are. */
static size_t walk_collect(struct walk *walk, struct hlist_head *bucket)
{
	struct entry *entry;
	size_t found = 0;

	rcu_read_lock();
	hlist_for_each_entry_rcu(entry, bucket, node) {
		if (found < walk->capacity && kref_get_unless_zero(&entry->kref))
			walk->entries[walk->count++] = entry;
		found++;
	}
	rcu_read_unlock();
	return found;
}

static void walk_bucket(lua_State *L, struct walk *walk, struct hlist_head *bucket)
{
	size_t found;

	while ((found = walk_collect(walk, bucket)) > walk->capacity) {
		struct entry **larger;

		walk_clear(walk);
		lunatikvm_charge(L, found);
		larger = lunatik_alloc(L, 2 * found * sizeof(*larger));
		lunatik_free(walk->entries);
		walk->entries = larger;
		walk->capacity = 2 * found;
	}
	lunatikvm_charge(L, found);
}

static void push_entry(lua_State *L, const struct entry *entry)
{
	lua_pushlstring(L, entry->key, entry->length);
	if (entry->type == LUA_TUSERDATA)
		lunatik_push(L, entry->object);	/* the entry holds it */
	else if (entry->type == LUA_TBOOLEAN)
		lua_pushboolean(L, entry->boolean);
	else
		lua_pushinteger(L, entry->integer);
}

void lunatik_table_map(lua_State *L)
{
	struct table *table = lunatik_check(L, 1, &table_class);
	struct walk *walk;
	u32 i;

	luaL_checktype(L, 2, LUA_TFUNCTION);
	lua_settop(L, 2);
	walk = lunatik_new(L, &walk_class, sizeof(*walk));
	for (i = 0; i <= table->mask; i++) {
		lunatikvm_charge(L, 1);
		if (hlist_empty(&table->buckets[i]))
			continue;
		walk_bucket(L, walk, &table->buckets[i]);
		while (walk->count) {
			lua_pushvalue(L, 2);
			push_entry(L, walk->entries[walk->count - 1]);
			entry_put(walk->entries[--walk->count]);
			lua_call(L, 2, 0);
		}
	}
}
EXPORT_SYMBOL_GPL(lunatik_table_map);

/* ---- lunatik._ENV ---- */

struct lunatik_object *lunatik_env;

static struct lunatik_object *kernel_table(size_t buckets)
{
	struct lunatik_object *object;
	struct hlist_head *heads;

	heads = lunatik_try_alloc(NULL, buckets * sizeof(*heads), GFP_KERNEL);
	if (!heads)
		return NULL;
	object = lunatik_object_create(NULL, &table_class, sizeof(struct table), GFP_KERNEL);
	if (!object) {
		lunatik_free(heads);
		return NULL;
	}
	init_table(lunatik_private(object), buckets, heads);
	return object;
}

static int set_table(const char *key)
{
	struct table *table = lunatik_private(lunatik_env);
	size_t length = strlen(key);
	struct entry *entry = NULL;

	if (!lunatik_fault())
		entry = kzalloc(struct_size(entry, key, length), GFP_KERNEL);
	if (!entry)
		return -ENOMEM;
	entry->object = kernel_table(TABLE_KERNEL_BUCKETS);
	if (!entry->object) {
		kfree(entry);
		return -ENOMEM;
	}
	kref_init(&entry->kref);
	entry->type = LUA_TUSERDATA;
	entry->length = length;
	entry->hash = jhash(key, length, table->seed);
	memcpy(entry->key, key, length);
	hlist_add_head_rcu(&entry->node, bucket_of(table, entry->hash));
	return 0;
}

int lunatik_table_init(void)
{
	int ret;

	lunatik_env = kernel_table(TABLE_KERNEL_BUCKETS);
	if (!lunatik_env)
		return -ENOMEM;
	ret = set_table("runtimes");
	if (!ret)
		ret = set_table("threads");
	if (ret)
		lunatik_table_exit();
	return ret;
}

void lunatik_table_exit(void)
{
	lunatik_object_put(lunatik_env);
}

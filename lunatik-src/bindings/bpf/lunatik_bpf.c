// SPDX-License-Identifier: GPL-2.0-only
/*
 * bpf - maps that a script shares with eBPF programs and user space
 *
 * A script opens a pinned map while it is loaded and holds a reference to it
 * for as long as the object lives, as a program does. What its methods do is
 * what the helpers of the same name do: the map's own operations, under RCU.
 *
 * Keys and values are strings of exactly the map's sizes.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bpf.h>
#include <linux/dcache.h>
#include <linux/fdtable.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/namei.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched/clock.h>
#include <linux/uaccess.h>

#include "lunatik_bpf.h"

/*
 * MODULE_IMPORT_NS() takes a token before 6.13 (cdd30ebb1b9f "module: Convert
 * symbol namespace to string literal") and a string since; this is what either
 * makes of it.
 */
MODULE_INFO(import_ns, "BPF_INTERNAL");

/* Exported for light skeletons, whose header is a tool's; for sparse too. */
int kern_sys_bpf(int cmd, union bpf_attr *attr, unsigned int size);

/* One VM instruction's worth of copying and hashing. */
#define MAP_BYTES_A_UNIT	32

/* What finding an element costs, whatever its size. */
#define MAP_UNITS		4

/* Values up to this size need no buffer of Lua's. */
#define MAP_VALUE_ON_STACK	64

struct map {
	struct bpf_map *map;	/* a reference; NULL until opened, then fixed */
	bool closed;		/* only ever set */
};

/* ---- opening ------------------------------------------------------------ */

/*
 * Is what bpffs keeps at @candidate, whose type it does not tell, a map? The
 * kernel itself says which map has the ID that would stand there if it was.
 * @candidate is kept by its inode meanwhile, and only compared.
 */
static int map_get_if_map(struct bpf_map *candidate, struct bpf_map **map)
{
	union bpf_attr attr = {};
	int fd, ret = 0;
	u32 id;

	if (copy_from_kernel_nofault(&id, &candidate->id, sizeof(id)))
		return -EINVAL;
	attr.map_id = id;
	fd = kern_sys_bpf(BPF_MAP_GET_FD_BY_ID, &attr, sizeof(attr));
	if (fd < 0)
		return fd == -ENOENT ? -EINVAL : fd;

	*map = bpf_map_get(fd);
	close_fd(fd);
	if (IS_ERR(*map))
		return PTR_ERR(*map);
	if (*map != candidate) {
		bpf_map_put(*map);
		ret = -EINVAL;
	}
	return ret;
}

static int map_get_pinned(const char *name, struct bpf_map **map)
{
	struct inode *inode;
	struct path path;
	int ret;

	if (!lunatik_has_files())
		return -ESRCH;
	ret = kern_path(name, LOOKUP_FOLLOW, &path);
	if (ret)
		return ret;
	inode = d_backing_inode(path.dentry);
	if (inode->i_sb->s_magic != BPF_FS_MAGIC || !S_ISREG(inode->i_mode) ||
	    !inode->i_private)
		ret = -EINVAL;
	else
		ret = path_permission(&path, MAY_READ | MAY_WRITE);
	if (!ret)
		ret = map_get_if_map(inode->i_private, map);
	path_put(&path);
	return ret;
}

static const struct lunatik_class table_class;
static const struct lunatik_class queue_class;
static const struct lunatik_class redirect_class;
static const struct lunatik_class events_class;

/*
 * What a script may open: the library's function, the class of what it gives,
 * the types it takes. Per-CPU maps, maps of maps, of programs and of sockets
 * are none of these: their values are no bytes that a script could hold.
 */
static const struct map_kind {
	const char *name;
	const struct lunatik_class *class;
	enum bpf_map_type types[2];
} map_kinds[] = {
	{ "array", &table_class, { BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_ARRAY } },
	{ "hash", &table_class, { BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_HASH } },
	{ "lru_hash", &table_class, { BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_HASH } },
	{ "queue", &queue_class, { BPF_MAP_TYPE_QUEUE, BPF_MAP_TYPE_QUEUE } },
	{ "stack", &queue_class, { BPF_MAP_TYPE_STACK, BPF_MAP_TYPE_STACK } },
	{ "devmap", &redirect_class, { BPF_MAP_TYPE_DEVMAP, BPF_MAP_TYPE_DEVMAP_HASH } },
	{ "cpumap", &redirect_class, { BPF_MAP_TYPE_CPUMAP, BPF_MAP_TYPE_CPUMAP } },
	{ "xskmap", &redirect_class, { BPF_MAP_TYPE_XSKMAP, BPF_MAP_TYPE_XSKMAP } },
	{ "ringbuf", &events_class, { BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_RINGBUF } },
	{ "perf", &events_class,
	  { BPF_MAP_TYPE_PERF_EVENT_ARRAY, BPF_MAP_TYPE_PERF_EVENT_ARRAY } },
};

/* Maps of a card's have no operations that could be called here. */
static bool map_works(const struct bpf_map *map, const struct lunatik_class *class)
{
	if (class == &table_class)
		return map->ops->map_lookup_elem && map->ops->map_update_elem &&
		       map->ops->map_delete_elem && map->ops->map_get_next_key;
	if (class == &queue_class)
		return map->ops->map_push_elem && map->ops->map_pop_elem &&
		       map->ops->map_peek_elem;
	return true;
}

/* bpf.<kind>(path) -> the map that is pinned there */
static int map_open(lua_State *L)
{
	const struct map_kind *kind = &map_kinds[lua_tointeger(L, lua_upvalueindex(1))];
	const char *path = luaL_checkstring(L, 1);
	struct bpf_map *found;
	struct map *map;

	lunatik_checkwait(L, "opening a map");
	map = lunatik_new(L, kind->class, sizeof(*map));
	lunatik_try(L, map_get_pinned(path, &found));
	map->map = found;
	if ((found->map_type != kind->types[0] && found->map_type != kind->types[1]) ||
	    !map_works(found, kind->class))
		return luaL_error(L, "'%s' is no %s", path, kind->name);
	return 1;
}

/* ---- what the methods share --------------------------------------------- */

static struct bpf_map *map_check(lua_State *L, int arg, const struct lunatik_class *class)
{
	struct map *map = lunatik_check(L, arg, class);

	if (READ_ONCE(map->closed))
		luaL_error(L, "%s is closed", class->name);
	return map->map;
}

/* The same, unless the map was made to keep programs from it. */
static struct bpf_map *map_check_allowed(lua_State *L, const struct lunatik_class *class,
					 u32 forbidden)
{
	struct bpf_map *map = map_check(L, 1, class);

	if (map->map_flags & forbidden)
		lunatik_throw(L, -EACCES);
	lunatik_charge(L, MAP_UNITS + (map->key_size + map->value_size) / MAP_BYTES_A_UNIT);
	return map;
}

/* A string of Lua's is aligned as malloc()'s memory is; operations only read. */
static void *map_checkbytes(lua_State *L, int arg, u32 size, const char *what)
{
	const char *bytes;
	size_t length;

	luaL_checktype(L, arg, LUA_TSTRING);
	bytes = lua_tolstring(L, arg, &length);
	if (length != size)
		luaL_error(L, "%s has %d bytes, not %d", what, (int)size, (int)length);
	return (void *)bytes;
}

/* Four bytes of a key may also be given as an integer, as arrays' keys are. */
static void *map_checkkey(lua_State *L, int arg, const struct bpf_map *map, u32 *index)
{
	if (map->key_size == sizeof(*index) && lua_type(L, arg) == LUA_TNUMBER) {
		*index = lunatik_checkrange(L, arg, 0, U32_MAX);
		return index;
	}
	return map_checkbytes(L, arg, map->key_size, "a key");
}

/*
 * Helpers run where a task does not change its CPU, and values live as long
 * as RCU says. No errors of Lua's in between.
 */
static void map_enter(void)
	__acquires(RCU)
{
	migrate_disable();
	rcu_read_lock();
}

static void map_leave(void)
	__releases(RCU)
{
	rcu_read_unlock();
	migrate_enable();
}

/* true, or nil and why not, for what a script can't know beforehand */
static int map_result(lua_State *L, long ret)
{
	if (ret == -EINVAL || ret == -EOPNOTSUPP)
		return lunatik_throw(L, (int)ret);
	if (!ret) {
		lua_pushboolean(L, true);
		return 1;
	}
	lua_pushnil(L);
	lua_pushstring(L, lunatik_errname((int)ret));
	return 2;
}

/*
 * Room for one value, zeroed: parts of it may be no bytes (locks, timers) and
 * are left out when it is copied.
 */
struct map_room {
	luaL_Buffer buffer;
	size_t size;
	char *bytes;
	u8 small[MAP_VALUE_ON_STACK] __aligned(8);
};

static void map_room_init(lua_State *L, struct map_room *room, size_t size)
{
	room->size = size;
	room->bytes = (char *)room->small;
	if (size > sizeof(room->small))
		room->bytes = luaL_buffinitsize(L, &room->buffer, size);
	memset(room->bytes, 0, size);
}

static int map_room_push(lua_State *L, struct map_room *room, bool found)
{
	if (!found)
		lua_pushnil(L);
	else if (room->size > sizeof(room->small))
		luaL_pushresultsize(&room->buffer, room->size);
	else
		lua_pushlstring(L, room->bytes, room->size);
	return 1;
}

static int map_length(lua_State *L, const struct lunatik_class *class)
{
	lua_pushinteger(L, map_check(L, 1, class)->max_entries);
	return 1;
}

/* ---- array, hash, lru_hash ---------------------------------------------- */

/* map:lookup(key) -> value or nil */
static int table_lookup(lua_State *L)
{
	struct bpf_map *map = map_check_allowed(L, &table_class, BPF_F_WRONLY_PROG);
	struct map_room room;
	void *key, *value;
	u32 index;

	key = map_checkkey(L, 2, map, &index);
	map_room_init(L, &room, map->value_size);
	map_enter();
	value = map->ops->map_lookup_elem(map, key);
	/* It may change meanwhile; a string of Lua's must not. */
	if (value)
		copy_map_value(map, room.bytes, value);
	map_leave();
	return map_room_push(L, &room, value);
}

/* map:update(key, value[, flags]) -> true, or nil and "E2BIG", ... */
static int table_update(lua_State *L)
{
	struct bpf_map *map = map_check_allowed(L, &table_class, BPF_F_RDONLY_PROG);
	u64 flags = lunatik_optrange(L, 4, BPF_ANY, 0, U32_MAX);
	void *key, *value;
	u32 index;
	long ret;

	key = map_checkkey(L, 2, map, &index);
	value = map_checkbytes(L, 3, map->value_size, "a value");
	map_enter();
	ret = map->ops->map_update_elem(map, key, value, flags);
	map_leave();
	return map_result(L, ret);
}

/* map:delete(key) -> true, or nil and "ENOENT" */
static int table_delete(lua_State *L)
{
	struct bpf_map *map = map_check_allowed(L, &table_class, BPF_F_RDONLY_PROG);
	void *key;
	u32 index;
	long ret;

	key = map_checkkey(L, 2, map, &index);
	map_enter();
	ret = map->ops->map_delete_elem(map, key);
	map_leave();
	return map_result(L, ret);
}

/*
 * map:next([key]) -> the key after it, the first one, or nil. Programs have no
 * such helper, as it may look at every bucket; so not where it would hold up
 * packets or whoever waits for the RTNL.
 */
static int table_next(lua_State *L)
{
	struct bpf_map *map = map_check_allowed(L, &table_class, 0);
	struct map_room room;
	void *key = NULL;
	u32 index;
	u64 began, passed;
	int ret;

	lunatik_checkwait(L, "map:next");
	if (!lua_isnoneornil(L, 2))
		key = map_checkkey(L, 2, map, &index);
	map_room_init(L, &room, map->key_size);
	map_enter();
	began = local_clock();
	ret = map->ops->map_get_next_key(map, key, room.bytes);
	passed = local_clock() - began;
	map_leave();
	/*
	 * How many buckets it has looked at, nobody tells: 4 ns are a unit, about.
	 * Time that went to somebody else is no reason for more than there are.
	 */
	lunatik_charge(L, min_t(u64, passed / 4, 2ULL * map->max_entries));
	if (ret != -ENOENT)
		lunatik_try(L, ret);
	return map_room_push(L, &room, !ret);
}

static int table_length(lua_State *L)
{
	return map_length(L, &table_class);
}

static int table_close(lua_State *L)
{
	WRITE_ONCE(((struct map *)lunatik_check(L, 1, &table_class))->closed, true);
	return 0;
}

/* ---- queue, stack ------------------------------------------------------- */

/* map:push(value[, flags]) -> true, or nil and "E2BIG" */
static int queue_push(lua_State *L)
{
	struct bpf_map *map = map_check_allowed(L, &queue_class, BPF_F_RDONLY_PROG);
	void *value = map_checkbytes(L, 2, map->value_size, "a value");
	u64 flags = lunatik_optrange(L, 3, BPF_ANY, 0, U32_MAX);
	long ret;

	map_enter();
	ret = map->ops->map_push_elem(map, value, flags);
	map_leave();
	return map_result(L, ret);
}

static int queue_take(lua_State *L, u32 forbidden, bool remove)
{
	struct bpf_map *map = map_check_allowed(L, &queue_class, forbidden);
	struct map_room room;
	long ret;

	map_room_init(L, &room, map->value_size);
	map_enter();
	if (remove)
		ret = map->ops->map_pop_elem(map, room.bytes);
	else
		ret = map->ops->map_peek_elem(map, room.bytes);
	map_leave();
	return map_room_push(L, &room, !ret);
}

/* map:pop() -> value or nil */
static int queue_pop(lua_State *L)
{
	return queue_take(L, BPF_F_RDONLY_PROG, true);
}

/* map:peek() -> value or nil */
static int queue_peek(lua_State *L)
{
	return queue_take(L, BPF_F_WRONLY_PROG, false);
}

static int queue_length(lua_State *L)
{
	return map_length(L, &queue_class);
}

static int queue_close(lua_State *L)
{
	WRITE_ONCE(((struct map *)lunatik_check(L, 1, &queue_class))->closed, true);
	return 0;
}

/* ---- classes ------------------------------------------------------------ */

/* From wherever the last reference goes: a map frees itself from a workqueue. */
static void map_release(void *private)
{
	struct map *map = private;

	if (map->map)
		bpf_map_put(map->map);
}

static const luaL_Reg table_methods[] = {
	{ "lookup", table_lookup },
	{ "update", table_update },
	{ "delete", table_delete },
	{ "next", table_next },
	{ "close", table_close },
	{ "__len", table_length },
	{ NULL, NULL }
};

static const luaL_Reg queue_methods[] = {
	{ "push", queue_push },
	{ "pop", queue_pop },
	{ "peek", queue_peek },
	{ "close", queue_close },
	{ "__len", queue_length },
	{ NULL, NULL }
};

static const luaL_Reg no_methods[] = {
	{ NULL, NULL }
};

/* What maps do they lock themselves, so no monitor. */
static const struct lunatik_class table_class = {
	.name = "bpf.map",
	.methods = table_methods,
	.release = map_release,
	.owner = THIS_MODULE,
};

static const struct lunatik_class queue_class = {
	.name = "bpf.queue",
	.methods = queue_methods,
	.release = map_release,
	.owner = THIS_MODULE,
};

static const struct lunatik_class redirect_class = {
	.name = "bpf.redirect_map",
	.methods = no_methods,
	.release = map_release,
	.owner = THIS_MODULE,
};

static const struct lunatik_class events_class = {
	.name = "bpf.events",
	.methods = no_methods,
	.release = map_release,
	.owner = THIS_MODULE,
};

struct bpf_map *lunatik_checkredirectmap(lua_State *L, int arg)
{
	return map_check(L, arg, &redirect_class);
}
EXPORT_SYMBOL_GPL(lunatik_checkredirectmap);

struct bpf_map *lunatik_checkevents(lua_State *L, int arg)
{
	return map_check(L, arg, &events_class);
}
EXPORT_SYMBOL_GPL(lunatik_checkevents);

static void bpf_open(lua_State *L)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(map_kinds); i++) {
		lua_pushinteger(L, i);
		lua_pushcclosure(L, map_open, 1);
		lua_setfield(L, -2, map_kinds[i].name);
	}
}

static const struct lunatik_library bpf_library = {
	.name = "bpf",
	.contexts = LUNATIK_ANY,
	.open = bpf_open,
};

LUNATIK_LIBRARY(bpf, bpf_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: maps of eBPF");

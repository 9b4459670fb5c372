// SPDX-License-Identifier: GPL-2.0-only
/*
 * data - bytes that scripts read and write as integers and strings
 *
 * Two classes answer to the same methods: "data" owns its bytes and may be
 * shared between runtimes (its monitor guards size and bytes); a view lends
 * bytes of the kernel's for the length of a callback (lunatik_data.h).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bitops.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <net/checksum.h>

#include "lunatik_data.h"

/* The monitor disables interrupts while it copies: about 100 us at this size. */
#define DATA_MAX	SZ_1M

/* One VM instruction's worth of copying. */
#define DATA_BYTES_A_UNIT	32

struct data {
	u8 *bytes;	/* lunatik_alloc()ed; guarded by the object's monitor */
	size_t size;	/* guarded likewise */
};

static const struct lunatik_class data_class;
static const struct lunatik_class view_class;

static bool data_within(size_t size, lua_Integer offset, size_t length)
{
	return offset >= 0 && length <= size && (u64)offset <= size - length;
}

static size_t memory_size(const void *lent)
{
	return ((const struct lunatik_memory *)lent)->size;
}

static int memory_read(const void *lent, size_t offset, void *to, size_t length)
{
	const struct lunatik_memory *memory = lent;

	memcpy(to, memory->start + offset, length);
	return 0;
}

static int memory_write(void *lent, size_t offset, const void *from, size_t length)
{
	struct lunatik_memory *memory = lent;

	memcpy(memory->start + offset, from, length);
	return 0;
}

static int memory_checksum(const void *lent, size_t offset, size_t length, __wsum *sum)
{
	const struct lunatik_memory *memory = lent;

	*sum = csum_partial(memory->start + offset, length, 0);
	return 0;
}

const struct lunatik_view_ops lunatik_memory_ops = {
	.size = memory_size,
	.read = memory_read,
	.write = memory_write,
	.checksum = memory_checksum,
};
EXPORT_SYMBOL_GPL(lunatik_memory_ops);

const struct lunatik_view_ops lunatik_memory_readonly_ops = {
	.size = memory_size,
	.read = memory_read,
	.checksum = memory_checksum,
};
EXPORT_SYMBOL_GPL(lunatik_memory_readonly_ops);

/* What one access of either class comes to; no Lua error may be raised in it. */
struct access {
	const struct lunatik_view_ops *ops;
	lua_Integer offset;
	size_t length;
	void *to;		/* read */
	const void *from;	/* write */
	__wsum sum;		/* checksum */
};

static int access_do(struct access *access, void *lent)
{
	if (!data_within(access->ops->size(lent), access->offset, access->length))
		return -ERANGE;
	if (access->to)
		return access->ops->read(lent, access->offset, access->to, access->length);
	if (!access->from)
		return access->ops->checksum(lent, access->offset, access->length,
					     &access->sum);
	if (!access->ops->write)
		return -EROFS;
	return access->ops->write(lent, access->offset, access->from, access->length);
}

static int access_data(struct access *access, struct data *data)
{
	struct lunatik_memory memory;
	unsigned long flags;
	int ret;

	access->ops = &lunatik_memory_ops;
	lunatik_lock(data, &data_class, &flags);
	memory.start = data->bytes;
	memory.size = data->size;
	ret = access_do(access, &memory);
	lunatik_unlock(data, &data_class, flags);
	return ret;
}

static void data_access(lua_State *L, struct access *access)
{
	struct data *data = lunatik_test(L, 1, &data_class);
	struct lunatik_view *view;
	int ret;

	if (data) {
		ret = access_data(access, data);
	} else {
		view = lunatik_check(L, 1, &view_class);
		lunatik_charge(L, view->far);
		access->ops = view->ops;
		ret = access_do(access, view->lent);
	}

	if (ret == -ERANGE)
		luaL_error(L, "out of bounds");
	if (ret == -EROFS)
		luaL_error(L, "read only");
	lunatik_try(L, ret);
}

/* Bytes of a view that can be read in place, NULL if it takes more than that. */
static const u8 *data_near(lua_State *L, lua_Integer offset, size_t length)
{
	const struct lunatik_view *view = lunatik_test(L, 1, &view_class);

	if (likely(view && data_within(view->near_size, offset, length)))
		return view->near + offset;
	return NULL;
}

/* Not inlined: the structure is cleared, also where it is not needed. */
static noinline void data_read(lua_State *L, lua_Integer offset, void *to, size_t length)
{
	struct access access = {
		.offset = offset,
		.length = length,
		.to = to,
	};

	data_access(L, &access);
}

static size_t data_size(lua_State *L)
{
	struct data *data = lunatik_test(L, 1, &data_class);
	struct lunatik_view *view;

	if (data)
		return READ_ONCE(data->size);
	view = lunatik_check(L, 1, &view_class);
	return view->ops->size(view->lent);
}

#define DATA_INTEGER(name, type)						\
static int data_get##name(lua_State *L)						\
{										\
	lua_Integer offset = luaL_checkinteger(L, 2);				\
	const u8 *near = data_near(L, offset, sizeof(type));			\
	type value;								\
										\
	if (near)								\
		memcpy(&value, near, sizeof(value));				\
	else									\
		data_read(L, offset, &value, sizeof(value));			\
	lua_pushinteger(L, (lua_Integer)value);					\
	return 1;								\
}										\
										\
static int data_set##name(lua_State *L)						\
{										\
	type value = (type)luaL_checkinteger(L, 3);				\
	struct access access = {						\
		.offset = luaL_checkinteger(L, 2),				\
		.length = sizeof(value),					\
		.from = &value,							\
	};									\
										\
	data_access(L, &access);						\
	return 0;								\
}

DATA_INTEGER(byte, u8)
DATA_INTEGER(int8, s8)
DATA_INTEGER(uint8, u8)
DATA_INTEGER(int16, s16)
DATA_INTEGER(uint16, u16)
DATA_INTEGER(int32, s32)
DATA_INTEGER(uint32, u32)
DATA_INTEGER(int64, s64)
DATA_INTEGER(number, lua_Integer)

/* The bytes from @offset on, where the script gave no length at @arg. */
static size_t data_optlength(lua_State *L, int arg, lua_Integer offset)
{
	size_t size;

	if (!lua_isnoneornil(L, arg))
		return lunatik_checkrange(L, arg, 0, INT_MAX);
	size = data_size(L);
	if (!data_within(size, offset, 0))
		luaL_error(L, "out of bounds");
	return size - offset;
}

/* Strings of up to this size are copied by way of the stack. */
#define DATA_SHORT	16

static void data_pushshort(lua_State *L, const u8 *near, size_t length)
{
	char bytes[DATA_SHORT];

	/* Somebody may write there meanwhile; a string of Lua's is hashed first. */
	memcpy(bytes, near, length);
	lua_pushlstring(L, bytes, length);
}

static noinline void data_pushbytes(lua_State *L, lua_Integer offset, size_t length)
{
	struct access access = {
		.offset = offset,
		.length = length,
	};
	luaL_Buffer buffer;

	/* Before the buffer is made: a size of the script's choice. */
	if (!data_within(data_size(L), offset, length))
		luaL_error(L, "out of bounds");
	lunatik_charge(L, length / DATA_BYTES_A_UNIT);
	access.to = luaL_buffinitsize(L, &buffer, length);
	data_access(L, &access);
	luaL_pushresultsize(&buffer, length);
}

static int data_getstring(lua_State *L)
{
	lua_Integer offset = luaL_checkinteger(L, 2);
	size_t length = data_optlength(L, 3, offset);
	const u8 *near = length <= DATA_SHORT ? data_near(L, offset, length) : NULL;

	if (near)
		data_pushshort(L, near, length);
	else
		data_pushbytes(L, offset, length);
	return 1;
}

static int data_setstring(lua_State *L)
{
	struct access access = {
		.offset = luaL_checkinteger(L, 2),
	};

	access.from = luaL_checklstring(L, 3, &access.length);
	lunatik_charge(L, access.length / DATA_BYTES_A_UNIT);
	data_access(L, &access);
	return 0;
}

static int data_checksum(lua_State *L)
{
	struct access access = {
		.offset = luaL_optinteger(L, 2, 0),
	};

	access.length = data_optlength(L, 3, access.offset);
	/* Before it is charged for: a length of the script's choice. */
	if (!data_within(data_size(L), access.offset, access.length))
		luaL_error(L, "out of bounds");
	lunatik_charge(L, access.length / DATA_BYTES_A_UNIT);
	data_access(L, &access);
	lua_pushinteger(L, (__force u16)csum_fold(access.sum));
	return 1;
}

static int data_length(lua_State *L)
{
	lua_pushinteger(L, data_size(L));
	return 1;
}

static int data_tostring(lua_State *L)
{
	data_pushbytes(L, 0, data_size(L));
	return 1;
}

static int data_resize(lua_State *L)
{
	struct data *data = lunatik_test(L, 1, &data_class);
	size_t size = lunatik_checkrange(L, 2, 0, DATA_MAX);
	unsigned long flags;
	u8 *bytes;

	if (!data) {
		lunatik_check(L, 1, &view_class);
		return luaL_error(L, "lent bytes can't be resized");
	}
	bytes = lunatik_alloc(L, max_t(size_t, size, 1));
	lunatik_lock(data, &data_class, &flags);
	memcpy(bytes, data->bytes, min(size, data->size));
	swap(bytes, data->bytes);
	data->size = size;
	lunatik_unlock(data, &data_class, flags);
	lunatik_free(bytes);
	return 0;
}

static void data_release(void *private)
{
	struct data *data = private;

	lunatik_free(data->bytes);
}

static void view_release(void *private)
{
	struct lunatik_view *view = private;

	if (view && view->release)
		view->release(view);
}

static const luaL_Reg data_methods[] = {
	{ "getbyte", data_getbyte },
	{ "setbyte", data_setbyte },
	{ "getint8", data_getint8 },
	{ "setint8", data_setint8 },
	{ "getuint8", data_getuint8 },
	{ "setuint8", data_setuint8 },
	{ "getint16", data_getint16 },
	{ "setint16", data_setint16 },
	{ "getuint16", data_getuint16 },
	{ "setuint16", data_setuint16 },
	{ "getint32", data_getint32 },
	{ "setint32", data_setint32 },
	{ "getuint32", data_getuint32 },
	{ "setuint32", data_setuint32 },
	{ "getint64", data_getint64 },
	{ "setint64", data_setint64 },
	{ "getnumber", data_getnumber },
	{ "setnumber", data_setnumber },
	{ "getstring", data_getstring },
	{ "setstring", data_setstring },
	{ "checksum", data_checksum },
	{ "resize", data_resize },
	{ "__len", data_length },
	{ "__tostring", data_tostring },
	{ NULL, NULL }
};

static const struct lunatik_class data_class = {
	.name = "data",
	.flags = LUNATIK_MONITOR,
	.methods = data_methods,
	.release = data_release,
	.owner = THIS_MODULE,
};

static const struct lunatik_class view_class = {
	.name = "data",
	.flags = LUNATIK_SINGLE,
	.methods = data_methods,
	.release = view_release,
	.owner = THIS_MODULE,
};

struct lunatik_object *lunatik_view_new(lua_State *L)
{
	lunatik_new(L, &view_class, 0);
	return lunatik_object(L, -1);
}
EXPORT_SYMBOL_GPL(lunatik_view_new);

static int data_new(lua_State *L)
{
	size_t size = lunatik_checkrange(L, 1, 0, DATA_MAX);
	struct data *data = lunatik_new(L, &data_class, sizeof(*data));

	data->bytes = lunatik_alloc(L, max_t(size_t, size, 1));
	data->size = size;
	return 1;
}

static const luaL_Reg data_functions[] = {
	{ "new", data_new },
	{ NULL, NULL }
};

static const struct lunatik_library data_library = {
	.name = "data",
	.contexts = LUNATIK_ANY,
	.functions = data_functions,
};

LUNATIK_LIBRARY(data, data_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: bytes as integers and strings");

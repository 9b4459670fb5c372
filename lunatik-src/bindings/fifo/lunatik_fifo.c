// SPDX-License-Identifier: GPL-2.0-only
/* fifo - a bounded queue of bytes between runtimes */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kfifo.h>
#include <linux/log2.h>
#include <linux/sizes.h>

#include "lunatik.h"

/* The monitor disables interrupts while it copies: about 100 us at this size. */
#define FIFO_MAX	SZ_1M

/* One VM instruction's worth of copying. */
#define FIFO_BYTES_A_UNIT	32

struct fifo {
	struct kfifo queue;	/* guarded by the object's monitor */
	u8 *bytes;		/* lunatik_alloc()ed, of the queue; fixed */
	bool closed;		/* guarded by the object's monitor */
};

static const struct lunatik_class fifo_class;

static int fifo_push(lua_State *L)
{
	struct fifo *fifo = lunatik_check(L, 1, &fifo_class);
	unsigned long flags;
	const char *bytes;
	int ret = 0;
	size_t size;

	bytes = luaL_checklstring(L, 2, &size);
	lunatik_charge(L, size / FIFO_BYTES_A_UNIT);
	lunatik_lock(fifo, &fifo_class, &flags);
	if (fifo->closed)
		ret = -EBADF;
	else if (size > kfifo_avail(&fifo->queue))
		ret = -ENOSPC;
	else
		kfifo_in(&fifo->queue, bytes, size);
	lunatik_unlock(fifo, &fifo_class, flags);

	if (ret == -EBADF)
		return luaL_error(L, "fifo is closed");
	if (ret)
		return luaL_error(L, "not enough space");
	return 0;
}

/* At most as many bytes as were there before the buffer for them was made. */
static size_t fifo_used(struct fifo *fifo)
{
	unsigned long flags;
	size_t used;

	lunatik_lock(fifo, &fifo_class, &flags);
	used = kfifo_len(&fifo->queue);
	lunatik_unlock(fifo, &fifo_class, flags);
	return used;
}

static int fifo_pop(lua_State *L)
{
	struct fifo *fifo = lunatik_check(L, 1, &fifo_class);
	size_t size = lunatik_checkrange(L, 2, 0, FIFO_MAX);
	unsigned long flags;
	luaL_Buffer buffer;
	bool closed;
	char *to;

	size = min(size, fifo_used(fifo));
	lunatik_charge(L, size / FIFO_BYTES_A_UNIT);
	to = luaL_buffinitsize(L, &buffer, size);
	lunatik_lock(fifo, &fifo_class, &flags);
	closed = fifo->closed;
	size = closed ? 0 : kfifo_out(&fifo->queue, to, size);
	lunatik_unlock(fifo, &fifo_class, flags);
	if (closed)
		return luaL_error(L, "fifo is closed");
	luaL_pushresultsize(&buffer, size);
	lua_pushinteger(L, size);
	return 2;
}

static int fifo_close(lua_State *L)
{
	struct fifo *fifo = lunatik_check(L, 1, &fifo_class);
	unsigned long flags;

	lunatik_lock(fifo, &fifo_class, &flags);
	fifo->closed = true;
	kfifo_reset(&fifo->queue);
	lunatik_unlock(fifo, &fifo_class, flags);
	return 0;
}

static void fifo_release(void *private)
{
	struct fifo *fifo = private;

	lunatik_free(fifo->bytes);
}

static const luaL_Reg fifo_methods[] = {
	{ "push", fifo_push },
	{ "pop", fifo_pop },
	{ "close", fifo_close },
	{ NULL, NULL }
};

static const struct lunatik_class fifo_class = {
	.name = "fifo",
	.flags = LUNATIK_MONITOR,
	.methods = fifo_methods,
	.release = fifo_release,
	.owner = THIS_MODULE,
};

/* Holds at least @size bytes: a kfifo's size is a power of two. */
static int fifo_new(lua_State *L)
{
	size_t size = roundup_pow_of_two(lunatik_checkrange(L, 1, 2, FIFO_MAX));
	struct fifo *fifo = lunatik_new(L, &fifo_class, sizeof(*fifo));

	fifo->bytes = lunatik_alloc(L, size);
	lunatik_try(L, kfifo_init(&fifo->queue, fifo->bytes, size));
	return 1;
}

static const luaL_Reg fifo_functions[] = {
	{ "new", fifo_new },
	{ NULL, NULL }
};

static const struct lunatik_library fifo_library = {
	.name = "fifo",
	.contexts = LUNATIK_ANY,
	.functions = fifo_functions,
};

LUNATIK_LIBRARY(fifo, fifo_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: queues of bytes");

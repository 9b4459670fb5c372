/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lunatik_data.h - windows on memory that the kernel lends to a script
 *
 * A binding whose callback hands out bytes that are not its own (a packet, a
 * BPF argument) pushes a view once and attaches it for each call. Scripts see
 * an object of class "data", with all methods of data but resize().
 */
#ifndef LUNATIK_DATA_H
#define LUNATIK_DATA_H

#include "lunatik.h"

/**
 * struct lunatik_view_ops - how the bytes behind a view are reached
 * @size: bytes in the window
 * @read: copy @length bytes at @offset, which is within the window
 * @write: the other way; NULL for a window that is read only. Must not touch
 *	memory that anybody else sees (a shared packet buffer): make it
 *	private first
 * @checksum: ones' complement sum as csum_partial() gives it
 *
 * Context: that of the runtime, its lock held; must not sleep, must not raise
 * Lua errors. Return 0 or a negative errno.
 */
struct lunatik_view_ops {
	size_t (*size)(const void *lent);
	int (*read)(const void *lent, size_t offset, void *to, size_t length);
	int (*write)(void *lent, size_t offset, const void *from, size_t length);
	int (*checksum)(const void *lent, size_t offset, size_t length, __wsum *sum);
};

/**
 * struct lunatik_view - what lunatik_attach() gives to a view object
 * @ops: how to reach the bytes
 * @lent: for @ops; owned by the binding
 * @release: called when the script has let go of the object while this view
 *	is attached to it, if not NULL. Context: that of lunatik_class.release
 * @near: the first bytes of the window, where they can be read in place, or NULL
 * @near_size: how many
 * @far: what an access to others costs, in instructions, on top of its bytes
 *
 * The binding keeps @near true while the view is attached. It is a short cut
 * for reading; the operations must know all bytes.
 */
struct lunatik_view {
	const struct lunatik_view_ops *ops;
	void *lent;
	void (*release)(struct lunatik_view *view);
	const u8 *near;
	size_t near_size;
	size_t far;
};

/* Push a closed view; attach a struct lunatik_view to it. Any context. */
struct lunatik_object *lunatik_view_new(lua_State *L);

/* Plain memory: @lent is a struct lunatik_memory. */
struct lunatik_memory {
	u8 *start;
	size_t size;
};

extern const struct lunatik_view_ops lunatik_memory_ops;
extern const struct lunatik_view_ops lunatik_memory_readonly_ops;

#endif /* LUNATIK_DATA_H */

// SPDX-License-Identifier: GPL-2.0-only
/*
 * xdp - scripts decide on packets before the kernel has looked at them
 *
 * Two ways in. An XDP program in eBPF calls bpf_luaxdp_run() with the name of
 * a script, which runs on any kernel. On one that has the hooks of
 * kernel-patches/xdplua (CONFIG_XDP_LUA) a script attaches itself to a device;
 * elsewhere that half is left out.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/delay.h>
#include <linux/filter.h>
#include <linux/hashtable.h>
#include <linux/jhash.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/netdevice.h>
#include <linux/nsproxy.h>
#include <linux/poison.h>
#include <linux/random.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <net/checksum.h>
#include <net/net_namespace.h>
#include <net/xdp.h>

#ifdef CONFIG_XDP_LUA
#include <net/xdp_lua.h>
#define XDP_STANDALONE
#endif

#include "lunatik_bpf.h"
#include "lunatik_data.h"

/* One VM instruction's worth of copying, clearing or summing. */
#define BYTES_A_UNIT	32

struct xdp_device;

/*
 * A function of one runtime's. Its references and what it is lent belong to
 * the runtime and are guarded by its lock.
 */
struct xdp_callback {
	struct lunatik_hook hook;
	struct hlist_node node;		/* in callbacks */
	u32 hash;			/* of script; fixed */
	int cpu;			/* -1: all; fixed */
	int function;			/* references, fixed until it is ended */
	int packet;
	int side;			/* bytes beside it: argument, or metadata */
	int context;
	struct lunatik_object *packet_object;
	struct lunatik_object *side_object;
	struct lunatik_object *context_object;
	struct lunatik_view packet_view;
	struct lunatik_view side_view;
	struct lunatik_memory side_memory;
	struct xdp_buff *buff;		/* lent; NULL between packets */
	bool standalone;		/* fixed */
	bool ended;			/* by detach(): no packets any more; never cleared */
	bool redirected;		/* this packet, as redirect() has noted */
	u32 fallback;			/* verdict if the script has none; fixed */
	atomic64_t failures;
	struct xdp_device *device;	/* guarded by RTNL */
	size_t length;			/* of script; fixed */
	char script[];			/* name without the CPU, and a NUL */
};

static u32 script_hash(const char *script, size_t length)
{
	return jhash(script, length, 0);
}

/* All callbacks by their script. Read under RCU, written under the lock. */
static DEFINE_HASHTABLE(callbacks, 6);
static DEFINE_SPINLOCK(callbacks_lock);

struct xdp_call {
	struct xdp_callback *callback;
	struct xdp_buff *buff;
	void *argument;
	size_t argument_size;
};

/* ---- the packet as a view ----------------------------------------------- */

static size_t packet_linear(const struct xdp_buff *buff)
{
	return buff->data_end - buff->data;
}

#ifdef XDP_STANDALONE
static size_t packet_size(const void *lent)
{
	return xdp_get_buff_len(((const struct xdp_callback *)lent)->buff);
}

static int packet_read(const void *lent, size_t offset, void *to, size_t length)
{
	struct xdp_buff *buff = ((const struct xdp_callback *)lent)->buff;

	if (offset + length > packet_linear(buff))
		return xdp_lua_load_bytes(buff, offset, to, length);
	memcpy(to, buff->data + offset, length);
	return 0;
}

static int packet_write(void *lent, size_t offset, const void *from, size_t length)
{
	struct xdp_buff *buff = ((struct xdp_callback *)lent)->buff;

	if (offset + length > packet_linear(buff))
		return xdp_lua_store_bytes(buff, offset, from, length);
	memcpy(buff->data + offset, from, length);
	return 0;
}
#else
/*
 * What helpers give to programs that know of fragments is not exported, so
 * only the part of the packet that programs reach directly is shown.
 */
static size_t packet_size(const void *lent)
{
	return packet_linear(((const struct xdp_callback *)lent)->buff);
}

static int packet_read(const void *lent, size_t offset, void *to, size_t length)
{
	memcpy(to, ((const struct xdp_callback *)lent)->buff->data + offset, length);
	return 0;
}

static int packet_write(void *lent, size_t offset, const void *from, size_t length)
{
	memcpy(((struct xdp_callback *)lent)->buff->data + offset, from, length);
	return 0;
}
#endif

/* A few bytes at a time, an even number: sums of fragments join up. */
#define CHECKSUM_STEP	64

static int packet_checksum(const void *lent, size_t offset, size_t length, __wsum *sum)
{
	u8 bytes[CHECKSUM_STEP];
	size_t step;
	int ret;

	*sum = 0;
	for (; length; offset += step, length -= step) {
		step = min_t(size_t, length, sizeof(bytes));
		ret = packet_read(lent, offset, bytes, step);
		if (ret)
			return ret;
		*sum = csum_partial(bytes, step, *sum);
	}
	return 0;
}

static const struct lunatik_view_ops packet_ops = {
	.size = packet_size,
	.read = packet_read,
	.write = packet_write,
	.checksum = packet_checksum,
};

/* What adjust_meta() has made of the room before the packet. */
static void metadata_show(struct xdp_callback *callback)
{
	struct xdp_buff *buff = callback->buff;

	callback->side_memory.start = buff->data_meta;
	callback->side_memory.size = xdp_data_meta_unsupported(buff) ? 0 :
				     buff->data - buff->data_meta;
}

/* Again whenever the packet's bounds have changed. */
static void packet_show(struct xdp_callback *callback)
{
	callback->packet_view.near = callback->buff->data;
	callback->packet_view.near_size = packet_linear(callback->buff);
}

/* ---- calling a script --------------------------------------------------- */

static const struct lunatik_class context_class;

static int callback_handle(lua_State *L, void *arg)
{
	struct xdp_call *call = arg;
	struct xdp_callback *callback = call->callback;
	lua_Integer action;

	if (callback->ended)		/* while this packet waited for the lock */
		return -ESHUTDOWN;
	callback->buff = call->buff;
	callback->redirected = false;
	packet_show(callback);
	lunatik_attach(callback->packet_object, &callback->packet_view);
	lunatik_pushref(L, callback->function);
	if (callback->standalone) {
		lunatik_attach(callback->context_object, callback);
		lunatik_pushref(L, callback->context);
		lunatik_pushref(L, callback->packet);
		lua_call(L, 2, 1);
	} else {
		callback->side_memory.start = call->argument;
		callback->side_memory.size = call->argument_size;
		lunatik_attach(callback->side_object, &callback->side_view);
		lunatik_pushref(L, callback->packet);
		lunatik_pushref(L, callback->side);
		lua_call(L, 2, 1);
	}

	action = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : -1;
	/* What an eBPF program is told means what the two have agreed upon. */
	if (action < 0 || action > (callback->standalone ? XDP_REDIRECT : INT_MAX))
		luaL_error(L, "xdp callback returned no action");
	/* Else it goes where a former packet was to go, which may be freed. */
	if (callback->standalone && action == XDP_REDIRECT && !callback->redirected)
		luaL_error(L, "xdp callback returned REDIRECT without redirect()");
	return (int)action;
}

static void callback_take_back(void *arg)
{
	struct xdp_call *call = arg;
	struct xdp_callback *callback = call->callback;

	/* Nothing was lent; of an ended callback the objects may be gone. */
	if (!callback->buff)
		return;
	lunatik_attach(callback->packet_object, NULL);
	lunatik_attach(callback->side_object, NULL);
	if (callback->context_object)
		lunatik_attach(callback->context_object, NULL);
	callback->buff = NULL;
}

/* The script's action, or a negative errno. */
static int callback_run(struct xdp_call *call)
{
	if (READ_ONCE(call->callback->ended))
		return -ESHUTDOWN;
	return lunatik_run_finally(&call->callback->hook, callback_handle, callback_take_back,
				   call);
}

/* ---- called from eBPF --------------------------------------------------- */

/* Under RCU or with bottom halves disabled. */
static struct xdp_callback *callback_find(const char *script, size_t length, int cpu)
{
	u32 hash = script_hash(script, length);
	struct xdp_callback *callback;

	hash_for_each_possible_rcu(callbacks, callback, node, hash) {
		if (callback->hash != hash || callback->length != length || callback->standalone)
			continue;
		if (callback->cpu >= 0 && callback->cpu != cpu)
			continue;
		if (!memcmp(callback->script, script, length))
			return callback;
	}
	return NULL;
}

#ifndef __bpf_kfunc
#define __bpf_kfunc	__used		/* 6.1 has no name for it */
#endif

/* The verifier finds it in the module's BTF, nobody else calls; for sparse. */
__bpf_kfunc int bpf_luaxdp_run(char *key, size_t key__sz, struct xdp_md *xdp_ctx,
			       void *arg, size_t arg__sz);

#ifdef __bpf_kfunc_start_defs
__bpf_kfunc_start_defs();
#endif

/**
 * bpf_luaxdp_run() - let a Lua script look at a packet
 * @key: name of the script, ended by a NUL
 * @key__sz: bytes at @key
 * @xdp_ctx: the program's context
 * @arg: bytes to share with the script, both ways
 * @arg__sz: bytes at @arg
 *
 * The script may change bytes of the packet but not its bounds, which the
 * verifier goes on to rely on.
 *
 * Return: what the script returned, -1 if there is none or it failed.
 */
__bpf_kfunc int bpf_luaxdp_run(char *key, size_t key__sz, struct xdp_md *xdp_ctx,
			       void *arg, size_t arg__sz)
{
	struct xdp_call call = {
		.buff = (struct xdp_buff *)xdp_ctx,
		.argument = arg,
		.argument_size = arg__sz,
	};
	size_t length;
	int action = -1;

	/*
	 * Before 7.1 the verifier lets a lookup that nobody has checked through
	 * where memory with a size is wanted.
	 */
	if (!key || (!arg && arg__sz))
		return -1;
	length = strnlen(key, key__sz);
	if (!length || length == key__sz)
		return -1;
	/* Test runs come here in process context, where RCU is not implied. */
	rcu_read_lock();
	call.callback = callback_find(key, length, raw_smp_processor_id());
	if (call.callback) {
		action = callback_run(&call);
		if (action < 0) {
			atomic64_inc(&call.callback->failures);
			action = -1;
		}
	}
	rcu_read_unlock();
	return action;
}

#ifdef __bpf_kfunc_end_defs
__bpf_kfunc_end_defs();
#endif

#ifdef BTF_KFUNCS_START
BTF_KFUNCS_START(xdp_kfuncs)
BTF_ID_FLAGS(func, bpf_luaxdp_run)
BTF_KFUNCS_END(xdp_kfuncs)
#else
BTF_SET8_START(xdp_kfuncs)
BTF_ID_FLAGS(func, bpf_luaxdp_run)
BTF_SET8_END(xdp_kfuncs)
#endif

static const struct btf_kfunc_id_set xdp_kfunc_set = {
	.owner = THIS_MODULE,
	.set = &xdp_kfuncs,
};

/* ---- attached to a device ----------------------------------------------- */

/* What a script asks for. */
struct xdp_options {
	const char *dev;
	u32 flags;
	u32 fallback;
};

#ifdef XDP_STANDALONE

/* How long attach() waits for RTNL, which its own caller might hold. */
#define RTNL_PATIENCE_MS	5000

/* A script on a device: one callback, or one for each CPU. */
struct xdp_device {
	struct xdp_lua_hook hook;
	struct list_head node;		/* in devices, guarded by RTNL */
	u32 flags;			/* mode; fixed */
	u32 fallback;			/* of CPUs without a callback; fixed */
	int members;			/* callbacks, guarded by RTNL */
	char *script;			/* whole name, hook.name may be cut; fixed */
	struct xdp_callback __rcu *callbacks[];	/* by CPU; written under RTNL */
};

static LIST_HEAD(devices);

static void device_free(struct xdp_device *device)
{
	kfree(device->script);
	kfree(device);
}

static u32 device_run(struct xdp_lua_hook *hook, struct xdp_buff *buff)
{
	struct xdp_device *device = container_of(hook, struct xdp_device, hook);
	struct xdp_call call = { .buff = buff };
	int action;

	call.callback = rcu_dereference_check(device->callbacks[smp_processor_id()],
					      rcu_read_lock_bh_held());
	if (!call.callback)
		return device->fallback;
	action = callback_run(&call);
	if (action >= 0)
		return action;
	atomic64_inc(&call.callback->failures);
	return call.callback->fallback;
}

static void device_detached(struct xdp_lua_hook *hook)
{
	struct xdp_device *device = container_of(hook, struct xdp_device, hook);
	struct xdp_callback *callback;
	int cpu;

	for_each_possible_cpu(cpu) {
		callback = rtnl_dereference(device->callbacks[cpu]);
		if (!callback)
			continue;
		callback->device = NULL;
		lunatik_hook_cancel(&callback->hook);
	}
	list_del(&device->node);
	device_free(device);
}

static const struct xdp_lua_ops device_ops = {
	.owner = THIS_MODULE,
	.run = device_run,
	.detached = device_detached,
};

static struct xdp_device *device_find(const struct net_device *dev)
{
	struct xdp_device *device;

	list_for_each_entry(device, &devices, node)
		if (device->hook.dev == dev)
			return device;
	return NULL;
}

static void device_join(struct xdp_device *device, struct xdp_callback *callback)
{
	int cpu;

	for_each_possible_cpu(cpu)
		if (callback->cpu < 0 || callback->cpu == cpu)
			rcu_assign_pointer(device->callbacks[cpu], callback);
	callback->device = device;
	device->members++;
}

/* The runtimes of a per-CPU script share their device. */
static int device_share(struct xdp_device *device, struct xdp_callback *callback, u32 flags)
{
	if (callback->cpu < 0 || flags != device->flags ||
	    strcmp(device->script, callback->script) ||
	    rcu_access_pointer(device->callbacks[callback->cpu]))
		return -EBUSY;
	device_join(device, callback);
	return 0;
}

static struct xdp_device *device_make(struct xdp_callback *callback, u32 flags)
{
	struct xdp_device *device = NULL;

	if (!lunatik_fault())
		device = kzalloc(struct_size(device, callbacks, nr_cpu_ids), GFP_KERNEL);
	if (!device)
		return NULL;
	if (!lunatik_fault())
		device->script = kstrdup(callback->script, GFP_KERNEL);
	if (!device->script) {
		kfree(device);
		return NULL;
	}
	device->hook.ops = &device_ops;
	device->hook.frags = true;
	device->flags = flags;
	device->fallback = callback->fallback;
	/* Shown to people; a name that is too long is cut. */
	strscpy(device->hook.name, callback->script, sizeof(device->hook.name));
	return device;
}

static int device_hook(lua_State *L, struct net_device *dev, struct xdp_callback *callback,
		       u32 flags)
{
	struct netlink_ext_ack extack = {};
	struct xdp_device *device;
	int ret;

	device = device_make(callback, flags);
	if (!device)
		return -ENOMEM;
	device_join(device, callback);
	ret = xdp_lua_attach(dev, &device->hook, flags, &extack);
	if (ret) {
		if (extack._msg && lunatik_mayprint(L))
			pr_warn("%s: %s: %s\n", callback->script, netdev_name(dev), extack._msg);
		callback->device = NULL;
		device_free(device);
		return ret;
	}
	list_add(&device->node, &devices);
	return 0;
}

/*
 * A script that was started from a callback under RTNL must not wait for it,
 * and nothing tells who holds it: so wait for a bounded time.
 */
static int rtnl_lock_patiently(void)
{
	unsigned long end = jiffies + msecs_to_jiffies(RTNL_PATIENCE_MS);

	while (!rtnl_trylock()) {
		/* Not EBUSY, which is for devices that have a program. */
		if (time_after(jiffies, end))
			return -EAGAIN;
		if (msleep_interruptible(1))
			return -EINTR;
	}
	return 0;
}

static int device_enter(lua_State *L, struct xdp_callback *callback,
			const struct xdp_options *options)
{
	struct xdp_device *device;
	struct net_device *dev;
	int ret;

	ret = rtnl_lock_patiently();
	if (ret)
		return ret;
	dev = __dev_get_by_name(current->nsproxy->net_ns, options->dev);
	device = dev ? device_find(dev) : NULL;
	if (!dev)
		ret = -ENODEV;
	else if (device)
		ret = device_share(device, callback, options->flags);
	else
		ret = device_hook(L, dev, callback, options->flags);
	rtnl_unlock();
	return ret;
}

static void device_leave(struct xdp_callback *callback)
{
	struct xdp_device *device;
	int cpu;

	rtnl_lock();
	device = callback->device;
	if (device) {
		callback->device = NULL;
		for_each_possible_cpu(cpu)
			if (rtnl_dereference(device->callbacks[cpu]) == callback)
				RCU_INIT_POINTER(device->callbacks[cpu], NULL);
		if (!--device->members)
			xdp_lua_detach(&device->hook);
	}
	rtnl_unlock();
}

#else /* !XDP_STANDALONE */

static int device_enter(lua_State *L, struct xdp_callback *callback,
			const struct xdp_options *options)
{
	if (lunatik_mayprint(L))
		pr_warn("%s: this kernel has no hooks for scripts (CONFIG_XDP_LUA)\n",
			callback->script);
	return -EOPNOTSUPP;
}

static void device_leave(struct xdp_callback *callback)
{
}

#endif

/* ---- what a script does with its packet --------------------------------- */

static int context_packet(lua_State *L)
{
	struct xdp_callback *callback = lunatik_check(L, 1, &context_class);

	lunatik_pushref(L, callback->packet);
	return 1;
}

static int context_meta(lua_State *L)
{
	struct xdp_callback *callback = lunatik_check(L, 1, &context_class);

	metadata_show(callback);
	lunatik_attach(callback->side_object, &callback->side_view);
	lunatik_pushref(L, callback->side);
	return 1;
}

static int context_ifindex(lua_State *L)
{
	struct xdp_callback *callback = lunatik_check(L, 1, &context_class);

	lua_pushinteger(L, callback->buff->rxq->dev->ifindex);
	return 1;
}

static int context_queue(lua_State *L)
{
	struct xdp_callback *callback = lunatik_check(L, 1, &context_class);

	lua_pushinteger(L, callback->buff->rxq->queue_index);
	return 1;
}

#ifdef XDP_STANDALONE

/* A page pool signs the pages it gives out; other bits of the word are in use. */
#ifdef PP_MAGIC_MASK
#define PAGE_POOL_SIGNED	PP_MAGIC_MASK
#else
#define PAGE_POOL_SIGNED	(~0x3UL)
#endif

static bool page_is_pooled(struct page *page)
{
	return page && (compound_head(page)->pp_magic & PAGE_POOL_SIGNED) == PP_SIGNATURE;
}

/*
 * The kind of memory that a packet's pieces are given back as. The first page
 * tells: a large packet has it for itself. What veth sends back or elsewhere
 * holds references to pages, the first of which its pool has let go of; of
 * others it has not, where they are shared, and yet they are not to go there.
 */
static u32 pieces_memory(struct xdp_buff *buff)
{
	struct skb_shared_info *shared = xdp_get_shared_info_from_buff(buff);
	skb_frag_t *last = &shared->frags[shared->nr_frags - 1];
	u32 queue = buff->rxq->mem.type;

	switch (queue) {
	case MEM_TYPE_PAGE_SHARED:
	case MEM_TYPE_PAGE_ORDER0:
		return page_is_pooled(virt_to_page(buff->data)) ? MEM_TYPE_PAGE_POOL : queue;
	case MEM_TYPE_PAGE_POOL:
		/* veth may say so of what it has sent before. */
		return page_is_pooled(skb_frag_page(last)) ? queue : MEM_TYPE_PAGE_SHARED;
	default:
		return queue;
	}
}

/*
 * Pieces that are cut off go back as the queue says, and the queue of veth and
 * of generic XDP says MEM_TYPE_PAGE_SHARED even of packets that the kernel has
 * copied into the pages of a page pool. The pool would go on giving out parts
 * of a page that has been freed. The queue itself is not the script's to
 * change: in generic mode all CPUs have it in common.
 */
static int cut_pieces(struct xdp_buff *buff, int offset)
{
	struct xdp_rxq_info *queue = buff->rxq;
	struct xdp_rxq_info as_it_is = *queue;
	int ret;

	as_it_is.mem.type = pieces_memory(buff);
	buff->rxq = &as_it_is;
	ret = xdp_lua_adjust_tail(buff, offset);
	buff->rxq = queue;
	return ret;
}

static int adjust_tail(struct xdp_buff *buff, int offset)
{
	if (offset < 0 && xdp_buff_has_frags(buff))
		return cut_pieces(buff, offset);
	return xdp_lua_adjust_tail(buff, offset);
}

/* By how many bytes, as the script has said. */
static __always_inline int context_adjust(lua_State *L,
					  int (*adjust)(struct xdp_buff *buff, int offset))
{
	struct xdp_callback *callback = lunatik_check(L, 1, &context_class);
	/* The kernel takes the opposite of what is cut off, and INT_MIN has none. */
	int offset = lunatik_checkrange(L, 2, -INT_MAX, INT_MAX);

	lunatik_try(L, adjust(callback->buff, offset));
	packet_show(callback);
	metadata_show(callback);
	return offset;
}

static int context_adjust_head(lua_State *L)
{
	context_adjust(L, xdp_lua_adjust_head);
	return 0;
}

static int context_adjust_tail(lua_State *L)
{
	int offset = context_adjust(L, adjust_tail);

	/* What is new was cleared. How much that may be only the helper knew. */
	if (offset > 0)
		lunatik_charge(L, offset / BYTES_A_UNIT);
	return 0;
}

static int context_adjust_meta(lua_State *L)
{
	context_adjust(L, xdp_lua_adjust_meta);
	return 0;
}

/* return ctx:redirect(ifindex) */
static int context_redirect(lua_State *L)
{
	struct xdp_callback *callback = lunatik_check(L, 1, &context_class);
	u32 ifindex = lunatik_checkrange(L, 2, 1, INT_MAX);
	u32 action = xdp_lua_redirect(ifindex);

	callback->redirected = action == XDP_REDIRECT;
	lua_pushinteger(L, action);
	return 1;
}

/*
 * return ctx:redirect_map(map, key[, flags]): the low bits of the flags are
 * the action if there is nothing at the key
 */
static int context_redirect_map(lua_State *L)
{
	struct xdp_callback *callback = lunatik_check(L, 1, &context_class);
	struct bpf_map *map;
	u32 action;
	u64 flags;
	u32 key;

	map = lunatik_checkredirectmap(L, 2);
	key = lunatik_checkrange(L, 3, 0, U32_MAX);
	flags = lunatik_optrange(L, 4, 0, 0, U32_MAX);
	action = xdp_lua_redirect_map(map, key, flags);
	callback->redirected = action == XDP_REDIRECT;
	lua_pushinteger(L, action);
	return 1;
}

/* Its way through perf's or the ring's bookkeeping, in VM instructions. */
#define EVENT_UNITS	100

/* A record of perf's says its size in 16 bits; so much of it is left for ours. */
#define EVENT_PERF_MAX	(U16_MAX - 256)

/*
 * ctx:event(map, bytes[, length]) -> true, or nil and why not. A perf buffer
 * takes that many bytes of the packet as well.
 */
static int context_event(lua_State *L)
{
	struct xdp_callback *callback = lunatik_check(L, 1, &context_class);
	struct bpf_map *map = lunatik_checkevents(L, 2);
	bool perf = map->map_type == BPF_MAP_TYPE_PERF_EVENT_ARRAY;
	size_t size;
	const char *bytes = luaL_checklstring(L, 3, &size);
	u64 length = lunatik_optrange(L, 4, 0, 0, perf ? xdp_get_buff_len(callback->buff) : 0);
	u64 flags = perf ? BPF_F_CURRENT_CPU | length << 32 : 0;
	int ret;

	if (perf && (size > EVENT_PERF_MAX || size + length > EVENT_PERF_MAX))
		lunatik_throw(L, -E2BIG);
	lunatik_charge(L, EVENT_UNITS + (size + length) / BYTES_A_UNIT);
	ret = xdp_lua_event_output(callback->buff, map, flags, bytes, size);
	if (!ret) {
		lua_pushboolean(L, true);
		return 1;
	}
	lua_pushnil(L);
	lua_pushstring(L, lunatik_errname(ret));
	return 2;
}

/* A walk of the routes and one of the neighbours, in VM instructions. */
#define FIB_LOOKUP_UNITS	200

/*
 * BPF_FIB_LOOKUP_*, some of which are no enumerators of 6.1, which refuses them.
 * Of those that follow, VLAN and VLAN_INPUT, a script would not be shown the tag.
 */
#define FIB_DIRECT		BIT(0)
#define FIB_SKIP_NEIGH		BIT(2)
#define FIB_TBID		BIT(3)
#define FIB_SRC			BIT(4)
#define FIB_MARK		BIT(5)
#define FIB_FLAGS		GENMASK(5, 0)

/* An address: an integer for IPv4, 16 bytes for IPv6. */
static u8 fib_address(lua_State *L, const char *name, __be32 *v4, void *v6)
{
	u8 family = AF_INET;
	const char *bytes;
	size_t length;

	if (lua_getfield(L, 2, name) == LUA_TSTRING) {
		bytes = lua_tolstring(L, -1, &length);
		if (length != sizeof(struct in6_addr))
			luaL_error(L, "field '%s' must have 16 bytes", name);
		memcpy(v6, bytes, length);
		family = AF_INET6;
	} else {
		*v4 = htonl(lunatik_fieldrange(L, 2, name, 0, U32_MAX));
	}
	lua_pop(L, 1);
	return family;
}

/* As it was asked for, see fib_address(). */
static void fib_push_address(lua_State *L, const char *name, u8 family, __be32 v4, const void *v6)
{
	if (family == AF_INET6)
		lua_pushlstring(L, v6, sizeof(struct in6_addr));
	else
		lua_pushinteger(L, ntohl(v4));
	lua_setfield(L, -2, name);
}

/* What the routes have told, whether the neighbour is known or not. */
static void fib_push_route(lua_State *L, const struct bpf_fib_lookup *fib, int fields)
{
	lua_createtable(L, 0, fields);
	lua_pushinteger(L, fib->ifindex);
	lua_setfield(L, -2, "ifindex");
	lua_pushinteger(L, fib->rt_metric);
	lua_setfield(L, -2, "metric");
	/* That of a gateway for IPv4 may be one of IPv6. */
	fib_push_address(L, "nexthop", fib->family, fib->ipv4_dst, fib->ipv6_dst);
}

static void fib_push_mtu(lua_State *L, const struct bpf_fib_lookup *fib)
{
	lua_pushinteger(L, fib->mtu_result);
	lua_setfield(L, -2, "mtu");
}

static int fib_push_found(lua_State *L, const struct bpf_fib_lookup *fib, u8 family, u32 flags)
{
	fib_push_route(L, fib, 7);
	fib_push_mtu(L, fib);
	if (flags & FIB_SRC)
		fib_push_address(L, "src", family, fib->ipv4_src, fib->ipv6_src);
	if (flags & FIB_SKIP_NEIGH)
		return 1;
	lua_pushlstring(L, fib->smac, sizeof(fib->smac));
	lua_setfield(L, -2, "smac");
	lua_pushlstring(L, fib->dmac, sizeof(fib->dmac));
	lua_setfield(L, -2, "dmac");
	return 1;
}

/* nil, the code, and what it leaves in the parameters, if anything. */
static int fib_push_failed(lua_State *L, const struct bpf_fib_lookup *fib, int code)
{
	lua_pushnil(L);
	lua_pushinteger(L, code);
	switch (code) {
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		fib_push_route(L, fib, 3);
		return 3;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		lua_createtable(L, 0, 1);
		fib_push_mtu(L, fib);
		return 3;
	default:
		return 2;
	}
}

/* The type of service of IPv4, the traffic class of IPv6. */
static void fib_read_class(lua_State *L, struct bpf_fib_lookup *fib)
{
	u8 class = lunatik_optfieldrange(L, 2, "tos", 0, 0, U8_MAX);

	if (fib->family == AF_INET6)
		fib->flowinfo = htonl((u32)class << 20);
	else
		fib->tos = class;
}

/* What else is asked for; a table and a mark ask for the flags that look at them. */
static u32 fib_read_flags(lua_State *L, struct bpf_fib_lookup *fib)
{
	u32 flags = lunatik_optfieldrange(L, 2, "flags", 0, 0, FIB_FLAGS);
	u32 mark = lunatik_optfieldrange(L, 2, "mark", 0, 0, U32_MAX);

	fib->tbid = lunatik_optfieldrange(L, 2, "table", 0, 0, U32_MAX);
	if (fib->tbid)
		flags |= FIB_DIRECT | FIB_TBID;
	/* Lies where the first address will; 6.1 has no name for it. */
	memcpy(fib->smac, &mark, sizeof(mark));
	if (mark)
		flags |= FIB_MARK;
	return flags;
}

/*
 * ctx:fib_lookup{src =, dst =, ifindex =, protocol =, sport =, dport =,
 * length =, tos =, table =, mark =, flags =} -> {ifindex =, nexthop =, metric =,
 * mtu =, src =, smac =, dmac =}, or nil, BPF_FIB_LKUP_RET_* and what is known
 * all the same
 */
static int context_fib_lookup(lua_State *L)
{
	struct xdp_callback *callback = lunatik_check(L, 1, &context_class);
	struct bpf_fib_lookup fib = {};
	u8 family;
	u32 flags;
	int ret;

	luaL_checktype(L, 2, LUA_TTABLE);
	lunatik_charge(L, FIB_LOOKUP_UNITS);
	family = fib_address(L, "src", &fib.ipv4_src, fib.ipv6_src);
	if (fib_address(L, "dst", &fib.ipv4_dst, fib.ipv6_dst) != family)
		luaL_error(L, "fields 'src' and 'dst' are of different families");
	fib.family = family;
	fib.l4_protocol = lunatik_optfieldrange(L, 2, "protocol", 0, 0, U8_MAX);
	fib.sport = htons(lunatik_optfieldrange(L, 2, "sport", 0, 0, U16_MAX));
	fib.dport = htons(lunatik_optfieldrange(L, 2, "dport", 0, 0, U16_MAX));
	fib.tot_len = lunatik_optfieldrange(L, 2, "length", 0, 0, U16_MAX);
	fib_read_class(L, &fib);
	fib.ifindex = lunatik_optfieldrange(L, 2, "ifindex", callback->buff->rxq->dev->ifindex,
					    1, INT_MAX);
	flags = fib_read_flags(L, &fib);

	ret = lunatik_try(L, xdp_lua_fib_lookup(callback->buff, &fib, flags));
	if (ret == BPF_FIB_LKUP_RET_SUCCESS)
		return fib_push_found(L, &fib, family, flags);
	return fib_push_failed(L, &fib, ret);
}

#endif /* XDP_STANDALONE */

static const luaL_Reg context_methods[] = {
	{ "packet", context_packet },
	{ "meta", context_meta },
	{ "ifindex", context_ifindex },
	{ "queue", context_queue },
#ifdef XDP_STANDALONE
	{ "adjust_head", context_adjust_head },
	{ "adjust_tail", context_adjust_tail },
	{ "adjust_meta", context_adjust_meta },
	{ "redirect", context_redirect },
	{ "redirect_map", context_redirect_map },
	{ "fib_lookup", context_fib_lookup },
	{ "event", context_event },
#endif
	{ NULL, NULL }
};

static const struct lunatik_class context_class = {
	.name = "xdp.context",
	.flags = LUNATIK_SINGLE,
	.methods = context_methods,
	.owner = THIS_MODULE,
};

/* ---- attaching ---------------------------------------------------------- */

static void callback_publish(struct xdp_callback *callback)
{
	spin_lock_bh(&callbacks_lock);
	hash_add_rcu(callbacks, &callback->node, callback->hash);
	spin_unlock_bh(&callbacks_lock);
}

/* Until nobody looks at it any more. */
static void callback_hide(struct xdp_callback *callback)
{
	spin_lock_bh(&callbacks_lock);
	hash_del_rcu(&callback->node);
	spin_unlock_bh(&callbacks_lock);
	/* The last packet of a per-CPU script's one CPU, and of eBPF callers. */
	synchronize_net();
}

static void callback_stop(struct lunatik_hook *hook)
{
	struct xdp_callback *callback = container_of(hook, struct xdp_callback, hook);

	device_leave(callback);
	callback_hide(callback);
}

static void callback_free(struct lunatik_hook *hook)
{
	lunatik_free(container_of(hook, struct xdp_callback, hook));
}

static const struct lunatik_hook_ops callback_ops = {
	.name = "xdp",
	.stop = callback_stop,
	.free = callback_free,
	.owner = THIS_MODULE,
};

/* Length of the runtime's name without the ":CPU" of a per-CPU runtime. */
static size_t script_length(const struct lunatik_runtime *runtime)
{
	const char *name = lunatik_name(runtime);
	const char *colon = lunatik_cpu(runtime) < 0 ? NULL : strrchr(name, ':');

	return colon ? colon - name : strlen(name);
}

/* That of all its callbacks. */
static u32 runtime_hash(const struct lunatik_runtime *runtime)
{
	return script_hash(lunatik_name(runtime), script_length(runtime));
}

static void options_read(lua_State *L, struct xdp_options *options)
{
	static const char *const modes[] = { "any", "native", "generic", NULL };
	static const u32 flags[] = { 0, XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE };
	static const char *const fallbacks[] = { "open", "closed", NULL };
	static const u32 actions[] = { XDP_PASS, XDP_DROP };

	luaL_checktype(L, 2, LUA_TTABLE);
	options->dev = lunatik_fieldstring(L, 2, "dev", NULL);
	options->flags = flags[lunatik_fieldoption(L, 2, "mode", 0, modes)];
	options->fallback = actions[lunatik_fieldoption(L, 2, "fallback", 0, fallbacks)];
}

/* Notes the object when it is held. */
static void take_view(lua_State *L, struct lunatik_object **object, int *ref)
{
	struct lunatik_object *made = lunatik_view_new(L);

	*ref = lunatik_ref(L, -1);
	*object = made;
	lua_pop(L, 1);
}

static bool attached_already(const struct lunatik_runtime *runtime)
{
	struct xdp_callback *callback;
	bool found = false;

	spin_lock_bh(&callbacks_lock);
	hash_for_each_possible(callbacks, callback, node, runtime_hash(runtime))
		if (callback->hook.runtime == runtime && !callback->standalone &&
		    !callback->ended)
			found = true;
	spin_unlock_bh(&callbacks_lock);
	return found;
}

struct attachment {
	struct xdp_callback *made;	/* what is taken so far */
	struct xdp_options options;
};

static void attachment_refs(lua_State *L, struct xdp_callback *made)
{
	take_view(L, &made->packet_object, &made->packet);
	take_view(L, &made->side_object, &made->side);
	if (made->standalone) {
		lunatik_new(L, &context_class, 0);
		made->context = lunatik_ref(L, -1);
		made->context_object = lunatik_object(L, -1);
	}
	made->function = lunatik_ref(L, 1);
}

static void attachment_take(lua_State *L, void *arg)
{
	struct lunatik_runtime *runtime = lunatik_toruntime(L);
	size_t length = script_length(runtime);
	struct attachment *attachment = arg;
	struct xdp_options *options = &attachment->options;
	struct xdp_callback *callback;
	int ret;

	attachment_refs(L, attachment->made);

	/* Nothing may raise an error from here until the core owns the hook. */
	callback = lunatik_alloc(L, sizeof(*callback) + length + 1);
	*callback = *attachment->made;
	memcpy(callback->script, lunatik_name(runtime), length);
	callback->length = length;
	callback->hash = script_hash(callback->script, length);
	callback->cpu = lunatik_cpu(runtime);
	callback->fallback = options->fallback;
	callback->packet_view.ops = &packet_ops;
	callback->packet_view.lent = callback;
	callback->side_view.ops = &lunatik_memory_ops;
	callback->side_view.lent = &callback->side_memory;
	INIT_HLIST_NODE(&callback->node);
	lunatik_hook_add(L, &callback->hook, &callback_ops);
	callback_publish(callback);
	if (!callback->standalone)
		return;

	ret = device_enter(L, callback, options);
	if (ret) {
		/* No device has it, and callback_stop() would wait for RTNL. */
		callback_hide(callback);
		lunatik_hook_abort(&callback->hook);
		lunatik_throw(L, ret);
	}
	/* The callback may be gone again, with its device. */
}

static void callback_drop(lua_State *L, const struct xdp_callback *callback)
{
	lunatik_unref(L, callback->packet);
	lunatik_unref(L, callback->context);
	lunatik_unref(L, callback->side);
	lunatik_unref(L, callback->function);
}

static void attachment_drop(lua_State *L, void *arg)
{
	callback_drop(L, ((struct attachment *)arg)->made);
}

/* xdp.attach(fn(packet, argument) -> action), to be called from eBPF
 * xdp.attach(fn(ctx, packet) -> action, {dev =, mode = "native"|"generic", fallback =})
 */
static int xdp_attach(lua_State *L)
{
	struct xdp_callback made = {
		.packet = LUA_NOREF,
		.context = LUA_NOREF,
		.side = LUA_NOREF,
		.function = LUA_NOREF,
	};
	struct attachment attachment = { .made = &made };

	lunatik_checksleep(L, "xdp.attach");
	luaL_checktype(L, 1, LUA_TFUNCTION);
	made.standalone = !lua_isnoneornil(L, 2);
	if (made.standalone) {
		/* Attaching wants RTNL, and that may be what they all wait for. */
		lunatik_checkwait(L, "xdp.attach");
		options_read(L, &attachment.options);
	} else if (attached_already(lunatik_toruntime(L))) {
		lunatik_throw(L, -EBUSY);
	}
	lunatik_attempt(L, attachment_take, attachment_drop, &attachment);
	return 0;
}

/*
 * In an entry, the runtime's lock held: no other callback is running, and none
 * comes once it is ended. But the one that calls detach() itself still has its
 * packet, and its objects are to be taken back. So it keeps what it has, as one
 * does whose device is gone, until the runtime ends: where callbacks run nothing
 * is attached, so these never add up.
 */
static void callback_end(lua_State *L, struct xdp_callback *callback)
{
	if (callback->ended)
		return;
	WRITE_ONCE(callback->ended, true);
	lunatik_hook_cancel(&callback->hook);
	if (!callback->buff)
		callback_drop(L, callback);
}

/* xdp.detach(): all callbacks of this runtime */
static int xdp_detach(lua_State *L)
{
	struct lunatik_runtime *runtime = lunatik_toruntime(L);
	struct xdp_callback *callback;
	size_t seen = 0;

	spin_lock_bh(&callbacks_lock);
	hash_for_each_possible(callbacks, callback, node, runtime_hash(runtime)) {
		seen++;
		if (callback->hook.runtime == runtime)
			callback_end(L, callback);
	}
	spin_unlock_bh(&callbacks_lock);
	lunatik_charge(L, seen);
	return 0;
}

/* xdp.failures() -> how often a callback of this runtime gave no action */
static int xdp_failures(lua_State *L)
{
	struct lunatik_runtime *runtime = lunatik_toruntime(L);
	struct xdp_callback *callback;
	lua_Integer failures = 0;
	size_t seen = 0;

	spin_lock_bh(&callbacks_lock);
	hash_for_each_possible(callbacks, callback, node, runtime_hash(runtime)) {
		seen++;
		if (callback->hook.runtime == runtime)
			failures += atomic64_read(&callback->failures);
	}
	spin_unlock_bh(&callbacks_lock);
	lunatik_charge(L, seen);
	lua_pushinteger(L, failures);
	return 1;
}

/* Room of the helper's that it does the same as: a BPF program's stack. */
#define CSUM_DIFF_MAX	512

/*
 * As bpf_csum_diff() of this very kernel does it. Since 6.13 that folds the sum,
 * and of the two zeroes of ones' complement it takes another one at times.
 */
#ifdef LUNATIK_CSUM_DIFF_FOLDS
static u32 csum_diff(const char *from, size_t from_size, const char *to,
		     size_t to_size, __wsum seed)
{
	__wsum sum = seed;

	if (from_size && to_size)
		sum = csum_sub(csum_partial(to, to_size, seed),
			       csum_partial(from, from_size, 0));
	else if (to_size)
		sum = csum_partial(to, to_size, seed);
	else if (from_size)
		sum = ~csum_partial(from, from_size, ~seed);
	return csum_from32to16((__force u32)sum);
}
#else
static u32 csum_diff(const char *from, size_t from_size, const char *to,
		     size_t to_size, __wsum seed)
{
	__be32 words[CSUM_DIFF_MAX / sizeof(__be32)];
	size_t i;

	memcpy(words, from, from_size);
	for (i = 0; i < from_size / sizeof(__be32); i++)
		words[i] = ~words[i];
	memcpy((u8 *)words + from_size, to, to_size);
	return (__force u32)csum_partial(words, from_size + to_size, seed);
}
#endif

/* xdp.csum_diff(from, to[, seed]) -> the sum of what replaces what */
static int xdp_csum_diff(lua_State *L)
{
	size_t from_size, to_size;
	const char *from = luaL_optlstring(L, 1, "", &from_size);
	const char *to = luaL_optlstring(L, 2, "", &to_size);
	u32 seed = lunatik_optrange(L, 3, 0, 0, U32_MAX);

	if (from_size > CSUM_DIFF_MAX || to_size > CSUM_DIFF_MAX - from_size ||
	    from_size % sizeof(__be32) || to_size % sizeof(__be32))
		lunatik_throw(L, -EINVAL);
	lunatik_charge(L, (from_size + to_size) / BYTES_A_UNIT);
	lua_pushinteger(L, csum_diff(from, from_size, to, to_size,
				     (__force __wsum)seed));
	return 1;
}

static int xdp_ktime(lua_State *L)
{
	lua_pushinteger(L, ktime_get_mono_fast_ns());
	return 1;
}

static int xdp_cpu(lua_State *L)
{
	lua_pushinteger(L, raw_smp_processor_id());
	return 1;
}

static int xdp_random(lua_State *L)
{
	lua_pushinteger(L, get_random_u32());
	return 1;
}

static const luaL_Reg xdp_functions[] = {
	{ "attach", xdp_attach },
	{ "detach", xdp_detach },
	{ "failures", xdp_failures },
	{ "csum_diff", xdp_csum_diff },
	{ "ktime", xdp_ktime },
	{ "cpu", xdp_cpu },
	{ "random", xdp_random },
	{ NULL, NULL }
};

static const struct lunatik_library xdp_library = {
	.name = "xdp",
	.contexts = LUNATIK_SOFTIRQ,
	.functions = xdp_functions,
};

LUNATIK_LIBRARY(xdp, xdp_library);

static int __init lunatik_xdp_init(void)
{
	return register_btf_kfunc_id_set(BPF_PROG_TYPE_XDP, &xdp_kfunc_set);
}
module_init(lunatik_xdp_init);

/* Programs that call the kfunc, scripts and devices all hold the module. */
static void __exit lunatik_xdp_exit(void)
{
}
module_exit(lunatik_xdp_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: XDP");

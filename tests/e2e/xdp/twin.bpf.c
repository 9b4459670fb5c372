/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Does what each frame says, and writes down what came of it: the twin of
 * twin.lua, which must write the same.
 *
 * A frame: after the addresses and the type 0x88b5 a struct order. TAIL and
 * STORE with flags send the frame back. The low bits of BEFORE's flags are what
 * becomes of it, the others how far its head is moved.
 */
#include "bpf.h"

LICENSE;

struct order {
	__u32 number;		/* where the outcome is written */
	__u32 what;
	__u32 key;
	__u32 flags;
	__u64 value;
};

struct outcome {
	__s64 status;
	__u64 value;
};

/* The kernel's enumerators are there too, HEAD and TIME among them. */
enum {
	ON_ARRAY, ON_HASH, ON_LRU, ON_QUEUE, ON_STACK,
	DO_LOOKUP = 0, DO_UPDATE = 8, DO_DELETE = 16,		/* + ARRAY, HASH or LRU */
	DO_PUSH = 24, DO_POP = 32, DO_PEEK = 40,		/* + QUEUE or STACK */
	DO_REDIRECT = 48, DO_RING, DO_PERF, DO_REDIRECT_TO, DO_REDIRECT_HASH,
	DO_REDIRECT_CPU, DO_REDIRECT_SOCKET,
	DO_HEAD = 56, DO_TAIL, DO_META, DO_CSUM, DO_LOAD, DO_STORE, DO_CSUMS, DO_FIB, DO_BEFORE,
	DO_TIME = 65, DO_CPU, DO_RANDOM, DO_IFINDEX, DO_RX_QUEUE,
};

#define TABLE(name, kind, room)						\
	struct {							\
		MAP_INT(type, kind);					\
		MAP_INT(max_entries, room);				\
		MAP_TYPE(key, __u32);					\
		MAP_TYPE(value, __u64);					\
	} name SECTION(".maps")

#define LIST(name, kind)						\
	struct {							\
		MAP_INT(type, kind);					\
		MAP_INT(max_entries, 6);				\
		MAP_TYPE(value, __u64);					\
	} name SECTION(".maps")

TABLE(t_array, BPF_MAP_TYPE_ARRAY, 8);
TABLE(t_hash, BPF_MAP_TYPE_HASH, 8);
TABLE(t_lru, BPF_MAP_TYPE_LRU_HASH, 8);
LIST(t_queue, BPF_MAP_TYPE_QUEUE);
LIST(t_stack, BPF_MAP_TYPE_STACK);

struct {
	MAP_INT(type, BPF_MAP_TYPE_ARRAY);
	MAP_INT(max_entries, 4096);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct outcome);
} t_outcomes SECTION(".maps");

#define TARGETS(name, kind)						\
	struct {							\
		MAP_INT(type, kind);					\
		MAP_INT(max_entries, 4);				\
		MAP_INT(key_size, 4);					\
		MAP_INT(value_size, 4);					\
	} name SECTION(".maps")

TARGETS(t_devices, BPF_MAP_TYPE_DEVMAP);
TARGETS(t_hashed, BPF_MAP_TYPE_DEVMAP_HASH);
TARGETS(t_cpus, BPF_MAP_TYPE_CPUMAP);
TARGETS(t_sockets, BPF_MAP_TYPE_XSKMAP);

struct {
	MAP_INT(type, BPF_MAP_TYPE_RINGBUF);
	MAP_INT(max_entries, 4096);
} t_ring SECTION(".maps");

struct {
	MAP_INT(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	MAP_INT(max_entries, 8);
	MAP_INT(key_size, 4);
	MAP_INT(value_size, 4);
} t_perf SECTION(".maps");

inlined void on_table(void *map, __u32 what, struct order *order, struct outcome *outcome)
{
	__u64 *found;

	if (what == DO_LOOKUP) {
		found = map_lookup(map, &order->key);
		if (found)
			outcome->value = *found;
		else
			outcome->status = -1;
	} else if (what == DO_UPDATE) {
		outcome->status = map_update(map, &order->key, &order->value, order->flags);
	} else {
		outcome->status = map_delete(map, &order->key);
	}
}

inlined void on_list(void *map, __u32 what, struct order *order, struct outcome *outcome)
{
	if (what == DO_PUSH)
		outcome->status = map_push(map, &order->value, order->flags);
	else if (what == DO_POP)
		outcome->status = map_pop(map, &outcome->value) ? -1 : 0;
	else
		outcome->status = map_peek(map, &outcome->value) ? -1 : 0;
}

/* Of words that the order's value is shifted to: so many away, so many in their place. */
inlined __u32 sum_of(struct order *order)
{
	__u32 words[16], from = order->flags & 0x3c, to = order->flags >> 8 & 0x3c;
	int i;

	for (i = 0; i < 16; i++)
		words[i] = order->value >> i;
	return csum_diff((__be32 *)words, from, (__be32 *)words, to, order->key);
}

#define FAMILY_V4	2
#define FAMILY_V6	10

/* BPF_FIB_LOOKUP_SRC, which not every 6.1 has. */
#define FIB_SRC		16

/* The first of an address's words is all of it in IPv4. */
inlined __u64 sum_of_address(__u64 sum, int v6, const __u32 *words)
{
	int i;

	if (!v6)
		return sum * 31 + SWAP32(words[0]);
	for (i = 0; i < 4; i++)
		sum = sum * 31 + SWAP32(words[i]);
	return sum;
}

/* Of what is known without the neighbour. A gateway may be of another family. */
inlined __u64 sum_of_route(struct bpf_fib_lookup *route)
{
	return sum_of_address((__u64)route->ifindex * 31 + route->rt_metric,
			      route->family != FAMILY_V4, route->ipv6_dst);
}

/* All zeroes if the neighbour was not asked for. */
inlined __u64 sum_of_macs(struct bpf_fib_lookup *route, __u64 sum)
{
	__u64 dmac = 0, smac = 0;

	__builtin_memcpy(&dmac, route->dmac, 6);
	__builtin_memcpy(&smac, route->smac, 6);
	return (sum * 31 + dmac) * 31 + smac;
}

/* Where to a packet for the address goes whose end is the order's key. */
inlined void on_route(struct xdp_md *ctx, struct order *order, struct outcome *outcome)
{
	__u32 mark = order->value >> 56;
	struct bpf_fib_lookup route = {
		.family = order->value & 1 ? FAMILY_V6 : FAMILY_V4,
		.l4_protocol = order->value >> 16,
		.tot_len = order->value >> 24,
		.ifindex = order->value >> 40 & 0xff,
		.tbid = order->value >> 48 & 0xff,
	};
	if (!route.ifindex)
		route.ifindex = ctx->ingress_ifindex;
	/* 6.1 has no field for it, nor the flag. */
	__builtin_memcpy(route.smac, &mark, sizeof(mark));
	if (route.family == FAMILY_V6) {
		route.flowinfo = SWAP32((order->value >> 8 & 0xff) << 20);
		route.ipv6_src[0] = SWAP32(0xfd010000);
		route.ipv6_src[3] = SWAP32(1);
		route.ipv6_dst[0] = SWAP32(0xfd020000);
		route.ipv6_dst[3] = SWAP32(order->key);
	} else {
		route.tos = order->value >> 8;
		route.ipv4_src = SWAP32(0xc0000201);
		route.ipv4_dst = SWAP32(order->key);
	}
	outcome->status = fib_lookup(ctx, &route, sizeof(route), order->flags);
	switch (outcome->status) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		outcome->value = sum_of_macs(&route, sum_of_route(&route) * 31 + route.mtu_result);
		if (order->flags & FIB_SRC)
			outcome->value = sum_of_address(outcome->value, order->value & 1,
							route.ipv6_src);
		break;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		outcome->value = sum_of_route(&route);
		break;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		outcome->value = route.mtu_result;
	}
}

/* As many bytes before the packet as the order's key says, filled and summed. */
inlined void on_metadata(struct xdp_md *ctx, struct order *order, struct outcome *outcome)
{
	void *meta, *data;
	int i;

	outcome->status = adjust_meta(ctx, -(int)order->key);
	meta = (void *)(long)ctx->data_meta;
	data = (void *)(long)ctx->data;
	for (i = 0; i < META_WORDS; i++, meta += 4) {
		if (meta + 4 > data)
			break;
		*(__u32 *)meta = order->value + i;
	}
	if (!outcome->status)
		outcome->status = adjust_head(ctx, (int)order->flags >> 8);
	meta = (void *)(long)ctx->data_meta;
	data = (void *)(long)ctx->data;
	outcome->value = data - meta;
	for (i = 0; i < META_WORDS; i++, meta += 4) {
		if (meta + 4 > data)
			break;
		outcome->value = outcome->value * 31 + *(__u32 *)meta;
	}
}

/* Knows of fragments, as scripts do: generic mode copies for it in another way. */
SECTION("xdp.frags") int twin(struct xdp_md *ctx)
{
	struct outcome outcome = {};
	struct order order;
	int action = XDP_DROP, delta;
	__u16 type = 0;
	__u32 bytes;

	if (load_bytes(ctx, 12, &type, sizeof(type)) || type != SWAP16(0x88b5) ||
	    load_bytes(ctx, 14, &order, sizeof(order)))
		return XDP_PASS;

	delta = order.key;
	switch (order.what) {
	case DO_LOOKUP + ON_ARRAY: case DO_UPDATE + ON_ARRAY: case DO_DELETE + ON_ARRAY:
		on_table(&t_array, order.what - ON_ARRAY, &order, &outcome);
		break;
	case DO_LOOKUP + ON_HASH: case DO_UPDATE + ON_HASH: case DO_DELETE + ON_HASH:
		on_table(&t_hash, order.what - ON_HASH, &order, &outcome);
		break;
	case DO_LOOKUP + ON_LRU: case DO_UPDATE + ON_LRU: case DO_DELETE + ON_LRU:
		on_table(&t_lru, order.what - ON_LRU, &order, &outcome);
		break;
	case DO_PUSH + ON_QUEUE: case DO_POP + ON_QUEUE: case DO_PEEK + ON_QUEUE:
		on_list(&t_queue, order.what - ON_QUEUE, &order, &outcome);
		break;
	case DO_PUSH + ON_STACK: case DO_POP + ON_STACK: case DO_PEEK + ON_STACK:
		on_list(&t_stack, order.what - ON_STACK, &order, &outcome);
		break;
	case DO_REDIRECT:
		action = redirect_map(&t_devices, order.key, order.flags);
		outcome.status = action;
		break;
	case DO_REDIRECT_HASH:
		action = redirect_map(&t_hashed, order.key, order.flags);
		outcome.status = action;
		break;
	case DO_REDIRECT_CPU:
		action = redirect_map(&t_cpus, order.key, order.flags);
		outcome.status = action;
		break;
	case DO_REDIRECT_SOCKET:
		action = redirect_map(&t_sockets, order.key, order.flags);
		outcome.status = action;
		break;
	case DO_REDIRECT_TO:
		action = redirect(order.key, 0);
		outcome.status = action;
		break;
	case DO_RING:
		outcome.status = ringbuf_output(&t_ring, &order, sizeof(order), 0);
		break;
	case DO_PERF:
		outcome.status = perf_output(ctx, &t_perf,
					     BPF_F_CURRENT_CPU | (__u64)order.flags << 32,
					     &order, sizeof(order));
		break;
	case DO_HEAD:
		outcome.status = adjust_head(ctx, delta);
		break;
	case DO_TAIL:
		outcome.status = adjust_tail(ctx, delta);
		break;
	case DO_META:
		outcome.status = adjust_meta(ctx, delta);
		break;
	case DO_CSUM:
		outcome.value = csum_diff((__be32 *)&order.key, 4, (__be32 *)&order.value, 8,
					  order.flags);
		break;
	case DO_LOAD:
		bytes = 0;
		outcome.status = load_bytes(ctx, order.key, &bytes, sizeof(bytes)) ? -22 : 0;
		outcome.value = bytes;
		break;
	case DO_STORE:
		outcome.status = store_bytes(ctx, order.key, &order.value, 8) ? -22 : 0;
		break;
	case DO_CSUMS:
		outcome.value = sum_of(&order);
		break;
	case DO_FIB:
		on_route(ctx, &order, &outcome);
		break;
	case DO_BEFORE:
		on_metadata(ctx, &order, &outcome);
		action = order.flags & 7;
		break;
	case DO_TIME:
		outcome.value = ktime_ns();
		break;
	case DO_CPU:
		outcome.value = this_cpu();
		break;
	case DO_RANDOM:
		outcome.value = random_u32();
		break;
	case DO_IFINDEX:
		outcome.value = ctx->ingress_ifindex;
		break;
	case DO_RX_QUEUE:
		outcome.value = ctx->rx_queue_index;
		break;
	default:
		return XDP_PASS;
	}
	/* What became of the packet: its length and its first bytes, if it had them. */
	if (order.what >= DO_HEAD && order.what <= DO_META) {
		bytes = 0;
		if (order.what != DO_HEAD || delta >= 0)
			load_bytes(ctx, 0, &bytes, sizeof(bytes));
		outcome.value = packet_length(ctx) << 32 | bytes;
	}
	if ((order.what == DO_TAIL || order.what == DO_STORE) && order.flags)
		action = XDP_TX;
	map_update(&t_outcomes, &order.number, &outcome, BPF_ANY);
	return action;
}

/* At the other end of the wire: veth sends back to devices that have a program only. */
SECTION("xdp.frags") int let_in(struct xdp_md *ctx)
{
	return XDP_PASS;
}

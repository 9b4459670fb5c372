// SPDX-License-Identifier: GPL-2.0-only
/*
 * benchhook: what a packet's way through the hooks of a position costs.
 *
 * For tests/bench, on machines whose time stamp counter counts instructions:
 * one packet is led through IPv4's FORWARD again and again, with whatever hooks
 * are there, and nothing else of the network; or frames are sent through one end
 * of a wire, and what the other end does with them counts as well.
 */
#include <linux/bottom_half.h>
#include <linux/bpf.h>
#include <linux/etherdevice.h>
#include <linux/interrupt.h>
#include <linux/ip.h>
#include <linux/math64.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/sched.h>
#include <linux/skbuff.h>
#include <linux/tcp.h>
#include <net/net_namespace.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/xdp.h>
#include <asm/msr.h>

#include "lunatik.h"

#define BENCH_ROUNDS	20
#define BENCH_PACKET	1500

/* The hook that a Lua hook is compared with: one byte, an answer. */
static unsigned int bench_hook(void *priv, struct sk_buff *skb,
			       const struct nf_hook_state *state)
{
	return ip_hdr(skb)->protocol == 99 ? NF_DROP : NF_ACCEPT;
}

static const struct nf_hook_ops bench_ops = {
	.hook = bench_hook,
	.pf = NFPROTO_IPV4,
	.hooknum = NF_INET_FORWARD,
};

static atomic_t registered = ATOMIC_INIT(0);

/* hook(on): have that hook, or not */
static int bench_set_hook(lua_State *L)
{
	int on = lua_toboolean(L, 1);

	lunatik_checksleep(L, "benchhook.hook");
	if (atomic_xchg(&registered, on) == on)
		return 0;
	if (on)
		lunatik_try(L, nf_register_net_hook(&init_net, &bench_ops));
	else
		nf_unregister_net_hook(&init_net, &bench_ops);
	return 0;
}

static int bench_nowhere(struct net *net, struct sock *sk, struct sk_buff *skb)
{
	kfree_skb(skb);
	return 0;
}

/* 1: it lives on; anything else: it is gone */
static int bench_cross(struct sk_buff *skb, unsigned int hook)
{
	struct net_device *dev = init_net.loopback_dev;

	return nf_hook(NFPROTO_IPV4, hook, &init_net, NULL, skb, dev, dev, bench_nowhere);
}

static struct sk_buff *bench_packet(const char *bytes, size_t length)
{
	struct sk_buff *skb = alloc_skb(length + LL_MAX_HEADER, GFP_KERNEL);

	if (!skb)
		return NULL;
	skb_reserve(skb, LL_MAX_HEADER);
	skb_put_data(skb, bytes, length);
	skb_reset_network_header(skb);
	skb_set_transport_header(skb, ip_hdr(skb)->ihl * 4);
	skb->protocol = htons(ETH_P_IP);
	skb->dev = init_net.loopback_dev;
	skb->ip_summed = CHECKSUM_UNNECESSARY;
	return skb;
}

/* forward(packet, count) -> instructions of one way; nil if it was dropped */
static int bench_forward(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 1, &length);
	unsigned int count = lunatik_checkrange(L, 2, 1, 1000);
	u64 least = U64_MAX, begin;
	struct sk_buff *skb;
	unsigned int round, i;
	int lives;

	lunatik_checksleep(L, "benchhook.forward");
	if (length < sizeof(struct iphdr) || length > BENCH_PACKET)
		luaL_error(L, "no packet");
	skb = bench_packet(bytes, length);
	if (!skb)
		lunatik_throw(L, ENOMEM);

	local_bh_disable();
	/* As a router does: its connection is known by then. */
	lives = bench_cross(skb, NF_INET_PRE_ROUTING);
	for (round = 0; round < BENCH_ROUNDS && lives == 1; round++) {
		begin = rdtsc_ordered();
		for (i = 0; i < count && lives == 1; i++)
			lives = bench_cross(skb, NF_INET_FORWARD);
		least = min(least, rdtsc_ordered() - begin);
	}
	local_bh_enable();

	if (lives != 1) {
		lua_pushnil(L);
		return 1;
	}
	kfree_skb(skb);
	lua_pushinteger(L, div_u64(least, count));
	return 1;
}

/* One way through FORWARD, its instructions added to @spent; false: it is gone. */
static bool bench_forward_once(struct sk_buff *skb, u64 *spent)
{
	u64 begin = rdtsc_ordered();
	int lives = bench_cross(skb, NF_INET_FORWARD);

	*spent += rdtsc_ordered() - begin;
	return lives == 1;
}

/* As if the other end had answered to @syn before @data came. */
static void bench_follow(struct sk_buff *data, const struct sk_buff *syn)
{
	enum ip_conntrack_info info;
	struct nf_conn *ct = nf_ct_get(syn, &info);

	if (!ct)
		return;
	nf_conntrack_get(&ct->ct_general);
	nf_ct_set(data, ct, IP_CT_ESTABLISHED);
}

/* A connection's first packets, which are consumed; false if one was dropped. */
static bool bench_connection(struct sk_buff *syn, struct sk_buff *data, u64 *spent)
{
	bool lives;

	local_bh_disable();
	lives = bench_cross(syn, NF_INET_PRE_ROUTING) == 1 && bench_forward_once(syn, spent);
	if (lives) {
		bench_follow(data, syn);
		lives = bench_forward_once(data, spent);
		kfree_skb(syn);
		if (lives)
			kfree_skb(data);
	} else {
		kfree_skb(data);
	}
	local_bh_enable();
	return lives;
}

static struct sk_buff *bench_segment(const char *bytes, size_t length, u16 port)
{
	struct sk_buff *skb = bench_packet(bytes, length);

	if (skb)
		tcp_hdr(skb)->source = htons(port);
	return skb;
}

/*
 * connect(syn, data, count) -> instructions of both on their way through FORWARD,
 * by another source port each time; nil if one was dropped
 */
static int bench_connect(lua_State *L)
{
	size_t syn_length, data_length;
	const char *syn_bytes = luaL_checklstring(L, 1, &syn_length);
	const char *data_bytes = luaL_checklstring(L, 2, &data_length);
	unsigned int count = lunatik_checkrange(L, 3, 1, 1000);
	const size_t headers = sizeof(struct iphdr) + sizeof(struct tcphdr);
	struct sk_buff *syn, *data;
	u64 least = U64_MAX, spent;
	unsigned int round, i;
	u16 port = 1024;

	lunatik_checksleep(L, "benchhook.connect");
	if (min(syn_length, data_length) < headers || max(syn_length, data_length) > BENCH_PACKET)
		luaL_error(L, "no segments");
	for (round = 0; round < BENCH_ROUNDS; round++) {
		for (i = 0, spent = 0; i < count; i++, port++) {
			syn = bench_segment(syn_bytes, syn_length, port);
			data = bench_segment(data_bytes, data_length, port);
			if (!syn || !data) {
				kfree_skb(syn);
				kfree_skb(data);
				lunatik_throw(L, ENOMEM);
			}
			if (!bench_connection(syn, data, &spent)) {
				lua_pushnil(L);
				return 1;
			}
		}
		least = min(least, spent);
	}
	lua_pushinteger(L, div_u64(least, count));
	return 1;
}

/* Frames of one round, and of one poll of NAPI. */
#define BENCH_FRAMES	8

/* Many short ones: there will be some in which no allocator tidies up. */
#define BENCH_FRAME_ROUNDS	1000

/* Frames lie in pages of their own, as a driver's do. */
static struct xdp_rxq_info bench_rxq = { .mem.type = MEM_TYPE_PAGE_ORDER0 };

static struct xdp_frame *bench_frame(const char *bytes, size_t length)
{
	struct page *page = alloc_page(GFP_KERNEL);
	struct xdp_buff buff;

	if (!page)
		return NULL;
	xdp_init_buff(&buff, PAGE_SIZE, &bench_rxq);
	xdp_prepare_buff(&buff, page_address(page), XDP_PACKET_HEADROOM, length, true);
	memcpy(buff.data, bytes, length);
	/* Lies in the headroom, which is there. */
	return xdp_convert_buff_to_frame(&buff);
}

static void bench_frames_free(struct xdp_frame **frames, unsigned int first)
{
	unsigned int i;

	for (i = first; i < BENCH_FRAMES; i++)
		if (frames[i])
			xdp_return_frame(frames[i]);
}

/*
 * Hand frames to the other end of the wire, as they would come from hardware;
 * instructions until it is done with all of them, U64_MAX if it put that off.
 */
static u64 bench_receive_round(struct net_device *dev, struct xdp_frame **frames)
{
	u64 begin, end;
	int sent;

	begin = rdtsc_ordered();
	local_bh_disable();
	rcu_read_lock();
	sent = dev->netdev_ops->ndo_xdp_xmit(dev, BENCH_FRAMES, frames, XDP_XMIT_FLUSH);
	rcu_read_unlock();
	/* Runs what veth has put up for its peer. */
	local_bh_enable();
	end = rdtsc_ordered();

	bench_frames_free(frames, max(sent, 0));
	/* It is left to ksoftirqd when there is too much else. */
	if (sent != BENCH_FRAMES || local_softirq_pending() & BIT(NET_RX_SOFTIRQ))
		return U64_MAX;
	return end - begin;
}

/* receive(device, frame[, rounds]) -> instructions of a frame that its peer receives */
static int bench_receive(lua_State *L)
{
	struct xdp_frame *frames[BENCH_FRAMES];
	const char *name = luaL_checkstring(L, 1);
	size_t length;
	const char *bytes = luaL_checklstring(L, 2, &length);
	unsigned int rounds = lunatik_optrange(L, 3, BENCH_FRAME_ROUNDS, 1, BENCH_FRAME_ROUNDS);
	struct net_device *dev;
	unsigned int round, i;
	u64 least = U64_MAX;

	lunatik_checksleep(L, "benchhook.receive");
	if (length < ETH_HLEN || length > BENCH_PACKET)
		luaL_error(L, "no frame");
	dev = dev_get_by_name(&init_net, name);
	if (!dev)
		lunatik_throw(L, ENODEV);
	if (!dev->netdev_ops->ndo_xdp_xmit) {
		dev_put(dev);
		lunatik_throw(L, EOPNOTSUPP);
	}

	for (round = 0; round < rounds; round++) {
		for (i = 0; i < BENCH_FRAMES; i++)
			frames[i] = bench_frame(bytes, length);
		if (!frames[BENCH_FRAMES - 1]) {
			bench_frames_free(frames, 0);
			continue;
		}
		least = min(least, bench_receive_round(dev, frames));
	}
	dev_put(dev);
	if (least == U64_MAX)
		lunatik_throw(L, EAGAIN);
	lua_pushinteger(L, div_u64(least, BENCH_FRAMES));
	return 1;
}

static const luaL_Reg bench_functions[] = {
	{ "forward", bench_forward },
	{ "connect", bench_connect },
	{ "receive", bench_receive },
	{ "hook", bench_set_hook },
	{ NULL, NULL }
};

static const struct lunatik_library bench_library = {
	.name = "benchhook",
	.contexts = LUNATIK_PROCESS,
	.functions = bench_functions,
};

LUNATIK_LIBRARY(benchhook, bench_library);

static int __init lunatik_benchhook_init(void)
{
	return 0;
}

static void __exit lunatik_benchhook_exit(void)
{
	if (atomic_read(&registered))
		nf_unregister_net_hook(&init_net, &bench_ops);
}

module_init(lunatik_benchhook_init);
module_exit(lunatik_benchhook_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: what hooks cost");

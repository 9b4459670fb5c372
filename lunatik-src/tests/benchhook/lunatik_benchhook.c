// SPDX-License-Identifier: GPL-2.0-only
/*
 * benchhook: what a packet's way through the hooks of a position costs.
 *
 * For tests/bench, on machines whose time stamp counter counts instructions:
 * one packet is led through IPv4's FORWARD again and again, with whatever hooks
 * are there, and nothing else of the network.
 */
#include <linux/bottom_half.h>
#include <linux/ip.h>
#include <linux/math64.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/sched.h>
#include <linux/skbuff.h>
#include <net/net_namespace.h>
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

static const luaL_Reg bench_functions[] = {
	{ "forward", bench_forward },
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

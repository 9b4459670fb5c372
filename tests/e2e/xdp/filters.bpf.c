/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Four filters, each a program by its name: the twins of filters.lua, and of the
 * iptables rules in test_four_ways.py.
 */
#include "bpf.h"

LICENSE;

/* Where one wants to see what passes rather than have it go its way. */
#ifdef SEND_BACK
#define PASS	XDP_TX
#else
#define PASS	XDP_PASS
#endif
#define DROP	XDP_DROP

/* What earns one packet more, in ns: an hour, so that clocks have no say. */
#ifndef EARNED
#define EARNED		3600000000000ULL
#endif
#define PER_SOURCE	20	/* packets at once */
#define PER_SERVICE	10	/* connections at once */
#define EXTENSIONS	32	/* of a ClientHello that are looked at */

#define ETHERNET	14
#define SYN		0x02
#define SYN_ACK_RST_FIN	0x17

/* What filters look at; ports and flags are 0 where there are none. */
struct packet {
	__u32 source, destination;
	__u16 source_port, destination_port;	/* as they stand in the packet */
	__u8 protocol, flags;
	__u32 payload;				/* of TCP: offset in the frame */
};

/* Of IPv4; anything else is no business of the filters. */
inlined int parse(struct xdp_md *ctx, struct packet *packet)
{
	__u8 ip[20], tcp[20];
	__u16 type;
	__u32 size;

	if (load_bytes(ctx, 12, &type, sizeof(type)) || type != SWAP16(0x0800) ||
	    load_bytes(ctx, ETHERNET, ip, sizeof(ip)) || ip[0] >> 4 != 4)
		return -1;
	size = (ip[0] & 15) * 4;
	if (size < sizeof(ip))
		return -1;
	packet->source = *(__u32 *)(ip + 12);
	packet->destination = *(__u32 *)(ip + 16);
	packet->protocol = ip[9];
	/* Only the first fragment has ports. */
	if ((ip[6] & 0x1f) || ip[7] || ip[9] != 6 ||
	    load_bytes(ctx, ETHERNET + size, tcp, sizeof(tcp)))
		return 0;
	packet->source_port = *(__u16 *)tcp;
	packet->destination_port = *(__u16 *)(tcp + 2);
	packet->flags = tcp[13];
	packet->payload = ETHERNET + size + (tcp[12] >> 4) * 4;
	return 0;
}

/* For the device at the other end, which takes what is sent back only if it has one. */
SECTION("xdp") int let_in(struct xdp_md *ctx)
{
	return XDP_PASS;
}

struct {
	MAP_INT(type, BPF_MAP_TYPE_HASH);
	MAP_INT(max_entries, 64);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u8);
} sources SECTION(".maps");

SECTION("xdp") int drop_source(struct xdp_md *ctx)
{
	struct packet packet = {};

	if (parse(ctx, &packet))
		return PASS;
	return map_lookup(&sources, &packet.source) ? DROP : PASS;
}

struct credit {
	__u64 left;		/* nanoseconds; each packet takes an hour */
	__u64 at;
};

#define CREDITS(name, keys)						\
	struct {							\
		MAP_INT(type, BPF_MAP_TYPE_LRU_HASH);			\
		MAP_INT(max_entries, 4096);				\
		MAP_TYPE(key, keys);					\
		MAP_TYPE(value, struct credit);				\
	} name SECTION(".maps")

CREDITS(per_source, __u32);
CREDITS(per_service, __u64);

/* Is one more allowed? */
inlined int spend(void *map, void *key, __u64 most)
{
	struct credit *credit = map_lookup(map, key), fresh;
	__u64 now = ktime_ns();

	if (!credit) {
		fresh.left = (most - 1) * EARNED;
		fresh.at = now;
		map_update(map, key, &fresh, BPF_ANY);
		return 1;
	}
	credit->left += now - credit->at;
	credit->at = now;
	if (credit->left > most * EARNED)
		credit->left = most * EARNED;
	if (credit->left < EARNED)
		return 0;
	credit->left -= EARNED;
	return 1;
}

SECTION("xdp") int rate_limit(struct xdp_md *ctx)
{
	struct packet packet = {};

	if (parse(ctx, &packet))
		return PASS;
	return spend(&per_source, &packet.source, PER_SOURCE) ? PASS : DROP;
}

SECTION("xdp") int syn_flood(struct xdp_md *ctx)
{
	struct packet packet = {};
	__u64 service;

	if (parse(ctx, &packet) || (packet.flags & SYN_ACK_RST_FIN) != SYN)
		return PASS;
	service = (__u64)packet.destination << 16 | packet.destination_port;
	return spend(&per_service, &service, PER_SERVICE) ? PASS : DROP;
}

/* A name in the first ClientHello of a connection: type 0, "blocked.example". */
static const char blocked[] = "blocked.example";

SECTION("xdp") int sni_block(struct xdp_md *ctx)
{
	struct packet packet = {};
	char name[sizeof(blocked) - 1];
	__u8 head[9], byte;
	__u16 two;
	__u32 at, i;

	if (parse(ctx, &packet) || packet.destination_port != SWAP16(443) || !packet.payload)
		return PASS;
	at = packet.payload;
	/* A handshake record with a ClientHello; its random; a session's ID. */
	if (load_bytes(ctx, at, head, 6) || head[0] != 22 || head[5] != 1 ||
	    load_bytes(ctx, at + 43, &byte, 1))
		return PASS;
	at += 44 + byte;
	if (load_bytes(ctx, at, &two, 2))
		return PASS;
	at += 2 + SWAP16(two);			/* ciphers */
	if (load_bytes(ctx, at, &byte, 1))
		return PASS;
	at += 1 + byte + 2;			/* compressions, the extensions' size */
	for (i = 0; i < EXTENSIONS; i++) {
		if (load_bytes(ctx, at, head, 4))
			return PASS;
		if (!head[0] && !head[1]) {
			/* A list's size, a name's type, its size. */
			if (load_bytes(ctx, at + 4, head, 5) || head[2] || head[3] ||
			    head[4] != sizeof(name) || load_bytes(ctx, at + 9, name, sizeof(name)))
				return PASS;
			for (i = 0; i < sizeof(name); i++)
				if (name[i] != blocked[i])
					return PASS;
			return DROP;
		}
		at += 4 + (head[2] << 8 | head[3]);
	}
	return PASS;
}

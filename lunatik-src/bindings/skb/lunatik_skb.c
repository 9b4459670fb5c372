// SPDX-License-Identifier: GPL-2.0-only
/*
 * skb - the packet that a hook is looking at
 *
 * A hook's packet belongs to the network stack: it is lent for one callback,
 * under the runtime's lock, and may be paged, cloned or a GSO super packet.
 * So bytes are copied out from wherever they are, and each write first makes
 * the part that it touches linear and private. The one pointer into it that is
 * kept, for reading (window_show()), goes before anything may move the buffer.
 * A copy (skb:copy()) belongs to the script, until it is collected.
 *
 * What a script sends while it has a packet (forward(), reply(), reset(),
 * unreachable()) is kept with the packet's lending and goes out when nobody is
 * inside the runtime any more: so no lock of the network is taken under the
 * runtime's.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bottom_half.h>
#include <linux/if_arp.h>
#include <linux/if_vlan.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/kref.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_arp.h>
#include <linux/percpu.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/addrconf.h>
#include <net/checksum.h>
#include <net/dst_metadata.h>
#include <net/ip.h>
#include <net/ip6_checksum.h>
#include <net/ip6_route.h>
#include <net/l3mdev.h>
#include <net/netfilter/ipv4/nf_reject.h>
#include <net/netfilter/ipv6/nf_reject.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_acct.h>
#include <net/netfilter/nf_conntrack_ecache.h>
#include <net/route.h>
#include <net/xfrm.h>

#include "lunatik_data.h"
#include "lunatik_skb.h"

/* Largest packet that resize() makes: what fits the IPv4 length field. */
#define PACKET_MAX	65535

/* Most packets that a script sends while it has one. */
#define SENDINGS_MAX	64

/* Instructions' worth of a copy, whatever its length. */
#define COPY_COST	64

/* Steps along a packet's list of pieces, to the instruction. */
#define PIECES_A_UNIT	4

enum window_base {
	WINDOW_NET,
	WINDOW_MAC,
	WINDOW_BASES
};

/*
 * A copy's buffer, kept by its object and by every view of it. It may stay for
 * as long as the script likes, so it holds nothing of the network: neither
 * device nor route nor connection. Fixed but for the bytes.
 */
struct copy {
	struct kref kref;
	struct sk_buff *skb;
	int ifindex;
	u64 net;			/* cookie of the namespace of @ifindex */
	struct lunatik_runtime *runtime;	/* kept by this memory's own account */
	size_t size;			/* of @skb, on its account */
};

struct packet;

/*
 * What a view lends. Two of them come with a hook's packet, and are opened for
 * each callback; each view of a copy has its own and holds the copy.
 */
struct window {
	struct lunatik_view view;
	struct packet *packet;		/* of a hook; NULL for a copy's view */
	struct sk_buff **skb;
	enum window_base base;
	struct lunatik_object *object;	/* of a hook's packet */
	int ref;			/* likewise */
	struct copy *copy;		/* held by a copy's view */
};

/*
 * Private data of the class. @skb is NULL while no packet is lent. Guarded by
 * the runtime's lock: the class is single.
 */
struct packet {
	struct sk_buff *skb;
	struct lunatik_lending *lending;	/* of a lent packet; NULL for a copy */
	struct copy *copy;			/* NULL for a hook's packet */
	struct lunatik_object *origin;		/* of a copy: the hook's packet; held */
	struct window windows[WINDOW_BASES];	/* of a hook's packet */
};

static const struct lunatik_class packet_class;

static void copy_free(struct kref *kref)
{
	struct copy *copy = container_of(kref, struct copy, kref);

	dev_kfree_skb_any(copy->skb);
	lunatik_unaccount(copy->runtime, copy->size);
	lunatik_free(copy);
}

static void copy_put(struct copy *copy)
{
	kref_put(&copy->kref, copy_free);
}

/*
 * Does a link header stand before the packet? A tunnel puts headers before the
 * one that a packet came with, which is then somewhere inside.
 */
static bool link_present(const struct sk_buff *skb)
{
	return skb_mac_header_was_set(skb) && skb_mac_offset(skb) <= 0;
}

static int base_offset(const struct sk_buff *skb, enum window_base base)
{
	return base == WINDOW_MAC && link_present(skb) ? skb_mac_offset(skb) :
							 skb_network_offset(skb);
}

/* ---- transport ---------------------------------------------------------- */

/* What the transport checksum covers: @start is relative to skb->data. */
struct transport {
	int start;
	unsigned int length;
	u8 protocol;
	__wsum pseudo;
};

/*
 * What a header says that is left of the packet behind its first @before bytes.
 * A super packet too long for the field (BIG TCP) says 0 there.
 */
static unsigned int length_said(const struct sk_buff *skb, __be16 field, unsigned int before)
{
	if (field || !skb_is_gso(skb) || !skb_is_gso_tcp(skb))
		return ntohs(field);
	return skb->len - skb_network_offset(skb) - before;
}

/*
 * Somewhere else than where it goes now: the sum covers the last address of the
 * route, not the header's.
 */
static bool source_routed_ipv4(const struct iphdr *header)
{
	const u8 *options = (const u8 *)(header + 1);
	int left = header->ihl * 4 - sizeof(*header);
	int size;

	for (; left > 0 && *options != IPOPT_END; options += size, left -= size) {
		size = *options == IPOPT_NOOP ? 1 : left > 1 ? options[1] : 0;
		if (!size || size > left)
			return false;
		if ((*options == IPOPT_LSRR || *options == IPOPT_SSRR) && size > 2 &&
		    options[2] <= size)
			return true;
	}
	return false;
}

static bool source_routed_ipv6(const struct sk_buff *skb)
{
	int flags = IP6_FH_F_SKIP_RH;	/* those that are used up */
	unsigned int offset = 0;

	return ipv6_find_hdr(skb, &offset, NEXTHDR_ROUTING, NULL, &flags) == NEXTHDR_ROUTING;
}

static int transport_ipv4(struct sk_buff *skb, struct transport *transport)
{
	int offset = skb_network_offset(skb);
	struct iphdr *header;
	unsigned int length;
	unsigned int size;
	int ret = skb_ensure_writable(skb, offset + sizeof(*header));

	if (ret)
		return ret;
	size = ip_hdr(skb)->ihl * 4;
	ret = skb_ensure_writable(skb, offset + size);
	if (ret)
		return ret;
	header = ip_hdr(skb);
	length = length_said(skb, header->tot_len, 0);
	if (size < sizeof(*header) || length < size || length > skb->len - offset)
		return -EINVAL;
	ip_send_check(header);
	if (source_routed_ipv4(header))
		return -EPROTONOSUPPORT;
	transport->start = offset + size;
	transport->length = length - size;
	transport->protocol = ip_is_fragment(header) ? 0 : header->protocol;
	transport->pseudo = csum_tcpudp_nofold(header->saddr, header->daddr,
					       transport->length, header->protocol, 0);
	return 0;
}

static int transport_ipv6(struct sk_buff *skb, struct transport *transport)
{
	int offset = skb_network_offset(skb);
	struct ipv6hdr *header;
	__be16 fragment;
	u8 protocol;
	int start;
	int end;
	int ret = skb_ensure_writable(skb, offset + sizeof(*header));

	if (ret)
		return ret;
	if (source_routed_ipv6(skb))
		return -EPROTONOSUPPORT;
	protocol = ipv6_hdr(skb)->nexthdr;
	start = ipv6_skip_exthdr(skb, offset + sizeof(*header), &protocol, &fragment);
	header = ipv6_hdr(skb);
	end = offset + sizeof(*header) +
	      length_said(skb, header->payload_len, sizeof(*header));
	/* Headers that are longer than the payload they are in are an enemy's. */
	if (start < 0 || start > end || end > skb->len)
		return -EINVAL;
	transport->start = start;
	transport->length = end - start;
	transport->protocol = fragment ? 0 : protocol;
	transport->pseudo = ~csum_unfold(csum_ipv6_magic(&header->saddr, &header->daddr,
							 transport->length, protocol, 0));
	return 0;
}

static int transport_field(const struct transport *transport)
{
	switch (transport->protocol) {
	case IPPROTO_TCP:
		return offsetof(struct tcphdr, check);
	case IPPROTO_UDP:
		return offsetof(struct udphdr, check);
	default:
		return -1;
	}
}

/*
 * A datagram may be shorter than the packet that it is in; its receiver cuts off
 * what is left over.
 */
static void transport_shorten(const struct sk_buff *skb, struct transport *transport)
{
	struct udphdr buffer;
	const struct udphdr *udp;
	unsigned int length;

	if (transport->protocol != IPPROTO_UDP)
		return;
	udp = skb_header_pointer(skb, transport->start, sizeof(buffer), &buffer);
	length = udp ? ntohs(udp->len) : 0;
	if (length < sizeof(*udp) || length >= transport->length)
		return;
	transport->pseudo = csum_sub(transport->pseudo,
				     (__force __wsum)htons(transport->length - length));
	transport->length = length;
}

/* The device, or GSO, fills the sum in from that of the pseudo header. */
static int transport_partial(struct sk_buff *skb, const struct transport *transport, int field)
{
	__sum16 sum = ~csum_fold(transport->pseudo);

	return skb_store_bits(skb, transport->start + field, &sum, sizeof(sum));
}

static int transport_find(struct sk_buff *skb, struct transport *transport)
{
	int ret = -EPROTONOSUPPORT;

	if (skb->protocol == htons(ETH_P_IP))
		ret = transport_ipv4(skb, transport);
	else if (skb->protocol == htons(ETH_P_IPV6))
		ret = transport_ipv6(skb, transport);
	if (!ret)
		transport_shorten(skb, transport);
	return ret;
}

static bool chained(const struct sk_buff *skb)
{
	return skb_is_gso(skb) && skb_shinfo(skb)->gso_type & SKB_GSO_FRAGLIST;
}

/*
 * SCTP's super packet: what goes out are the packets of its list, each as it is.
 * Who makes one buffer of them, or of some, leaves GSO without the rest.
 */
static bool listed(const struct sk_buff *skb)
{
	return skb_is_gso(skb) && skb_shinfo(skb)->gso_size == GSO_BY_FRAGS;
}

/*
 * GRO may chain packets (rx-gro-list): the first one has its own checksum, and
 * whoever parts them derives the others' from theirs, by the ports and
 * addresses that differ. Any other write would spoil them. So make of the chain,
 * before, what GRO makes else: one buffer, whose sums are filled in at the end.
 */
static int packet_join(struct sk_buff *skb)
{
	struct transport transport = {};
	int field;
	int ret;

	if (!chained(skb))
		return 0;
	if (skb->encapsulation)
		return -EOPNOTSUPP;
	ret = transport_find(skb, &transport);
	if (ret)
		return ret;
	field = transport_field(&transport);
	if (field < 0 || transport.length < field + sizeof(__sum16))
		return -EOPNOTSUPP;
	ret = skb_linearize_cow(skb);
	if (ret)
		return ret;
	skb->ip_summed = CHECKSUM_PARTIAL;
	skb->csum_start = skb_headroom(skb) + transport.start;
	skb->csum_offset = field;
	skb_shinfo(skb)->gso_type &= ~SKB_GSO_FRAGLIST;
	return transport_partial(skb, &transport, field);
}

/* ---- windows ------------------------------------------------------------ */

static size_t window_size(const void *lent)
{
	const struct window *window = lent;
	int size = (int)(*window->skb)->len - base_offset(*window->skb, window->base);

	return max(size, 0);
}

/* Where a part of the window begins, relative to skb->data; -ERANGE if not in the packet. */
static int window_start(const struct window *window, size_t offset, size_t length, int *start)
{
	const struct sk_buff *skb = *window->skb;
	s64 from;

	if (offset > INT_MAX || length > INT_MAX)
		return -ERANGE;
	from = base_offset(skb, window->base) + (s64)offset;
	if (from < -(s64)skb_headroom(skb) || from + (s64)length > (s64)skb->len)
		return -ERANGE;
	*start = from;
	return 0;
}

static int window_read(const void *lent, size_t offset, void *to, size_t length)
{
	const struct window *window = lent;
	int start;
	int ret = window_start(window, offset, length, &start);

	return ret ? ret : skb_copy_bits(*window->skb, start, to, length);
}

/* Bytes change: what the device, or conntrack, has summed up is no longer true. */
static void sum_forget(struct sk_buff *skb)
{
	if (skb->ip_summed == CHECKSUM_COMPLETE)
		skb->ip_summed = CHECKSUM_NONE;
}

/* The linear part can be read in place, until packet_hide(). */
static void window_show(struct window *window)
{
	const struct sk_buff *skb = *window->skb;
	int base = base_offset(skb, window->base);

	window->view.near = skb->data + base;
	window->view.near_size = max((int)skb_headlen(skb) - base, 0);
}

/* The packet's buffer may move. A view that is asked for anew shows it again. */
static void packet_hide(struct packet *packet)
{
	int i;

	for (i = 0; i < WINDOW_BASES; i++)
		packet->windows[i].view.near_size = 0;
}

/* Part of the packet, relative to skb->data. */
struct stretch {
	int start;
	int end;
};

static bool overlap(const struct stretch *one, const struct stretch *other)
{
	return one->start < other->end && one->end > other->start;
}

/*
 * The stack has parsed the options of an IPv4 header, remembers where they are,
 * and writes there, or copies from there, by lengths that it does not check
 * again: an ICMP error that says how long a fragment may be does it as late as
 * after POST_ROUTING.
 */
static bool options_parsed(const struct nf_hook_state *state, const struct sk_buff *skb,
			   const struct stretch *written)
{
	int start = skb_network_offset(skb) + sizeof(struct iphdr);
	const struct stretch options = { start, start + IPCB(skb)->opt.optlen };

	return state->hook != NF_INET_PRE_ROUTING && overlap(written, &options);
}

/* Where the header ends was checked before the first hook, and is not again. */
static bool header_resized(const struct sk_buff *skb, const struct stretch *written,
			   const u8 *bytes)
{
	int first = skb_network_offset(skb);

	if (written->start > first || written->end <= first)
		return false;
	return (bytes[first - written->start] ^ *skb_network_header(skb)) & 0x0f;
}

/* A socket that asks for the options of hop by hop gets as many as the header says. */
static bool hops_parsed(const struct nf_hook_state *state, const struct sk_buff *skb,
			const struct stretch *written)
{
	int start = skb_network_offset(skb) + sizeof(struct ipv6hdr);
	struct stretch options = { start, start };
	u8 head[2];

	if (state->hook > NF_INET_FORWARD || !(IP6CB(skb)->flags & IP6SKB_HOPBYHOP) ||
	    skb_copy_bits(skb, start, head, sizeof(head)))
		return false;
	options.end += (head[1] + 1) * 8;
	return overlap(written, &options);
}

/* Would a write change what the stack has checked already and relies on? */
static bool relied_upon(const struct window *window, int start, const void *from, size_t length)
{
	const struct sk_buff *skb = *window->skb;
	const struct nf_hook_state *state = window->packet->lending->state;
	const struct stretch written = { start, start + (int)length };

	switch (state->pf) {
	case NFPROTO_IPV4:
		return header_resized(skb, &written, from) ||
		       options_parsed(state, skb, &written);
	case NFPROTO_IPV6:
		return hops_parsed(state, skb, &written);
	default:
		return false;
	}
}

static int window_write(void *lent, size_t offset, const void *from, size_t length)
{
	const struct window *window = lent;
	struct sk_buff *skb = *window->skb;
	int start;
	int ret;

	if (window->packet) {
		if (window->packet->lending->readonly)
			return -EROFS;
		packet_hide(window->packet);
	}
	ret = window_start(window, offset, length, &start);
	if (ret)
		return ret;
	if (window->packet && relied_upon(window, start, from, length))
		return -EOPNOTSUPP;
	if (skb_shared(skb))
		return -EBUSY;
	ret = packet_join(skb);
	if (ret)
		return ret;
	if (listed(skb) && start + (int)length > (int)skb_headlen(skb))
		return -EOPNOTSUPP;
	ret = skb_ensure_writable(skb, max(start + (int)length, 0));
	if (ret)
		return ret;
	sum_forget(skb);
	memcpy(skb->data + start, from, length);
	return 0;
}

static int window_checksum(const void *lent, size_t offset, size_t length, __wsum *sum)
{
	const struct window *window = lent;
	const struct sk_buff *skb = *window->skb;
	size_t head;
	int start;
	int ret = window_start(window, offset, length, &start);

	if (ret)
		return ret;
	if (start >= 0) {
		*sum = skb_checksum(skb, start, length, 0);
		return 0;
	}
	/* skb_checksum() takes no negative offset: the link header is linear. */
	head = min_t(size_t, length, -start);
	*sum = csum_partial(skb->data + start, head, 0);
	if (head < length)
		*sum = csum_block_add(*sum, skb_checksum(skb, 0, length - head, 0), head);
	return 0;
}

static const struct lunatik_view_ops window_ops = {
	.size = window_size,
	.read = window_read,
	.write = window_write,
	.checksum = window_checksum,
};

/* ---- methods ------------------------------------------------------------ */

static struct packet *packet_check(lua_State *L)
{
	struct packet *packet = lunatik_check(L, 1, &packet_class);

	if (!packet->skb)
		luaL_error(L, "skb is closed");
	return packet;
}

/* The packet, to be changed. */
static struct sk_buff *packet_writable(lua_State *L)
{
	struct packet *packet = packet_check(L);

	if (packet->lending && packet->lending->readonly)
		luaL_error(L, "read only");
	/* pktgen gives the same one to a device again and again. */
	if (skb_shared(packet->skb))
		lunatik_throw(L, EBUSY);
	packet_hide(packet);
	return packet->skb;
}

static int packet_length(lua_State *L)
{
	lua_pushinteger(L, packet_check(L)->skb->len);
	return 1;
}

/* What the packet came in by or goes out by; 0 if unknown yet. */
static int packet_device(const struct packet *packet)
{
	const struct sk_buff *skb = packet->skb;

	if (packet->copy)
		return packet->copy->ifindex;
	return skb->dev ? skb->dev->ifindex : skb->skb_iif;
}

static int packet_ifindex(lua_State *L)
{
	lua_pushinteger(L, packet_device(packet_check(L)));
	return 1;
}

static int packet_vlan(lua_State *L)
{
	const struct sk_buff *skb = packet_check(L)->skb;

	if (skb_vlan_tag_present(skb))
		lua_pushinteger(L, skb_vlan_tag_get_id(skb));
	else
		lua_pushnil(L);
	return 1;
}

static void copy_window_release(struct lunatik_view *view)
{
	struct window *window = container_of(view, struct window, view);

	copy_put(window->copy);
	lunatik_free(window);
}

static void copy_data(lua_State *L, struct copy *copy, enum window_base base)
{
	struct lunatik_object *object = lunatik_view_new(L);
	struct window *window = lunatik_alloc(L, sizeof(*window));

	kref_get(&copy->kref);
	window->copy = copy;
	window->skb = &copy->skb;
	window->base = base;
	window->view.ops = &window_ops;
	window->view.lent = window;
	window->view.release = copy_window_release;
	lunatik_attach(object, &window->view);
}

/* Fragments that were put together are a list, thousands long at worst. */
static size_t pieces(const struct sk_buff *skb)
{
	const struct sk_buff *piece;
	size_t count = 0;

	skb_walk_frags(skb, piece)
		count++;
	return count;
}

static int packet_data(lua_State *L)
{
	static const char *const bases[] = {
		[WINDOW_NET] = "net",
		[WINDOW_MAC] = "mac",
		NULL
	};
	struct packet *packet = packet_check(L);
	enum window_base base = luaL_checkoption(L, 2, "net", bases);
	struct window *window = &packet->windows[base];

	if (packet->copy) {
		copy_data(L, packet->copy, base);
		return 1;
	}
	window->view.far = pieces(packet->skb) / PIECES_A_UNIT;
	lunatik_charge(L, window->view.far);
	window_show(window);
	lunatik_attach(window->object, &window->view);
	lunatik_pushref(L, window->ref);
	return 1;
}

/* Have the account bear @size bytes for a copy, if it does not yet. */
static void copy_account(lua_State *L, struct copy *copy, size_t size)
{
	size_t more;

	if (size <= copy->size)
		return;
	more = size - copy->size;
	/* Finalizers may run, and resize it as well. */
	lunatik_checkaccount(L, copy->runtime, more);
	copy->size += more;
}

/*
 * The shortest that the packet may become: whoever has it next has checked its
 * headers already, and pulls them unasked, and so does whoever is still to
 * fill in its checksum.
 */
static unsigned int packet_least(const struct sk_buff *skb)
{
	int least = skb_network_offset(skb);

	if (skb->protocol == htons(ETH_P_IP))
		least += sizeof(struct iphdr);
	else if (skb->protocol == htons(ETH_P_IPV6))
		least += sizeof(struct ipv6hdr);
	else if (skb->protocol == htons(ETH_P_ARP) && skb->dev)
		least += arp_hdr_len(skb->dev);
	if (skb_transport_header_was_set(skb))
		least = max(least, skb_transport_offset(skb));
	if (skb->ip_summed == CHECKSUM_PARTIAL)
		least = max(least, skb_checksum_start_offset(skb) + skb->csum_offset +
				   (int)sizeof(__sum16));
	return max(least, 0);
}

/*
 * How long a super packet's headers are, those that each of its segments has: in a
 * tunnel up to those of the packet inside.
 */
static int gso_headers(const struct sk_buff *skb)
{
	int transport = skb->encapsulation ? skb_inner_transport_offset(skb) :
					     skb_transport_offset(skb);
	struct tcphdr buffer;
	const struct tcphdr *tcp;

	if (skb_shinfo(skb)->gso_type & SKB_GSO_UDP_L4)
		return transport + sizeof(struct udphdr);
	/* Segments of a datagram are fragments. */
	if (!(skb_shinfo(skb)->gso_type & (SKB_GSO_TCPV4 | SKB_GSO_TCPV6)))
		return transport;
	tcp = skb_header_pointer(skb, transport, sizeof(buffer), &buffer);
	return tcp ? transport + __tcp_hdrlen(tcp) : -EINVAL;
}

/*
 * How many packets are to be cut from this one, and the payload of each but the
 * last. Counted by the length: a guest, or a tap, need not have said how many.
 */
static size_t gso_segments(const struct sk_buff *skb, unsigned int *size)
{
	int headers = gso_headers(skb);
	int payload = headers < 0 ? 0 : (int)skb->len - headers;

	/* Fragments are all of one datagram. */
	*size = skb_shinfo(skb)->gso_type & SKB_GSO_UDP ? skb->len :
							  skb_shinfo(skb)->gso_size;
	return DIV_ROUND_UP(max(payload, 1), skb_shinfo(skb)->gso_size);
}

/* Of a list no piece need be as long as the next: the longest. */
static size_t listed_segments(const struct sk_buff *skb, unsigned int *size)
{
	const struct sk_buff *piece;
	unsigned int most = 0;

	skb_walk_frags(skb, piece)
		most = max(most, piece->len);
	*size = most;
	return pieces(skb);
}

/* segments() -> how many packets this one stands for, the most payload of one */
static int packet_segments(lua_State *L)
{
	const struct sk_buff *skb = packet_check(L)->skb;
	unsigned int size = skb->len;
	size_t count = 1;

	if (listed(skb)) {
		lunatik_charge(L, pieces(skb) / PIECES_A_UNIT);
		count = listed_segments(skb, &size);
	} else if (skb_is_gso(skb)) {
		count = gso_segments(skb, &size);
	}
	lua_pushinteger(L, count);
	lua_pushinteger(L, size);
	return 2;
}

/*
 * What is one segment is no super packet any more, and GSO refuses it. In a
 * tunnel there is nobody else who fills in two sums.
 */
static int gso_shorten(struct sk_buff *skb, unsigned int length)
{
	int headers;

	if (!skb_is_gso(skb))
		return 0;
	if (skb->encapsulation)
		return -EOPNOTSUPP;
	headers = gso_headers(skb);
	if (headers < 0)
		return headers;
	if (length <= headers + skb_shinfo(skb)->gso_size)
		skb_gso_reset(skb);
	return 0;
}

/* More than the device takes. What GSO is still to cut is as long as it likes. */
static bool frame_too_long(const struct sk_buff *skb, const struct net_device *dev,
			   unsigned int length)
{
	return !skb_is_gso(skb) && length > dev->mtu + dev->hard_header_len + VLAN_HLEN;
}

/* Behind these hooks the device gets the packet, and nobody looks at its length again. */
static bool leaves_next(const struct nf_hook_state *state)
{
	return (state->pf == NFPROTO_NETDEV && state->hook == NF_NETDEV_EGRESS) ||
	       (state->pf == NFPROTO_ARP && state->hook == NF_ARP_OUT);
}

/* Longer by zero bytes, or shorter, at the end; headers stay as they are. */
static int packet_resize(lua_State *L)
{
	struct packet *packet = packet_check(L);
	struct sk_buff *skb = packet_writable(L);
	unsigned int length = lunatik_checkrange(L, 2, 0, PACKET_MAX);
	unsigned int more;

	if (packet->copy && length > skb->len)
		copy_account(L, packet->copy, SKB_TRUESIZE(skb_headroom(skb) + length));
	if (length < skb->len && length < packet_least(skb))
		lunatik_throw(L, EINVAL);
	if (listed(skb))
		lunatik_throw(L, EOPNOTSUPP);
	sum_forget(skb);
	lunatik_try(L, packet_join(skb));
	if (length <= skb->len) {
		lunatik_charge(L, pieces(skb) / PIECES_A_UNIT);
		lunatik_try(L, skb_ensure_writable(skb, min(length, skb_headlen(skb))));
		lunatik_try(L, gso_shorten(skb, length));
		lunatik_try(L, pskb_trim(skb, length));
		return 0;
	}

	if (skb_is_gso(skb))
		lunatik_throw(L, EOPNOTSUPP);
	if (packet->lending && leaves_next(packet->lending->state) &&
	    frame_too_long(skb, skb->dev, length))
		lunatik_throw(L, EMSGSIZE);
	more = length - skb->len;
	lunatik_charge(L, length / 32);
	lunatik_try(L, skb_linearize_cow(skb));
	if (skb_tailroom(skb) < more)
		lunatik_try(L, pskb_expand_head(skb, 0, more - skb_tailroom(skb),
						lunatik_gfp(L)));
	/* The allocator may have given more. */
	if (packet->copy)
		copy_account(L, packet->copy, skb->truesize);
	skb_put_zero(skb, more);
	return 0;
}

/*
 * The sum that is still to be filled in may be that of a packet inside this
 * one. GSO fills in both from pseudo headers' sums, a device only that one: so
 * fill it in here, for this one covers it.
 */
static int transport_settle(struct sk_buff *skb, const struct transport *transport)
{
	if (skb->ip_summed != CHECKSUM_PARTIAL || skb_is_gso(skb) ||
	    skb_checksum_start_offset(skb) == transport->start)
		return 0;
	if (skb_csum_is_sctp(skb))
		return -EOPNOTSUPP;
	return skb_checksum_help(skb);
}

/*
 * A tunnel's datagrams need have no sum, and GSO adds none to its segments then:
 * it fills in only what it was told to.
 */
static bool transport_bare(const struct sk_buff *skb, const struct transport *transport)
{
	return skb_is_gso(skb) && transport->protocol == IPPROTO_UDP &&
	       skb_checksum_start_offset(skb) != transport->start &&
	       !(skb_shinfo(skb)->gso_type & SKB_GSO_UDP_TUNNEL_CSUM);
}

static int transport_checksum(struct sk_buff *skb, const struct transport *transport)
{
	int field = transport_field(transport);
	__sum16 sum = 0;
	int ret;

	if (field < 0)
		return 0;
	if (transport->length < field + sizeof(sum))
		return -EINVAL;
	ret = transport_settle(skb, transport);
	if (ret)
		return ret;
	if (skb->ip_summed == CHECKSUM_PARTIAL)
		return transport_bare(skb, transport) ? 0 :
		       transport_partial(skb, transport, field);
	ret = skb_ensure_writable(skb, transport->start + field + sizeof(sum));
	if (ret)
		return ret;
	skb_store_bits(skb, transport->start + field, &sum, sizeof(sum));
	sum = csum_fold(csum_add(transport->pseudo,
				 skb_checksum(skb, transport->start, transport->length, 0)));
	if (!sum && transport->protocol == IPPROTO_UDP)
		sum = CSUM_MANGLED_0;
	skb->ip_summed = CHECKSUM_NONE;
	return skb_store_bits(skb, transport->start + field, &sum, sizeof(sum));
}

/* After a rewrite: IPv4 header, TCP and UDP sums made right. */
static int packet_checksum(lua_State *L)
{
	struct sk_buff *skb = packet_writable(L);
	struct transport transport = {};

	lunatik_charge(L, skb->len / 32);
	lunatik_try(L, packet_join(skb));
	lunatik_try(L, transport_find(skb, &transport));
	lunatik_try(L, transport_checksum(skb, &transport));
	return 0;
}

/* ---- sending ------------------------------------------------------------ */

/* Refuse what the lending has no room, or no way out for. */
static void sending_check(lua_State *L, const struct lunatik_lending *lending)
{
	if (lending->mute)
		lunatik_throw(L, EOPNOTSUPP);
	if (skb_queue_len(&lending->frames) + skb_queue_len(&lending->replies) >= SENDINGS_MAX)
		lunatik_throw(L, ENOBUFS);
}

/* Another packet with the same bytes. The caller owns it: nothing may raise an error. */
static struct sk_buff *packet_duplicate(lua_State *L, const struct sk_buff *skb)
{
	struct sk_buff *copy;

	/* skb_copy() makes one buffer: of the first it warns about that itself. */
	if (chained(skb) || listed(skb))
		lunatik_throw(L, EOPNOTSUPP);
	lunatik_charge(L, COPY_COST + skb->len / 32);
	copy = skb_copy(skb, lunatik_gfp(L) | __GFP_NOWARN);
	if (!copy)
		lunatik_throw(L, ENOMEM);
	return copy;
}

/*
 * Where a copy is sent from: it has no callback to wait for the end of, so it
 * goes out with what the hook that it was made in has a packet for just now.
 */
static struct lunatik_lending *forward_lending(lua_State *L, const struct packet *packet)
{
	struct lunatik_lending *lending = packet->lending;

	if (packet->copy)
		lending = ((struct packet *)lunatik_private(packet->origin))->lending;
	if (!lending)
		luaL_error(L, "a copy is sent from a callback of its own hook only");
	return lending;
}

/* Stays until the lending is sent: hooks run under RCU. */
static struct net_device *forward_device(const struct packet *packet, struct net *net)
{
	if (!packet->copy)
		return packet->skb->dev;
	return packet->copy->net == net->net_cookie ?
	       dev_get_by_index_rcu(net, packet->copy->ifindex) : NULL;
}

/* A routed packet has its way out already, and still the header that it came with. */
static bool link_of_way_in(const struct nf_hook_state *state)
{
	return (state->pf == NFPROTO_IPV4 || state->pf == NFPROTO_IPV6) &&
	       state->hook == NF_INET_POST_ROUTING;
}

/* Send a copy out of the packet's own device, link header included. */
static int packet_forward(lua_State *L)
{
	struct packet *packet = packet_check(L);
	struct lunatik_lending *lending = forward_lending(L, packet);
	struct net_device *dev = forward_device(packet, lending->state->net);
	struct sk_buff *skb = packet->skb;
	struct sk_buff *frame;

	if (!dev || !link_present(skb) || link_of_way_in(lending->state) ||
	    skb_network_offset(skb) - skb_mac_offset(skb) < dev->min_header_len)
		lunatik_throw(L, EINVAL);
	if (frame_too_long(skb, dev, skb->len - skb_mac_offset(skb)))
		lunatik_throw(L, EMSGSIZE);
	sending_check(L, lending);
	frame = packet_duplicate(L, skb);
	frame->dev = dev;
	/* When it came is not when it is to be sent. */
	skb_clear_tstamp(frame);
	nf_reset_ct(frame);
	skb_push(frame, -skb_mac_offset(frame));
	__skb_queue_tail(&lending->frames, frame);
	return 0;
}

/*
 * Whom to answer: a packet of IP at a hook of IP where routes are known, or
 * can be looked up, so not after routing is done.
 */
static struct packet *answerable_check(lua_State *L)
{
	struct packet *packet = packet_check(L);
	const struct lunatik_lending *lending = packet->lending;
	u8 pf = lending ? lending->state->pf : NFPROTO_UNSPEC;

	if ((pf != NFPROTO_IPV4 && pf != NFPROTO_IPV6) || lending->mute ||
	    lending->state->hook == NF_INET_POST_ROUTING)
		lunatik_throw(L, EOPNOTSUPP);
	return packet;
}

/* Answer a TCP segment with a reset. */
static int packet_reset(lua_State *L)
{
	answerable_check(L)->lending->reset = true;
	return 0;
}

/* Answer with ICMP's destination unreachable; the code is "port" if not given. */
static int packet_unreachable(lua_State *L)
{
	struct lunatik_lending *lending = answerable_check(L)->lending;
	int port = lending->state->pf == NFPROTO_IPV4 ? ICMP_PORT_UNREACH :
							ICMPV6_PORT_UNREACH;

	lending->unreachable = lunatik_optrange(L, 2, port, 0, 15);
	return 0;
}

/* Where a datagram came from and went to. */
struct datagram {
	const struct iphdr *ip;
	const struct ipv6hdr *ip6;
	struct udphdr udp;
};

static int datagram_read(const struct sk_buff *skb, u8 pf, struct datagram *datagram)
{
	int offset = skb_network_offset(skb);
	__be16 fragment = 0;
	u8 protocol;

	if (pf == NFPROTO_IPV4) {
		datagram->ip = ip_hdr(skb);
		protocol = ip_is_fragment(datagram->ip) ? 0 : datagram->ip->protocol;
		offset += datagram->ip->ihl * 4;
	} else {
		datagram->ip6 = ipv6_hdr(skb);
		protocol = datagram->ip6->nexthdr;
		offset = ipv6_skip_exthdr(skb, offset + sizeof(*datagram->ip6), &protocol,
					  &fragment);
	}
	if (offset < 0 || protocol != IPPROTO_UDP || fragment)
		return -EPROTONOSUPPORT;
	return skb_copy_bits(skb, offset, &datagram->udp, sizeof(datagram->udp));
}

/* The device whose side of the machine a packet is on. */
static const struct net_device *state_device(const struct nf_hook_state *state)
{
	return state->in ? state->in : state->out;
}

/* What the routes of this machine, or of the device's VRF, know of an address. */
static unsigned int address_type(const struct nf_hook_state *state, __be32 address)
{
	return inet_addr_type_dev_table(state->net, state_device(state), address);
}

static bool ipv4_is_unicast(const struct nf_hook_state *state, __be32 address)
{
	return !ipv4_is_multicast(address) && !ipv4_is_lbcast(address) &&
	       address_type(state, address) != RTN_BROADCAST;
}

/* An address of another link, or of another VRF, is a stranger's here. */
static bool ipv6_is_local(const struct nf_hook_state *state, const struct in6_addr *address)
{
#if IS_REACHABLE(CONFIG_NF_REJECT_IPV6)
	return ipv6_addr_loopback(address) || ipv6_chk_addr(state->net, address, state->in, 0);
#else
	return false;
#endif
}

/* A VRF has the packets of its devices come in once more, as its own. */
static bool is_from_here(const struct sk_buff *skb, const struct nf_hook_state *state)
{
	int first = state->pf == NFPROTO_IPV4 ? IPCB(skb)->iif : IP6CB(skb)->iif;

	return state->in->flags & IFF_LOOPBACK ||
	       (netif_is_l3_master(state->in) && first == state->in->ifindex);
}

/* Does it come over a wire and say that this machine has sent it? */
static bool is_forged(const struct packet *packet, const struct datagram *datagram)
{
	const struct nf_hook_state *state = packet->lending->state;

	if (!state->in || is_from_here(packet->skb, state))
		return false;
	if (datagram->ip6)
		return ipv6_is_local(state, &datagram->ip6->saddr);
	return ipv4_is_loopback(datagram->ip->saddr) ||
	       address_type(state, datagram->ip->saddr) == RTN_LOCAL;
}

/*
 * No answer is from, or for, more than one: not even when it is a subnet's
 * broadcast address. Before routing has looked at it, a packet may say of any
 * that it comes from there.
 */
static bool datagram_unicast(const struct packet *packet, const struct datagram *datagram)
{
	const struct nf_hook_state *state = packet->lending->state;
	const struct sk_buff *skb = packet->skb;
	const struct iphdr *ip = datagram->ip;
	const struct ipv6hdr *ip6 = datagram->ip6;

	if (ip6)
		return ipv6_addr_type(&ip6->saddr) & ipv6_addr_type(&ip6->daddr) &
		       IPV6_ADDR_UNICAST;
	if (skb_valid_dst(skb) && skb_rtable(skb)->rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST))
		return false;
	return ipv4_is_unicast(state, ip->saddr) && ipv4_is_unicast(state, ip->daddr);
}

static void reply_udp(struct sk_buff *reply, const struct datagram *datagram)
{
	struct udphdr *udp = skb_push(reply, sizeof(*udp));

	skb_reset_transport_header(reply);
	udp->source = datagram->udp.dest;
	udp->dest = datagram->udp.source;
	udp->len = htons(reply->len);
	udp->check = 0;
}

static void reply_ipv4(struct sk_buff *reply, const struct datagram *datagram)
{
	unsigned int length = reply->len;
	struct iphdr *ip = skb_push(reply, sizeof(*ip));

	skb_reset_network_header(reply);
	memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->protocol = IPPROTO_UDP;
	ip->ttl = IPDEFTTL;
	ip->saddr = datagram->ip->daddr;
	ip->daddr = datagram->ip->saddr;
	udp_hdr(reply)->check = csum_tcpudp_magic(ip->saddr, ip->daddr, length, IPPROTO_UDP,
						  csum_partial(udp_hdr(reply), length, 0));
	reply->protocol = htons(ETH_P_IP);
}

static void reply_ipv6(struct sk_buff *reply, const struct datagram *datagram)
{
	unsigned int length = reply->len;
	struct ipv6hdr *ip = skb_push(reply, sizeof(*ip));

	skb_reset_network_header(reply);
	memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->nexthdr = IPPROTO_UDP;
	ip->hop_limit = IPDEFTTL;
	ip->payload_len = htons(length);
	ip->saddr = datagram->ip6->daddr;
	ip->daddr = datagram->ip6->saddr;
	udp_hdr(reply)->check = csum_ipv6_magic(&ip->saddr, &ip->daddr, length, IPPROTO_UDP,
						csum_partial(udp_hdr(reply), length, 0));
	reply->protocol = htons(ETH_P_IPV6);
}

/* Answer a UDP datagram with another, whose payload the script gives. */
static int packet_reply(lua_State *L)
{
	struct packet *packet = answerable_check(L);
	struct lunatik_lending *lending = packet->lending;
	unsigned int headers = sizeof(struct ipv6hdr) + sizeof(struct udphdr);
	struct datagram datagram = {};
	struct sk_buff *reply;
	const char *payload;
	size_t length;

	payload = luaL_checklstring(L, 2, &length);
	if (length > PACKET_MAX - headers)
		lunatik_throw(L, EMSGSIZE);
	sending_check(L, lending);
	lunatik_try(L, datagram_read(packet->skb, lending->state->pf, &datagram));
	if (!datagram_unicast(packet, &datagram) || is_forged(packet, &datagram))
		lunatik_throw(L, EADDRNOTAVAIL);
	lunatik_charge(L, length / 16);

	reply = alloc_skb(LL_MAX_HEADER + headers + length, GFP_ATOMIC | __GFP_NOWARN);
	if (!reply)
		lunatik_throw(L, ENOMEM);
	__skb_queue_tail(&lending->replies, reply);
	skb_reserve(reply, LL_MAX_HEADER + headers);
	skb_put_data(reply, payload, length);
	reply_udp(reply, &datagram);
	if (datagram.ip)
		reply_ipv4(reply, &datagram);
	else
		reply_ipv6(reply, &datagram);
	if (!udp_hdr(reply)->check)
		udp_hdr(reply)->check = CSUM_MANGLED_0;
	return 0;
}

/* Let go of what the network would have to wait for. */
static void copy_detach(struct sk_buff *skb)
{
	skb->dev = NULL;
	nf_reset_ct(skb);
	skb_dst_drop(skb);
	skb_ext_reset(skb);
}

static int packet_copy(lua_State *L)
{
	const struct packet *from = packet_check(L);
	struct packet *packet = lunatik_new(L, &packet_class, sizeof(*packet));
	struct copy *copy = lunatik_alloc(L, sizeof(*copy));

	kref_init(&copy->kref);
	copy->runtime = lunatik_toruntime(L);
	copy->ifindex = packet_device(from);
	copy->net = from->copy ? from->copy->net : from->lending->state->net->net_cookie;
	packet->origin = lunatik_object_get(from->copy ? from->origin : lunatik_object(L, 1));
	packet->copy = copy;

	copy_account(L, copy, SKB_TRUESIZE(skb_end_offset(from->skb) + from->skb->data_len));
	copy->skb = packet_duplicate(L, from->skb);
	copy_detach(copy->skb);
	/* The allocator may have given more. */
	copy_account(L, copy, copy->skb->truesize);
	packet->skb = copy->skb;
	return 1;
}

/*
 * The packet's connection; NULL if it has none. A rule may have given it a
 * template, for conntrack to make one by, which is all CPUs' and no connection.
 */
static struct nf_conn *packet_connection(lua_State *L, enum ip_conntrack_info *info)
{
	struct nf_conn *ct = nf_ct_get(packet_check(L)->skb, info);

	return ct && !nf_ct_is_template(ct) ? ct : NULL;
}

/* Whoever listens to conntrack is told, as by nft. */
static void connmark_set(struct nf_conn *ct, u32 mark)
{
	if (READ_ONCE(ct->mark) == mark)
		return;
	WRITE_ONCE(ct->mark, mark);
	nf_conntrack_event_cache(IPCT_MARK, ct);
}

static int packet_connmark(lua_State *L)
{
	enum ip_conntrack_info info;
	struct nf_conn *ct = packet_connection(L, &info);

	if (!ct) {
		lua_pushnil(L);
		return 1;
	}
	if (!lua_isnoneornil(L, 2))
		connmark_set(ct, lunatik_checkrange(L, 2, 0, U32_MAX));
	lua_pushinteger(L, READ_ONCE(ct->mark));
	return 1;
}

static int packet_mark(lua_State *L)
{
	struct packet *packet = packet_check(L);

	if (!lua_isnoneornil(L, 2))
		packet->skb->mark = lunatik_checkrange(L, 2, 0, U32_MAX);
	lua_pushinteger(L, packet->skb->mark);
	return 1;
}

/* conntrack() -> id, info, status: the connection of the packet; nil if it has none */
static int packet_conntrack(lua_State *L)
{
	enum ip_conntrack_info info;
	const struct nf_conn *ct = packet_connection(L, &info);

	if (!ct) {
		lua_pushnil(L);
		return 1;
	}
	lua_pushinteger(L, ntohl((__force __be32)nf_ct_get_id(ct)));
	lua_pushinteger(L, info);
	lua_pushinteger(L, READ_ONCE(ct->status));
	return 3;
}

/* traffic() -> packets, bytes, and those of replies; nil if nobody counts */
static int packet_traffic(lua_State *L)
{
	enum ip_conntrack_info info;
	struct nf_conn *ct = packet_connection(L, &info);
	const struct nf_conn_acct *acct = ct ? nf_conn_acct_find(ct) : NULL;
	int i;

	if (!acct) {
		lua_pushnil(L);
		return 1;
	}
	for (i = 0; i < IP_CT_DIR_MAX; i++) {
		lua_pushinteger(L, atomic64_read(&acct->counter[i].packets));
		lua_pushinteger(L, atomic64_read(&acct->counter[i].bytes));
	}
	return 2 * IP_CT_DIR_MAX;
}

/*
 * tuple(["original"|"reply"]) -> source, destination, protocol, port, port: a
 * direction of the connection, as it was before, or will be after, translation
 */
static int packet_tuple(lua_State *L)
{
	static const char *const directions[] = {
		[IP_CT_DIR_ORIGINAL] = "original",
		[IP_CT_DIR_REPLY] = "reply",
		NULL
	};
	enum ip_conntrack_info info;
	struct nf_conn *ct = packet_connection(L, &info);
	int direction = luaL_checkoption(L, 2, "original", directions);
	const struct nf_conntrack_tuple *tuple;
	size_t size;

	if (!ct) {
		lua_pushnil(L);
		return 1;
	}
	tuple = nf_ct_tuple(ct, direction);
	size = nf_ct_l3num(ct) == NFPROTO_IPV4 ? sizeof(tuple->src.u3.ip) : sizeof(tuple->src.u3);
	lua_pushlstring(L, (const char *)&tuple->src.u3, size);
	lua_pushlstring(L, (const char *)&tuple->dst.u3, size);
	lua_pushinteger(L, tuple->dst.protonum);
	lua_pushinteger(L, ntohs(tuple->src.u.all));
	lua_pushinteger(L, ntohs(tuple->dst.u.all));
	return 5;
}

static void packet_release(void *private)
{
	struct packet *packet = private;
	int i;

	if (packet->copy) {
		copy_put(packet->copy);
		lunatik_object_put(packet->origin);
	}
	for (i = 0; i < WINDOW_BASES; i++) {
		if (!packet->windows[i].object)
			continue;
		lunatik_attach(packet->windows[i].object, NULL);
		lunatik_object_put(packet->windows[i].object);
	}
}

static const luaL_Reg packet_methods[] = {
	{ "__len", packet_length },
	{ "ifindex", packet_ifindex },
	{ "vlan", packet_vlan },
	{ "data", packet_data },
	{ "resize", packet_resize },
	{ "segments", packet_segments },
	{ "checksum", packet_checksum },
	{ "forward", packet_forward },
	{ "copy", packet_copy },
	{ "connmark", packet_connmark },
	{ "mark", packet_mark },
	{ "conntrack", packet_conntrack },
	{ "traffic", packet_traffic },
	{ "tuple", packet_tuple },
	{ "reply", packet_reply },
	{ "reset", packet_reset },
	{ "unreachable", packet_unreachable },
	{ NULL, NULL }
};

static const struct lunatik_class packet_class = {
	.name = "skb",
	.flags = LUNATIK_SINGLE,
	.methods = packet_methods,
	.release = packet_release,
	.owner = THIS_MODULE,
};

/* ---- for hooks ---------------------------------------------------------- */

void lunatik_packet_new(lua_State *L, struct lunatik_packet *lent)
{
	struct packet *packet = lunatik_new(L, &packet_class, sizeof(*packet));
	int i;

	for (i = 0; i < WINDOW_BASES; i++)
		packet->windows[i].ref = LUA_NOREF;
	lent->ref = lunatik_ref(L, -1);
	lent->skb = packet;
	for (i = 0; i < WINDOW_BASES; i++) {
		struct window *window = &packet->windows[i];

		window->packet = packet;
		window->skb = &packet->skb;
		window->base = i;
		window->view.ops = &window_ops;
		window->view.lent = window;
		window->object = lunatik_object_get(lunatik_view_new(L));
		window->ref = lunatik_ref(L, -1);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}
EXPORT_SYMBOL_GPL(lunatik_packet_new);

void lunatik_packet_drop(lua_State *L, struct lunatik_packet *lent)
{
	struct packet *packet = lent->skb;
	int i;

	if (!packet)
		return;
	for (i = 0; i < WINDOW_BASES; i++)
		lunatik_unref(L, packet->windows[i].ref);
	lunatik_unref(L, lent->ref);
	lent->skb = NULL;
}
EXPORT_SYMBOL_GPL(lunatik_packet_drop);

void lunatik_lending_init(struct lunatik_lending *lending, struct sk_buff *skb,
			  const struct nf_hook_state *state)
{
	lending->skb = skb;
	lending->state = state;
	lending->readonly = false;
	lending->mute = false;
	lending->reset = false;
	lending->unreachable = -1;
	__skb_queue_head_init(&lending->frames);
	__skb_queue_head_init(&lending->replies);
}
EXPORT_SYMBOL_GPL(lunatik_lending_init);

void lunatik_packet_lend(lua_State *L, struct lunatik_packet *lent,
			 struct lunatik_lending *lending)
{
	struct packet *packet = lent->skb;

	lunatik_pushref(L, lent->ref);
	packet->lending = lending;
	packet->skb = lending->skb;
}
EXPORT_SYMBOL_GPL(lunatik_packet_lend);

void lunatik_packet_return(struct lunatik_packet *lent)
{
	struct packet *packet = lent->skb;
	int i;

	packet->skb = NULL;
	packet->lending = NULL;
	for (i = 0; i < WINDOW_BASES; i++)
		lunatik_attach(packet->windows[i].object, NULL);
}
EXPORT_SYMBOL_GPL(lunatik_packet_return);

/* ---- what was asked for, sent with no lock held -------------------------- */

/* Set, with bottom halves disabled, while this CPU sends for a script. */
static DEFINE_PER_CPU(bool, sending);

bool lunatik_packet_sending(void)
{
	return raw_cpu_read(sending) && softirq_count();
}
EXPORT_SYMBOL_GPL(lunatik_packet_sending);

/* The address that it answers from need not be one of this machine's. */
static void reply_send_ipv4(const struct nf_hook_state *state, struct sk_buff *reply)
{
	struct flowi4 flow = {
		.daddr = ip_hdr(reply)->daddr,
		.saddr = ip_hdr(reply)->saddr,
		.fl4_sport = udp_hdr(reply)->source,
		.fl4_dport = udp_hdr(reply)->dest,
		.flowi4_proto = IPPROTO_UDP,
		.flowi4_flags = FLOWI_FLAG_ANYSRC,
		.flowi4_mark = reply->mark,
		.flowi4_l3mdev = l3mdev_master_ifindex_rcu(state_device(state)),
	};
	/* By IPsec's policies, too. */
	struct rtable *route = ip_route_output_key(state->net, &flow);

	if (IS_ERR(route)) {
		kfree_skb(reply);
		return;
	}
	skb_dst_set(reply, &route->dst);
	if (route->rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST)) {
		kfree_skb(reply);
		return;
	}
	/* It may be cut into fragments. */
	ip_select_ident(state->net, reply, NULL);
	ip_local_out(state->net, NULL, reply);
}

static void reply_send_ipv6(const struct nf_hook_state *state, struct sk_buff *reply)
{
#if IS_REACHABLE(CONFIG_NF_REJECT_IPV6)
	struct flowi6 flow = {
		.daddr = ipv6_hdr(reply)->daddr,
		.saddr = ipv6_hdr(reply)->saddr,
		.fl6_sport = udp_hdr(reply)->source,
		.fl6_dport = udp_hdr(reply)->dest,
		.flowi6_proto = IPPROTO_UDP,
		.flowi6_mark = reply->mark,
		.flowi6_oif = l3mdev_master_ifindex_rcu(state_device(state)),
	};
	struct dst_entry *dst;

	/* A link-local address says nothing without its link. */
	if (ipv6_addr_type(&flow.daddr) & IPV6_ADDR_LINKLOCAL)
		flow.flowi6_oif = reply->skb_iif;
	dst = ip6_route_output(state->net, NULL, &flow);
	if (!dst->error) {
		/* Routes of IPv6 do not ask for IPsec's policies. */
		dst = xfrm_lookup(state->net, dst, flowi6_to_flowi(&flow), NULL, 0);
		if (IS_ERR(dst))
			goto drop;
		skb_dst_set(reply, dst);
		ip6_local_out(state->net, NULL, reply);
		return;
	}
	dst_release(dst);
drop:
#endif
	kfree_skb(reply);
}

/*
 * So that translated addresses are translated back. But to a connection that only
 * begins and that nobody has translated yet, the answer would be its first packet:
 * the rules for the source would be asked about that, and never about the packet.
 */
static void reply_join(struct sk_buff *reply, const struct sk_buff *skb, bool dropped)
{
	enum ip_conntrack_info info;
	struct nf_conn *connection = nf_ct_get(skb, &info);

	if (!connection || dropped || nf_ct_is_confirmed(connection) ||
	    connection->status & IPS_DST_NAT)
		nf_ct_attach(reply, skb);
	else
		nf_ct_set(reply, NULL, IP_CT_UNTRACKED);
}

static void reply_send(const struct lunatik_lending *lending, struct sk_buff *reply,
		       bool dropped)
{
	reply->mark = lending->skb->mark;
	reply->skb_iif = lending->skb->skb_iif;
	/* Else IPv6 tells the address answered for that its packet is too big. */
	reply->ignore_df = true;
	reply_join(reply, lending->skb, dropped);
	if (lending->state->pf == NFPROTO_IPV4)
		reply_send_ipv4(lending->state, reply);
	else
		reply_send_ipv6(lending->state, reply);
}

static void reset_send(const struct lunatik_lending *lending)
{
	const struct nf_hook_state *state = lending->state;

	if (state->pf == NFPROTO_IPV4)
		nf_send_reset(state->net, state->sk, lending->skb, state->hook);
#if IS_REACHABLE(CONFIG_NF_REJECT_IPV6)
	else
		nf_send_reset6(state->net, state->sk, lending->skb, state->hook);
#endif
}

static void unreachable_send(const struct lunatik_lending *lending)
{
	const struct nf_hook_state *state = lending->state;

	if (state->pf == NFPROTO_IPV4)
		nf_send_unreach(lending->skb, lending->unreachable, state->hook);
#if IS_REACHABLE(CONFIG_NF_REJECT_IPV6)
	else
		nf_send_unreach6(state->net, lending->skb, lending->unreachable, state->hook);
#endif
}

void lunatik_lending_send(struct lunatik_lending *lending, bool dropped)
{
	struct sk_buff *skb;
	bool routed;

	if (likely(lunatik_lending_idle(lending)))
		return;

	local_bh_disable();
	__this_cpu_write(sending, true);
	while ((skb = __skb_dequeue(&lending->frames)))
		dev_queue_xmit(skb);
	while ((skb = __skb_dequeue(&lending->replies)))
		reply_send(lending, skb, dropped);

	/*
	 * Before routing these leave the way of the answer on the packet, also
	 * in place of what a tunnel knows of it, which is no way.
	 */
	routed = skb_valid_dst(lending->skb);
	if (lending->reset)
		reset_send(lending);
	if (lending->unreachable >= 0)
		unreachable_send(lending);
	if (!routed && skb_valid_dst(lending->skb))
		skb_dst_drop(lending->skb);
	__this_cpu_write(sending, false);
	local_bh_enable();
}
EXPORT_SYMBOL_GPL(lunatik_lending_send);

static const struct lunatik_library skb_library = {
	.name = "skb",
	.contexts = LUNATIK_SOFTIRQ,
};

LUNATIK_LIBRARY(skb, skb_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: packets");

// SPDX-License-Identifier: GPL-2.0-only
/*
 * skb - the packet that a hook is looking at
 *
 * A hook's packet belongs to the network stack: it is lent for one callback,
 * under the runtime's lock, and may be paged, cloned or a GSO super packet.
 * So nothing here keeps a pointer into it: bytes are copied out from wherever
 * they are, and each write first makes the part that it touches linear and
 * private. A copy (skb:copy()) belongs to the script, until it is collected.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/if_vlan.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/kref.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/checksum.h>
#include <net/ip.h>
#include <net/ip6_checksum.h>
#include <net/netfilter/nf_conntrack.h>

#include "lunatik_data.h"
#include "lunatik_skb.h"

/* Largest packet that resize() makes: what fits the IPv4 length field. */
#define PACKET_MAX	65535

enum window_base {
	WINDOW_NET,
	WINDOW_MAC,
	WINDOW_BASES
};

/* A copy's buffer, kept by its object and by every view of it. */
struct copy {
	struct kref kref;
	struct sk_buff *skb;
};

/*
 * What a view lends. Two of them come with a hook's packet, and are opened for
 * each callback; each view of a copy has its own and holds the copy.
 */
struct window {
	struct lunatik_view view;
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
	struct copy *copy;			/* NULL for a hook's packet */
	struct window windows[WINDOW_BASES];	/* of a hook's packet */
};

static const struct lunatik_class packet_class;

static void copy_free(struct kref *kref)
{
	struct copy *copy = container_of(kref, struct copy, kref);

	dev_kfree_skb_any(copy->skb);
	lunatik_free(copy);
}

static void copy_put(struct copy *copy)
{
	kref_put(&copy->kref, copy_free);
}

static int base_offset(const struct sk_buff *skb, enum window_base base)
{
	if (base == WINDOW_MAC && skb_mac_header_was_set(skb))
		return skb_mac_offset(skb);
	return skb_network_offset(skb);
}

/* ---- windows ------------------------------------------------------------ */

static size_t window_size(const void *lent)
{
	const struct window *window = lent;

	return (int)(*window->skb)->len - base_offset(*window->skb, window->base);
}

static int window_read(const void *lent, size_t offset, void *to, size_t length)
{
	const struct window *window = lent;
	const struct sk_buff *skb = *window->skb;

	return skb_copy_bits(skb, base_offset(skb, window->base) + (int)offset, to, length);
}

static int window_write(void *lent, size_t offset, const void *from, size_t length)
{
	const struct window *window = lent;
	struct sk_buff *skb = *window->skb;
	int start = base_offset(skb, window->base) + (int)offset;
	int ret = skb_ensure_writable(skb, max(start + (int)length, 0));

	if (ret)
		return ret;
	memcpy(skb->data + start, from, length);
	return 0;
}

static int window_checksum(const void *lent, size_t offset, size_t length, __wsum *sum)
{
	const struct window *window = lent;
	const struct sk_buff *skb = *window->skb;
	int start = base_offset(skb, window->base) + (int)offset;
	size_t head;

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

static int packet_length(lua_State *L)
{
	lua_pushinteger(L, packet_check(L)->skb->len);
	return 1;
}

static int packet_ifindex(lua_State *L)
{
	const struct sk_buff *skb = packet_check(L)->skb;

	lua_pushinteger(L, skb->dev ? skb->dev->ifindex : skb->skb_iif);
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
	lunatik_attach(window->object, &window->view);
	lunatik_pushref(L, window->ref);
	return 1;
}

/* Longer by zero bytes, or shorter, at the end; headers stay as they are. */
static int packet_resize(lua_State *L)
{
	struct sk_buff *skb = packet_check(L)->skb;
	unsigned int length = lunatik_checkrange(L, 2, 0, PACKET_MAX);
	unsigned int more;

	if (length <= skb->len) {
		lunatik_try(L, skb_ensure_writable(skb, min(length, skb_headlen(skb))));
		lunatik_try(L, pskb_trim(skb, length));
		return 0;
	}

	if (skb_is_gso(skb))
		lunatik_throw(L, EOPNOTSUPP);
	more = length - skb->len;
	lunatik_charge(L, length / 32);
	lunatik_try(L, skb_linearize_cow(skb));
	if (skb_tailroom(skb) < more)
		lunatik_try(L, pskb_expand_head(skb, 0, more - skb_tailroom(skb),
						lunatik_gfp(L)));
	skb_put_zero(skb, more);
	return 0;
}

/* What the transport checksum covers: @start is relative to skb->data. */
struct transport {
	int start;
	unsigned int length;
	u8 protocol;
	__wsum pseudo;
};

static int transport_ipv4(struct sk_buff *skb, struct transport *transport)
{
	int offset = skb_network_offset(skb);
	struct iphdr *header;
	unsigned int size;
	int ret = skb_ensure_writable(skb, offset + sizeof(*header));

	if (ret)
		return ret;
	size = ip_hdr(skb)->ihl * 4;
	ret = skb_ensure_writable(skb, offset + size);
	if (ret)
		return ret;
	header = ip_hdr(skb);
	if (size < sizeof(*header) || ntohs(header->tot_len) < size ||
	    ntohs(header->tot_len) > skb->len - offset)
		return -EINVAL;
	ip_send_check(header);
	transport->start = offset + size;
	transport->length = ntohs(header->tot_len) - size;
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
	int ret = skb_ensure_writable(skb, offset + sizeof(*header));

	if (ret)
		return ret;
	protocol = ipv6_hdr(skb)->nexthdr;
	start = ipv6_skip_exthdr(skb, offset + sizeof(*header), &protocol, &fragment);
	header = ipv6_hdr(skb);
	if (start < 0 || ntohs(header->payload_len) + sizeof(*header) > skb->len - offset)
		return -EINVAL;
	transport->start = start;
	transport->length = offset + sizeof(*header) + ntohs(header->payload_len) - start;
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

static int transport_checksum(struct sk_buff *skb, const struct transport *transport)
{
	int field = transport_field(transport);
	__sum16 sum = 0;
	int ret;

	if (field < 0)
		return 0;
	if (transport->length < field + sizeof(sum))
		return -EINVAL;
	/* The device, or GSO, fills it in from the pseudo header's sum. */
	if (skb->ip_summed == CHECKSUM_PARTIAL) {
		sum = ~csum_fold(transport->pseudo);
		return skb_store_bits(skb, transport->start + field, &sum, sizeof(sum));
	}
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
	struct sk_buff *skb = packet_check(L)->skb;
	struct transport transport = {};
	int ret;

	lunatik_charge(L, skb->len / 32);
	switch (skb->protocol) {
	case htons(ETH_P_IP):
		ret = transport_ipv4(skb, &transport);
		break;
	case htons(ETH_P_IPV6):
		ret = transport_ipv6(skb, &transport);
		break;
	default:
		ret = -EPROTONOSUPPORT;
	}
	lunatik_try(L, ret);
	lunatik_try(L, transport_checksum(skb, &transport));
	return 0;
}

/* Send a copy out of the packet's own device, link header included. */
static int packet_forward(lua_State *L)
{
	struct sk_buff *skb = packet_check(L)->skb;
	struct sk_buff *copy;

	if (!skb->dev || !skb_mac_header_was_set(skb))
		lunatik_throw(L, EINVAL);
	copy = skb_copy(skb, lunatik_gfp(L));
	if (!copy)
		lunatik_throw(L, ENOMEM);
	skb_push(copy, -skb_mac_offset(copy));
	dev_queue_xmit(copy);
	return 0;
}

static int packet_copy(lua_State *L)
{
	struct sk_buff *skb = packet_check(L)->skb;
	struct packet *packet = lunatik_new(L, &packet_class, sizeof(*packet));
	struct copy *copy = lunatik_alloc(L, sizeof(*copy));

	copy->skb = skb_copy(skb, lunatik_gfp(L));
	if (!copy->skb) {
		lunatik_free(copy);
		lunatik_throw(L, ENOMEM);
	}
	kref_init(&copy->kref);
	packet->copy = copy;
	packet->skb = copy->skb;
	return 1;
}

static int packet_connmark(lua_State *L)
{
	struct sk_buff *skb = packet_check(L)->skb;
	enum ip_conntrack_info info;
	struct nf_conn *ct = nf_ct_get(skb, &info);

	if (!ct) {
		lua_pushnil(L);
		return 1;
	}
	if (!lua_isnoneornil(L, 2))
		WRITE_ONCE(ct->mark, (u32)lunatik_checkrange(L, 2, 0, U32_MAX));
	lua_pushinteger(L, READ_ONCE(ct->mark));
	return 1;
}

static void packet_release(void *private)
{
	struct packet *packet = private;
	int i;

	if (packet->copy)
		copy_put(packet->copy);
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
	{ "checksum", packet_checksum },
	{ "forward", packet_forward },
	{ "copy", packet_copy },
	{ "connmark", packet_connmark },
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

	for (i = 0; i < WINDOW_BASES; i++) {
		struct window *window = &packet->windows[i];

		window->skb = &packet->skb;
		window->base = i;
		window->view.ops = &window_ops;
		window->view.lent = window;
		window->object = lunatik_object_get(lunatik_view_new(L));
		window->ref = lunatik_ref(L, -1);
		lua_pop(L, 1);
	}
	lent->skb = packet;
	lent->ref = lunatik_ref(L, -1);
	lua_pop(L, 1);
}
EXPORT_SYMBOL_GPL(lunatik_packet_new);

void lunatik_packet_lend(lua_State *L, struct lunatik_packet *lent, struct sk_buff *skb)
{
	struct packet *packet = lent->skb;

	lunatik_pushref(L, lent->ref);
	packet->skb = skb;
}
EXPORT_SYMBOL_GPL(lunatik_packet_lend);

void lunatik_packet_return(struct lunatik_packet *lent)
{
	struct packet *packet = lent->skb;
	int i;

	packet->skb = NULL;
	for (i = 0; i < WINDOW_BASES; i++)
		lunatik_attach(packet->windows[i].object, NULL);
}
EXPORT_SYMBOL_GPL(lunatik_packet_return);

static const struct lunatik_library skb_library = {
	.name = "skb",
	.contexts = LUNATIK_SOFTIRQ,
};

LUNATIK_LIBRARY(skb, skb_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: packets");

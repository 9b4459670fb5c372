/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lunatik_skb.h - packets that a hook lends to a script
 *
 * A hook makes one packet object while its script registers it, and lends a
 * packet through it for the length of each callback. After that every method
 * of the object, and of views that the script took from it, says "closed".
 */
#ifndef LUNATIK_SKB_H
#define LUNATIK_SKB_H

#include "lunatik.h"

struct sk_buff;

/**
 * struct lunatik_packet - a hook's packet object, in its runtime
 * @ref: the object, as for lunatik_pushref()
 * @skb: the class's private data, for lunatik_packet_lend()
 *
 * Embed it in the hook. Valid as long as the Lua state.
 */
struct lunatik_packet {
	int ref;
	void *skb;
};

/* Make the object. In the body of a script; may raise errors. */
void lunatik_packet_new(lua_State *L, struct lunatik_packet *packet);

/*
 * Push the object, open for @skb; and close it again. Inside lunatik_run(),
 * before and after the script is called; the latter also after errors, and
 * outside of the handler only as long as the state is known to live.
 */
void lunatik_packet_lend(lua_State *L, struct lunatik_packet *packet, struct sk_buff *skb);
void lunatik_packet_return(struct lunatik_packet *packet);

#endif /* LUNATIK_SKB_H */

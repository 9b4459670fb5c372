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

#include <linux/skbuff.h>

#include "lunatik.h"

struct nf_hook_state;

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
 * Give it back, if no hook will lend a packet through it: also what an error
 * of lunatik_packet_new() left. @packet may be all zeroes.
 */
void lunatik_packet_drop(lua_State *L, struct lunatik_packet *packet);

/**
 * struct lunatik_lending - a packet, for the length of one callback
 * @skb: the packet; the hook's
 * @state: where it is met
 * @readonly: the script may not change its bytes; set it before lending
 * @mute: nothing can be sent from here; set it before lending
 *
 * The rest is what the script asks for meanwhile. On the stack of the hook.
 */
struct lunatik_lending {
	struct sk_buff *skb;
	const struct nf_hook_state *state;
	bool readonly;
	bool mute;
	/* private: */
	bool reset;
	int unreachable;
	struct sk_buff_head frames;
	struct sk_buff_head replies;
};

void lunatik_lending_init(struct lunatik_lending *lending, struct sk_buff *skb,
			  const struct nf_hook_state *state);

/*
 * Push the object, open for a packet; and close it again. Inside lunatik_run(),
 * before and after the script is called; the latter also after errors, and
 * outside of the handler only as long as the state is known to live.
 */
void lunatik_packet_lend(lua_State *L, struct lunatik_packet *packet,
			 struct lunatik_lending *lending);
void lunatik_packet_return(struct lunatik_packet *packet);

/*
 * After lunatik_run(), whatever it returned, and while the packet is still the
 * hook's: send what the script asked for. @dropped: the packet goes no further.
 */
void lunatik_lending_send(struct lunatik_lending *lending, bool dropped);

/* Did the script ask for nothing to be sent? */
static inline bool lunatik_lending_idle(const struct lunatik_lending *lending)
{
	return !lending->reset && lending->unreachable < 0 &&
	       skb_queue_empty(&lending->frames) && skb_queue_empty(&lending->replies);
}

/*
 * Is the packet that a hook is called with one that a script sends just now?
 * Then let it pass: a script that answers all packets would never end.
 */
bool lunatik_packet_sending(void);

#endif /* LUNATIK_SKB_H */

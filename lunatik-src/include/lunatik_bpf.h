/* SPDX-License-Identifier: GPL-2.0-only */
/* lunatik_bpf.h - maps of eBPF that a script holds, for other bindings */
#ifndef LUNATIK_BPF_H
#define LUNATIK_BPF_H

#include <linux/bpf.h>

#include "lunatik.h"

/*
 * The map at @arg: one to redirect to, one that takes events. Raises the usual
 * errors for anything else. Valid as long as the object, so for the length of
 * the C function; what it left in the redirect state of this CPU is good for
 * the packet, since a map waits for RCU before it frees itself.
 */
struct bpf_map *lunatik_checkredirectmap(lua_State *L, int arg);
struct bpf_map *lunatik_checkevents(lua_State *L, int arg);

#endif /* LUNATIK_BPF_H */

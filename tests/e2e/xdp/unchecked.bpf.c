/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Hands what a lookup gave to the script "verdict" without a look at it, as its
 * KEY or as its argument; nothing is ever found. Drops what has no answer.
 */
#include "bpf.h"

LICENSE;

extern int bpf_luaxdp_run(char *key, unsigned long key__sz, struct xdp_md *xdp_ctx,
			  void *arg, unsigned long arg__sz) SECTION(".ksyms");

struct {
	MAP_INT(type, BPF_MAP_TYPE_HASH);
	MAP_INT(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u64);
} nothing SECTION(".maps");

SECTION("xdp") int unchecked(struct xdp_md *ctx)
{
	char name[] = "verdict";
	__u32 which = 0;
	__u64 argument = 0;
	void *missing = map_lookup(&nothing, &which);
	int action;

#ifdef KEY
	action = bpf_luaxdp_run(missing, sizeof(argument), ctx, &argument, sizeof(argument));
#else
	action = bpf_luaxdp_run(name, sizeof(name), ctx, missing, sizeof(argument));
#endif
	return action < 0 ? XDP_DROP : XDP_PASS;
}

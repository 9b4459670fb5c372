/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Has frames of type 0x88b5 looked at by the script "verdict", each as often as
 * it says, and stays for as long as it says afterwards. What came of it is
 * written down; the script's first answer is the verdict.
 */
#include "bpf.h"

LICENSE;

extern int bpf_luaxdp_run(char *key, unsigned long key__sz, struct xdp_md *xdp_ctx,
			  void *arg, unsigned long arg__sz) SECTION(".ksyms");

/* After the addresses and the type, as in twin.bpf.c. */
struct order {
	__u32 number;		/* where it is written down */
	__u32 calls;		/* 1 or 2 */
	__u32 stay;		/* ms */
};

/* What the script tells. */
struct told {
	__u64 time;
	__u32 cpu;
	__u32 count;
};

struct call {
	__u64 before;		/* the time around the first call */
	__u64 after;
	__u64 left;		/* and at the end */
	struct told told;
	__u32 cpu;
	__s32 answers[2];
	__u32 bytes;		/* from the packet's byte 60 on, after the first call */
};

struct {
	MAP_INT(type, BPF_MAP_TYPE_ARRAY);
	MAP_INT(max_entries, 64);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct call);
} t_calls SECTION(".maps");

static long late(__u32 turn, __u64 *until)
{
	int i;

	/* Turns are limited, looks are not. */
	for (i = 0; i < 8; i++)
		if (ktime_ns() >= *until)
			return 1;
	return 0;
}

inlined int ask(struct xdp_md *ctx, struct told *told)
{
	char key[] = "verdict";

	return bpf_luaxdp_run(key, sizeof(key), ctx, told, sizeof(*told));
}

SECTION("xdp") int calls(struct xdp_md *ctx)
{
	struct call call = { .answers = { -1, -1 } };
	struct told again = {};
	struct order order;
	__u64 until;
	__u16 type = 0;

	if (load_bytes(ctx, 12, &type, sizeof(type)) || type != SWAP16(0x88b5) ||
	    load_bytes(ctx, 14, &order, sizeof(order)))
		return XDP_PASS;

	call.cpu = this_cpu();
	call.before = ktime_ns();
	call.answers[0] = ask(ctx, &call.told);
	call.after = ktime_ns();
	load_bytes(ctx, 60, &call.bytes, sizeof(call.bytes));
	if (order.calls > 1)
		call.answers[1] = ask(ctx, &again);

	until = call.after + order.stay * 1000000ULL;
	loop(1 << 23, late, &until, 0);
	call.left = ktime_ns();
	map_update(&t_calls, &order.number, &call, BPF_ANY);
	return call.answers[0] < 0 ? XDP_DROP : call.answers[0];
}

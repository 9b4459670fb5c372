/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What stands before each frame of twin.bpf.c, written down: its length, and a
 * sum of its first words. As an XDP program, and where packets go next.
 */
#include "bpf.h"

LICENSE;

struct before {
	__s64 length;
	__u64 sum;
};

struct {
	MAP_INT(type, BPF_MAP_TYPE_ARRAY);
	MAP_INT(max_entries, 64);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct before);
} t_before SECTION(".maps");

inlined int note(void *meta, void *data, void *end)
{
	struct before before = { .length = data - meta };
	__u32 number;
	int i;

	if (data + 18 > end || *(__u16 *)(data + 12) != SWAP16(0x88b5))
		return 0;
	number = *(__u32 *)(data + 14);
	for (i = 0; i < META_WORDS; i++, meta += 4) {
		if (meta + 4 > data)
			break;
		before.sum = before.sum * 31 + *(__u32 *)meta;
	}
	map_update(&t_before, &number, &before, BPF_ANY);
	return 1;
}

#define POINTER(field)	((void *)(long)ctx->field)

SECTION("xdp.frags") int of_frame(struct xdp_md *ctx)
{
	return note(POINTER(data_meta), POINTER(data), POINTER(data_end)) ? XDP_DROP : XDP_PASS;
}

/* 0 and 2: TC_ACT_OK and TC_ACT_SHOT. */
SECTION("tc") int of_buffer(struct __sk_buff *ctx)
{
	return note(POINTER(data_meta), POINTER(data), POINTER(data_end)) ? 2 : 0;
}

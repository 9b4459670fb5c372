/* SPDX-License-Identifier: GPL-2.0-only */
/* "Drop these sources", for tests/bench/test_filter_cost.py. */
#include "../e2e/xdp/bpf.h"

LICENSE;

#define SOURCE	26	/* of a frame with IPv4 */

struct {
	MAP_INT(type, BPF_MAP_TYPE_HASH);
	MAP_INT(max_entries, 1024);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u8);
} sources SECTION(".maps");

SECTION("xdp") int drop_sources(struct xdp_md *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data;

	if (data + SOURCE + 4 > (__u8 *)(long)ctx->data_end || *(__u16 *)(data + 12) != SWAP16(0x0800))
		return XDP_PASS;
	return map_lookup(&sources, data + SOURCE) ? XDP_DROP : XDP_PASS;
}

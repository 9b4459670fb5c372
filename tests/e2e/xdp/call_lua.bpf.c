/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Asks the Lua script "verdict" what to do with each packet, tells it the
 * packet's length, and passes what has no script.
 */
#include "bpf.h"

LICENSE;

extern int bpf_luaxdp_run(char *key, unsigned long key__sz, struct xdp_md *xdp_ctx,
			  void *arg, unsigned long arg__sz) SECTION(".ksyms");

SECTION("xdp") int call_lua(struct xdp_md *ctx)
{
	char key[] = "verdict";
	__u32 argument[2] = { ctx->data_end - ctx->data, 0 };
	int action = bpf_luaxdp_run(key, sizeof(key), ctx, argument, sizeof(argument));

	if (action < 0)
		return XDP_PASS;
	/* The script's answer counts only with the proof that it saw ours. */
	return argument[1] == argument[0] + 1 ? action : XDP_ABORTED;
}

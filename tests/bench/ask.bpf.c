/* SPDX-License-Identifier: GPL-2.0-only */
/* Leaves the verdict to the script "filter". */
#include "../e2e/xdp/bpf.h"

LICENSE;

extern int bpf_luaxdp_run(char *key, unsigned long key__sz, struct xdp_md *xdp_ctx,
			  void *arg, unsigned long arg__sz) SECTION(".ksyms");

SECTION("xdp") int ask_lua(struct xdp_md *ctx)
{
	char key[] = "filter";
	__u32 none = 0;
	int action = bpf_luaxdp_run(key, sizeof(key), ctx, &none, sizeof(none));

	return action < 0 ? XDP_PASS : action;
}

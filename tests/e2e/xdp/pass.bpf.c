/* SPDX-License-Identifier: GPL-2.0-only */
/* A program to be in the way of a hook. */
#include "bpf.h"

LICENSE;

SECTION("xdp") int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

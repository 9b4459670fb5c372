// SPDX-License-Identifier: GPL-2.0-only
/*
 * linux.* - the kernel's constants, as its own headers define them
 *
 * The tables are made by names.awk while this is built.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "headers.h"
#include "lunatik.h"

#include ".tmp_names.h"

#define LIBRARY(symbol, dotted, tables)					\
static const struct lunatik_library symbol##_library = {		\
	.name = dotted,							\
	.contexts = LUNATIK_ANY,					\
	.namespaces = tables,						\
};									\
LUNATIK_LIBRARY(symbol, symbol##_library)

#define TABLE(symbol, dotted)						\
static const struct lunatik_namespace symbol##_namespaces[] = {		\
	{ NULL, symbol },						\
	{ NULL, NULL }							\
};									\
LIBRARY(symbol, dotted, symbol##_namespaces)

TABLE(linux_stat, "linux.stat");
TABLE(linux_eth, "linux.eth");
TABLE(linux_xdp, "linux.xdp");
TABLE(linux_bpf, "linux.bpf");
TABLE(linux_task, "linux.task");
TABLE(linux_notify, "linux.notify");
TABLE(linux_netdev, "linux.netdev");

/* require("linux.socket").af and require("linux.socket.af") are both written. */
TABLE(linux_socket_sock, "linux.socket.sock");
TABLE(linux_socket_af, "linux.socket.af");
TABLE(linux_socket_msg, "linux.socket.msg");
TABLE(linux_socket_ipproto, "linux.socket.ipproto");
TABLE(linux_socket_sol, "linux.socket.sol");
TABLE(linux_socket_so, "linux.socket.so");

static const struct lunatik_namespace linux_socket[] = {
	{ "sock", linux_socket_sock },
	{ "af", linux_socket_af },
	{ "msg", linux_socket_msg },
	{ "ipproto", linux_socket_ipproto },
	{ "sol", linux_socket_sol },
	{ "so", linux_socket_so },
	{ NULL, NULL }
};

LIBRARY(linux_socket, "linux.socket", linux_socket);

TABLE(linux_nf_ct_info, "linux.nf.ct.info");
TABLE(linux_nf_ct_status, "linux.nf.ct.status");
TABLE(linux_nf_ct_dir, "linux.nf.ct.dir");
TABLE(linux_nf_ct_tcp, "linux.nf.ct.tcp");

static const struct lunatik_namespace linux_nf_ct[] = {
	{ "info", linux_nf_ct_info },
	{ "status", linux_nf_ct_status },
	{ "dir", linux_nf_ct_dir },
	{ "tcp", linux_nf_ct_tcp },
	{ NULL, NULL }
};

LIBRARY(linux_nf_ct, "linux.nf.ct", linux_nf_ct);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: constants of the kernel");

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The headers whose constants scripts get. Which names are taken, and into
 * which table they go, stands in the file tables.
 */
#ifndef LUNATIK_CONSTANTS_HEADERS_H
#define LUNATIK_CONSTANTS_HEADERS_H

#include <linux/bpf.h>
#include <linux/fcntl.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>
#include <linux/notifier.h>
#include <linux/sched.h>
#include <linux/socket.h>
#include <linux/stat.h>

#endif /* LUNATIK_CONSTANTS_HEADERS_H */

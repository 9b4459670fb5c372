/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Types are those of the kernel under test: vmlinux.h is made of its BTF, with
 * fields where they are in this very kernel, so that none need be relocated.
 * The rest is what programs use of libbpf's headers, which a host need not have:
 * sections, maps as types, helpers by their number in linux/bpf.h.
 */
#ifndef TEST_BPF_H
#define TEST_BPF_H

#define BPF_NO_PRESERVE_ACCESS_INDEX
#define BPF_NO_KFUNC_PROTOTYPES
#include "vmlinux.h"

/* An enumerator of 64 bits, which the BTF of older kernels has cut to 32. */
#define BPF_F_CURRENT_CPU	0xffffffffULL

#define SECTION(name)	__attribute__((section(name), used))
#define LICENSE		char _license[] SECTION("license") = "GPL"
#define inlined		static inline __attribute__((always_inline))

#define MAP_INT(name, value)	int (*name)[value]
#define MAP_TYPE(name, type)	typeof(type) *name

#define SWAP16(x)	__builtin_bswap16(x)
#define SWAP32(x)	__builtin_bswap32(x)

/* So much of what stands before a packet is looked at: all that 6.1 allows. */
#define META_WORDS	8

#define HELPER(number)	= (void *)(number)

static void *(*map_lookup)(void *map, const void *key) HELPER(1);
static long (*map_update)(void *map, const void *key, const void *value, __u64 flags) HELPER(2);
static long (*map_delete)(void *map, const void *key) HELPER(3);
static __u64 (*ktime_ns)(void) HELPER(5);
static __u32 (*random_u32)(void) HELPER(7);
static __u32 (*this_cpu)(void) HELPER(8);
static long (*redirect)(__u32 ifindex, __u64 flags) HELPER(23);
static long (*perf_output)(void *ctx, void *map, __u64 flags, void *data, __u64 size) HELPER(25);
static long (*csum_diff)(__be32 *from, __u32 from_size, __be32 *to, __u32 to_size, __u32 seed)
	HELPER(28);
static long (*adjust_head)(struct xdp_md *ctx, int delta) HELPER(44);
static long (*redirect_map)(void *map, __u64 key, __u64 flags) HELPER(51);
static long (*adjust_meta)(struct xdp_md *ctx, int delta) HELPER(54);
static long (*adjust_tail)(struct xdp_md *ctx, int delta) HELPER(65);
static long (*fib_lookup)(void *ctx, struct bpf_fib_lookup *params, int size, __u32 flags)
	HELPER(69);
static long (*map_push)(void *map, const void *value, __u64 flags) HELPER(87);
static long (*map_pop)(void *map, void *value) HELPER(88);
static long (*map_peek)(void *map, void *value) HELPER(89);
static long (*ringbuf_output)(void *ringbuf, void *data, __u64 size, __u64 flags) HELPER(130);
static long (*loop)(__u32 turns, void *body, void *context, __u64 flags) HELPER(181);
static __u64 (*packet_length)(struct xdp_md *ctx) HELPER(188);
static long (*load_bytes)(struct xdp_md *ctx, __u32 offset, void *to, __u32 length) HELPER(189);
static long (*store_bytes)(struct xdp_md *ctx, __u32 offset, void *from, __u32 length)
	HELPER(190);

#endif

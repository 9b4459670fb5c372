// SPDX-License-Identifier: GPL-2.0-only
/*
 * bench: what an entry from the kernel costs, for tests/bench.
 *
 * Made for machines whose time stamp counter counts instructions (icount).
 * Interrupts do come in between, so the least of several rounds is taken.
 */
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <asm/msr.h>

#include "lunatik.h"

#define BENCH_ROUNDS	20

struct bench {
	lua_Integer argument;
	int callback;			/* reference, in the script's runtime */
};

static int bench_prepare(lua_State *L, void *arg)
{
	struct bench *bench = arg;

	lunatik_pushbody(L);
	bench->callback = lunatik_ref(L, -1);
	return 0;
}

/* As a hook does: push the callback, its argument, call. */
static int bench_call(lua_State *L, void *arg)
{
	struct bench *bench = arg;

	lunatik_pushref(L, bench->callback);
	if (!bench->argument) {
		lua_call(L, 0, 0);
		return 0;
	}
	lua_pushinteger(L, bench->argument);
	lua_call(L, 1, 0);
	return 0;
}

/* The same without a call: lock, budget, protection and nothing else. */
static int bench_nothing(lua_State *L, void *arg)
{
	return 0;
}

static u64 bench_round(struct lunatik_runtime *runtime, lunatik_handler handler,
		       struct bench *bench, unsigned int entries, int *ret)
{
	u64 begin = rdtsc_ordered();
	unsigned int i;

	for (i = 0; i < entries && !*ret; i++)
		*ret = lunatik_run(runtime, handler, bench);
	return rdtsc_ordered() - begin;
}

static int measure(lua_State *L, lunatik_handler handler)
{
	struct lunatik_runtime *runtime = lunatik_checkruntime(L, 1);
	unsigned int entries = lunatik_checkrange(L, 2, 1, 10000);
	struct bench bench = { .argument = luaL_optinteger(L, 3, 0) };
	u64 least = U64_MAX;
	int i, ret = 0;

	lunatik_checksleep(L, "bench");
	ret = lunatik_run(runtime, bench_prepare, &bench);
	for (i = 0; i < BENCH_ROUNDS && !ret; i++) {
		least = min(least, bench_round(runtime, handler, &bench, entries, &ret));
		cond_resched();
	}
	lunatik_try(L, ret);
	lua_pushinteger(L, div_u64(least, entries));
	return 1;
}

/* entry(runtime, entries, argument) -> instructions for each */
static int bench_entry(lua_State *L)
{
	return measure(L, bench_call);
}

/* empty(runtime, entries) -> instructions of an entry that calls no script */
static int bench_empty(lua_State *L)
{
	return measure(L, bench_nothing);
}

/* loop(turns) -> ticks of so many turns of two instructions each */
static int bench_loop(lua_State *L)
{
	unsigned long turns = lunatik_checkrange(L, 1, 1, INT_MAX);
	u64 begin = rdtsc_ordered();

	asm volatile("1: decq %0; jnz 1b" : "+r" (turns) : : "cc");
	lua_pushinteger(L, rdtsc_ordered() - begin);
	return 1;
}

/* now() -> instructions since the machine was started */
static int bench_now(lua_State *L)
{
	lua_pushinteger(L, rdtsc_ordered());
	return 1;
}

static const luaL_Reg bench_functions[] = {
	{"entry", bench_entry},
	{"empty", bench_empty},
	{"loop", bench_loop},
	{"now", bench_now},
	{}
};

static const struct lunatik_library bench_library = {
	.name = "bench",
	.contexts = LUNATIK_PROCESS,
	.functions = bench_functions,
};

LUNATIK_LIBRARY(bench, bench_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: what an entry costs");

// SPDX-License-Identifier: GPL-2.0-only
/* cpu - which CPUs there are, and what they spent their time on */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpumask.h>
#include <linux/kernel_stat.h>

#include "lunatik.h"

static const char *const cpu_times[NR_STATS] = {
	[CPUTIME_USER] = "user",
	[CPUTIME_NICE] = "nice",
	[CPUTIME_SYSTEM] = "system",
	[CPUTIME_SOFTIRQ] = "softirq",
	[CPUTIME_IRQ] = "irq",
	[CPUTIME_IDLE] = "idle",
	[CPUTIME_IOWAIT] = "iowait",
	[CPUTIME_STEAL] = "steal",
	[CPUTIME_GUEST] = "guest",
	[CPUTIME_GUEST_NICE] = "guest_nice",
};

/* Nanoseconds since boot by kind, as the kernel's own accounting has them. */
static int cpu_stats(lua_State *L)
{
	unsigned int cpu = lunatik_checkrange(L, 1, 0, nr_cpu_ids - 1);
	int i;

	luaL_argcheck(L, cpu_possible(cpu), 1, "no such CPU");
	lua_createtable(L, 0, ARRAY_SIZE(cpu_times));
	for (i = 0; i < NR_STATS; i++) {
		if (!cpu_times[i])
			continue;
		lua_pushinteger(L, READ_ONCE(kcpustat_cpu(cpu).cpustat[i]));
		lua_setfield(L, -2, cpu_times[i]);
	}
	return 1;
}

/*
 * The callback may take long, and CPUs come and go meanwhile: so ask for the
 * next one each time, and hold nothing while the script runs.
 */
static int cpu_foreach(lua_State *L, const struct cpumask *mask)
{
	int cpu;

	luaL_checktype(L, 1, LUA_TFUNCTION);
	for (cpu = cpumask_first(mask); cpu < nr_cpu_ids; cpu = cpumask_next(cpu, mask)) {
		lua_pushvalue(L, 1);
		lua_pushinteger(L, cpu);
		lua_call(L, 1, 0);
	}
	return 0;
}

#define CPU_MASK(name)						\
static int cpu_num_##name(lua_State *L)				\
{								\
	lua_pushinteger(L, num_##name##_cpus());		\
	return 1;						\
}								\
								\
static int cpu_foreach_##name(lua_State *L)			\
{								\
	return cpu_foreach(L, cpu_##name##_mask);		\
}

CPU_MASK(possible)
CPU_MASK(present)
CPU_MASK(online)

static const luaL_Reg cpu_functions[] = {
	{ "num_possible", cpu_num_possible },
	{ "num_present", cpu_num_present },
	{ "num_online", cpu_num_online },
	{ "foreach_possible", cpu_foreach_possible },
	{ "foreach_present", cpu_foreach_present },
	{ "foreach_online", cpu_foreach_online },
	{ "stats", cpu_stats },
	{ NULL, NULL }
};

static const struct lunatik_library cpu_library = {
	.name = "cpu",
	.contexts = LUNATIK_ANY,
	.functions = cpu_functions,
};

LUNATIK_LIBRARY(cpu, cpu_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: CPUs");

// SPDX-License-Identifier: GPL-2.0-only
/*
 * linux: this and that of the kernel.
 */
#include <linux/cpumask.h>
#include <linux/inetdevice.h>
#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "lunatik.h"

/* random(): any integer; random(m): 1 to m; random(m, n): m to n */
static int linux_random(lua_State *L)
{
	lua_Integer low = 1, high;
	u64 value = get_random_u64();
	u64 range, rest;

	switch (lua_gettop(L)) {
	case 0:
		lua_pushinteger(L, value);
		return 1;
	case 1:
		high = luaL_checkinteger(L, 1);
		break;
	default:
		low = luaL_checkinteger(L, 1);
		high = luaL_checkinteger(L, 2);
	}
	if (low > high)
		return luaL_argerror(L, min(lua_gettop(L), 2), "interval is empty");

	range = (u64)high - low + 1;	/* 0: all of them */
	if (range) {
		/* Drop the part of the last, incomplete round. */
		rest = (U64_MAX % range + 1) % range;
		while (value > U64_MAX - rest)
			value = get_random_u64();
		value %= range;
	}
	lua_pushinteger(L, low + value);
	return 1;
}

/* schedule([ms[, state]]) -> ms left when woken early */
static int linux_schedule(lua_State *L)
{
	static const unsigned int states[] = {
		TASK_INTERRUPTIBLE, TASK_UNINTERRUPTIBLE, TASK_KILLABLE, TASK_IDLE,
	};
	lua_Integer ms = lunatik_optrange(L, 1, LUA_MAXINTEGER, 0, LUA_MAXINTEGER);
	lua_Integer state = luaL_optinteger(L, 2, TASK_INTERRUPTIBLE);
	long timeout = ms >= INT_MAX ? MAX_SCHEDULE_TIMEOUT : msecs_to_jiffies(ms);
	int i;

	lunatik_checkwait(L, "linux.schedule");
	for (i = 0; i < ARRAY_SIZE(states); i++)
		if (states[i] == state)
			break;
	if (i == ARRAY_SIZE(states))
		return luaL_argerror(L, 2, "unknown task state");

	/*
	 * Always in a state that stopping the runtime can end; with no limit
	 * an uninterruptible sleep would never be woken otherwise.
	 */
	set_current_state(state & TASK_INTERRUPTIBLE || timeout == MAX_SCHEDULE_TIMEOUT ?
			  TASK_INTERRUPTIBLE : TASK_KILLABLE);
	if (lunatik_stopping(L))
		__set_current_state(TASK_RUNNING);
	timeout = schedule_timeout(timeout);
	lunatik_slept(L);
	lua_pushinteger(L, timeout == MAX_SCHEDULE_TIMEOUT ? LUA_MAXINTEGER :
			jiffies_to_msecs(timeout));
	return 1;
}

static int linux_time(lua_State *L)
{
	lua_pushinteger(L, ktime_get_real_ns());
	return 1;
}

static int linux_difftime(lua_State *L)
{
	u64 later = luaL_checkinteger(L, 1);

	lua_pushinteger(L, later - luaL_checkinteger(L, 2));
	return 1;
}

static int linux_ifindex(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	struct net_device *dev;
	int ifindex = 0;

	rcu_read_lock();
	dev = dev_get_by_name_rcu(&init_net, name);
	if (dev)
		ifindex = dev->ifindex;
	rcu_read_unlock();

	if (!ifindex)
		return lunatik_throw(L, ENODEV);
	lua_pushinteger(L, ifindex);
	return 1;
}

/* The first IPv4 address of an interface, as an integer in host order */
static int linux_ifaddr(lua_State *L)
{
	int ifindex = lunatik_checkrange(L, 1, 1, INT_MAX);
	const struct in_ifaddr *address = NULL;
	struct in_device *in_dev = NULL;
	struct net_device *dev;
	u32 found = 0;

	rcu_read_lock();
	dev = dev_get_by_index_rcu(&init_net, ifindex);
	if (dev)
		in_dev = __in_dev_get_rcu(dev);
	if (in_dev)
		address = rcu_dereference(in_dev->ifa_list);
	if (address)
		found = ntohl(address->ifa_local);
	rcu_read_unlock();

	if (!dev)
		return lunatik_throw(L, ENODEV);
	if (!address)
		return lunatik_throw(L, EADDRNOTAVAIL);
	lua_pushinteger(L, found);
	return 1;
}

static int linux_errname(lua_State *L)
{
	const char *name = lunatik_errname(lunatik_checkrange(L, 1, -INT_MAX, INT_MAX));

	if (!name)
		return luaL_argerror(L, 1, "no such error");
	lua_pushstring(L, name);
	return 1;
}

static int linux_numcpus(lua_State *L)
{
	lua_pushinteger(L, num_possible_cpus());
	return 1;
}

/* tracing([on]) -> whether it is on */
static int linux_tracing(lua_State *L)
{
#ifdef CONFIG_TRACING
	if (!lua_isnoneornil(L, 1)) {
		luaL_checktype(L, 1, LUA_TBOOLEAN);
		if (lua_toboolean(L, 1))
			tracing_on();
		else
			tracing_off();
	}
	lua_pushboolean(L, tracing_is_on());
	return 1;
#else
	return lunatik_throw(L, EOPNOTSUPP);
#endif
}

/*
 * The address of a function of the kernel's; nil if there is none. All symbols
 * may be looked at, and taking the kprobe out waits for RCU.
 */
static int linux_lookup(lua_State *L)
{
#ifdef CONFIG_KPROBES
	struct kprobe probe = { .symbol_name = luaL_checkstring(L, 1) };
	bool found;

	lunatik_checkwait(L, "linux.lookup");
	found = !register_kprobe(&probe);
	if (found)
		unregister_kprobe(&probe);
	lunatik_slept(L);
	if (found)
		lua_pushlightuserdata(L, probe.addr);
	else
		lua_pushnil(L);
	return 1;
#else
	return lunatik_throw(L, EOPNOTSUPP);
#endif
}

/* linux.stat is what require("linux.stat") gives, loaded on first use */
static int linux_index(lua_State *L)
{
	static const char * const tables[] = {
		"stat", "eth", "xdp", "bpf", "task", "notify", "netdev", "socket", "nf",
	};
	const char *key;
	int i;

	/* Whoever got hold of the metatable calls it with anything. */
	luaL_checktype(L, 1, LUA_TTABLE);
	if (lua_type(L, 2) != LUA_TSTRING)
		return 0;
	key = lua_tostring(L, 2);
	for (i = 0; i < ARRAY_SIZE(tables); i++)
		if (!strcmp(key, tables[i]))
			break;
	if (i == ARRAY_SIZE(tables))
		return 0;

	lua_getglobal(L, "require");
	lua_pushfstring(L, "linux.%s", key);
	lua_call(L, 1, 1);
	lua_pushvalue(L, 2);
	lua_pushvalue(L, -2);
	lua_rawset(L, 1);
	return 1;
}

static void linux_open(lua_State *L)
{
	lua_createtable(L, 0, 2);
	lua_pushcfunction(L, linux_index);
	lua_setfield(L, -2, "__index");
	lua_pushboolean(L, false);
	lua_setfield(L, -2, "__metatable");
	lua_setmetatable(L, -2);
}

static const luaL_Reg linux_functions[] = {
	{"random", linux_random},
	{"schedule", linux_schedule},
	{"time", linux_time},
	{"difftime", linux_difftime},
	{"ifindex", linux_ifindex},
	{"ifaddr", linux_ifaddr},
	{"errname", linux_errname},
	{"numcpus", linux_numcpus},
	{"tracing", linux_tracing},
	{"lookup", linux_lookup},
	{}
};

static const struct lunatik_library linux_library = {
	.name = "linux",
	.contexts = LUNATIK_ANY,
	.functions = linux_functions,
	.open = linux_open,
};

LUNATIK_LIBRARY(linux, linux_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: this and that of the kernel");

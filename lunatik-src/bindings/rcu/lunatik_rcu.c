// SPDX-License-Identifier: GPL-2.0-only
/*
 * rcu: tables that runtimes share and read without a lock.
 */
#include <linux/module.h>

#include "lunatik.h"
#include "lunatik_table.h"

#define RCU_BUCKETS	256

static int rcu_table(lua_State *L)
{
	lunatik_table_new(L, lunatik_optrange(L, 1, RCU_BUCKETS, 1, LUNATIK_TABLE_BUCKETS_MAX));
	return 1;
}

static int rcu_map(lua_State *L)
{
	lunatik_table_map(L);
	return 0;
}

static const luaL_Reg rcu_functions[] = {
	{"table", rcu_table},
	{"map", rcu_map},
	{}
};

static const struct lunatik_library rcu_library = {
	.name = "rcu",
	.contexts = LUNATIK_ANY,
	.functions = rcu_functions,
};

LUNATIK_LIBRARY(rcu, rcu_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: tables shared between runtimes");

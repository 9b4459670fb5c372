/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tables shared by all runtimes and read without a lock: lunatik._ENV, and
 * what rcu.table() makes.
 */
#ifndef LUNATIK_TABLE_H
#define LUNATIK_TABLE_H

#include "lunatik.h"

#define LUNATIK_TABLE_BUCKETS_MAX	65536

/* Push a new table of @buckets (1 to LUNATIK_TABLE_BUCKETS_MAX) buckets. */
void lunatik_table_new(lua_State *L, size_t buckets);

/*
 * Call the function at stack index 2 with the key and value of each entry of
 * the table at index 1. Entries that come or go meanwhile may be missed.
 */
void lunatik_table_map(lua_State *L);

#endif /* LUNATIK_TABLE_H */

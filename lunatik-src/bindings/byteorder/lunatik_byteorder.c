// SPDX-License-Identifier: GPL-2.0-only
/* byteorder - integers between the host's, network and little-endian order */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <asm/byteorder.h>

#include "lunatik.h"

/*
 * All of them read the low bits of the integer and give a non-negative one
 * for 16 and 32 bits. Each is its own inverse, so that host-to-network and
 * network-to-host are one function.
 */
#define BYTEORDER(name, type, convert)						\
static int byteorder_##name(lua_State *L)					\
{										\
	type value = (type)luaL_checkinteger(L, 1);				\
										\
	lua_pushinteger(L, (lua_Integer)(__force type)convert(value));		\
	return 1;								\
}

BYTEORDER(be16, u16, cpu_to_be16)
BYTEORDER(be32, u32, cpu_to_be32)
BYTEORDER(be64, u64, cpu_to_be64)
BYTEORDER(le16, u16, cpu_to_le16)
BYTEORDER(le32, u32, cpu_to_le32)
BYTEORDER(le64, u64, cpu_to_le64)

static const luaL_Reg byteorder_functions[] = {
	{ "htobe16", byteorder_be16 }, { "be16toh", byteorder_be16 },
	{ "htobe32", byteorder_be32 }, { "be32toh", byteorder_be32 },
	{ "htobe64", byteorder_be64 }, { "be64toh", byteorder_be64 },
	{ "htole16", byteorder_le16 }, { "le16toh", byteorder_le16 },
	{ "htole32", byteorder_le32 }, { "le32toh", byteorder_le32 },
	{ "htole64", byteorder_le64 }, { "le64toh", byteorder_le64 },
	{ "hton16", byteorder_be16 }, { "ntoh16", byteorder_be16 },
	{ "hton32", byteorder_be32 }, { "ntoh32", byteorder_be32 },
	{ "hton64", byteorder_be64 }, { "ntoh64", byteorder_be64 },
	{ NULL, NULL }
};

static const struct lunatik_library byteorder_library = {
	.name = "byteorder",
	.contexts = LUNATIK_ANY,
	.functions = byteorder_functions,
};

LUNATIK_LIBRARY(byteorder, byteorder_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: byte order");

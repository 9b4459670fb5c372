// SPDX-License-Identifier: GPL-2.0-only
/*
 * The library "math" of a Lua without floats: what remains meaningful over
 * 64-bit integers, with the results and the messages of the standard one.
 * Each runtime has its own xoshiro256** generator, seeded from the kernel's.
 */
#include <linux/bitops.h>
#include <linux/random.h>

#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"
#include "lunatik_vm.h"

struct generator {
	u64 s[4];
};

static int math_abs(lua_State *L)
{
	lua_Integer n = luaL_checkinteger(L, 1);

	lua_pushinteger(L, n < 0 ? (lua_Integer)(0 - (lua_Unsigned)n) : n);
	return 1;
}

/* floor and ceil of an integer are that integer. */
static int math_round(lua_State *L)
{
	lua_pushinteger(L, luaL_checkinteger(L, 1));
	return 1;
}

static int math_fmod(lua_State *L)
{
	lua_Integer m = luaL_checkinteger(L, 1);
	lua_Integer n = luaL_checkinteger(L, 2);

	luaL_argcheck(L, n != 0, 2, "zero");
	/* -1 apart: the processor traps on LLONG_MIN % -1. */
	lua_pushinteger(L, n == -1 ? 0 : m % n);
	return 1;
}

static int math_tointeger(lua_State *L)
{
	int valid;
	lua_Integer n = lua_tointegerx(L, 1, &valid);

	if (valid) {
		lua_pushinteger(L, n);
	} else {
		luaL_checkany(L, 1);
		luaL_pushfail(L);
	}
	return 1;
}

static int math_type(lua_State *L)
{
	if (lua_type(L, 1) == LUA_TNUMBER) {
		lua_pushliteral(L, "integer");
	} else {
		luaL_checkany(L, 1);
		luaL_pushfail(L);
	}
	return 1;
}

static int math_ult(lua_State *L)
{
	lua_Unsigned a = (lua_Unsigned)luaL_checkinteger(L, 1);
	lua_Unsigned b = (lua_Unsigned)luaL_checkinteger(L, 2);

	lua_pushboolean(L, a < b);
	return 1;
}

static int extreme(lua_State *L, int sign)
{
	int count = lua_gettop(L);
	lua_Integer best;
	int i;

	luaL_argcheck(L, count >= 1, 1, "value expected");
	/* A numeral in a string is read, of up to 200 characters. */
	lunatikvm_charge(L, 8 * (size_t)count);
	best = luaL_checkinteger(L, 1);
	for (i = 2; i <= count; i++) {
		lua_Integer n = luaL_checkinteger(L, i);

		if (sign < 0 ? n < best : n > best)
			best = n;
	}
	lua_pushinteger(L, best);
	return 1;
}

static int math_max(lua_State *L)
{
	return extreme(L, 1);
}

static int math_min(lua_State *L)
{
	return extreme(L, -1);
}

static u64 generate(struct generator *g)
{
	u64 result = rol64(g->s[1] * 5, 7) * 9;
	u64 shifted = g->s[1] << 17;

	g->s[2] ^= g->s[0];
	g->s[3] ^= g->s[1];
	g->s[1] ^= g->s[2];
	g->s[0] ^= g->s[3];
	g->s[2] ^= shifted;
	g->s[3] = rol64(g->s[3], 45);
	return result;
}

static void seed(struct generator *g, u64 first, u64 second)
{
	int i;

	g->s[0] = first;
	g->s[1] = 0xff;		/* never all zero */
	g->s[2] = second;
	g->s[3] = 0;
	for (i = 0; i < 16; i++)
		generate(g);
}

/* A uniform value in [0, limit]: mask to the next power of two, try again. */
static u64 project(struct generator *g, u64 limit)
{
	u64 mask = limit ? ~0ULL >> (63 - __fls(limit)) : 0;
	u64 n;

	do {
		n = generate(g) & mask;
	} while (n > limit);
	return n;
}

static struct generator *getgenerator(lua_State *L)
{
	return lua_touserdata(L, lua_upvalueindex(1));
}

static int math_random(lua_State *L)
{
	struct generator *g = getgenerator(L);
	lua_Integer low = 1;
	lua_Integer up;

	switch (lua_gettop(L)) {
	case 0:
		return luaL_error(L, "%s: 'random' needs an interval",
				  LUA_NOFLOAT);
	case 1:
		up = luaL_checkinteger(L, 1);
		if (!up) {
			lua_pushinteger(L, (lua_Integer)generate(g));
			return 1;
		}
		break;
	case 2:
		low = luaL_checkinteger(L, 1);
		up = luaL_checkinteger(L, 2);
		break;
	default:
		return luaL_error(L, "wrong number of arguments");
	}
	luaL_argcheck(L, low <= up, lua_gettop(L), "interval is empty");
	lua_pushinteger(L, (lua_Integer)((lua_Unsigned)low +
		project(g, (lua_Unsigned)up - (lua_Unsigned)low)));
	return 1;
}

static int math_randomseed(lua_State *L)
{
	struct generator *g = getgenerator(L);
	u64 first, second;

	if (lua_isnone(L, 1)) {
		first = get_random_u64();
		second = get_random_u64();
	} else {
		first = (u64)luaL_checkinteger(L, 1);
		second = (u64)luaL_optinteger(L, 2, 0);
	}
	seed(g, first, second);
	lua_pushinteger(L, (lua_Integer)first);
	lua_pushinteger(L, (lua_Integer)second);
	return 2;
}

static const luaL_Reg functions[] = {
	{"abs", math_abs},
	{"ceil", math_round},
	{"floor", math_round},
	{"fmod", math_fmod},
	{"max", math_max},
	{"min", math_min},
	{"tointeger", math_tointeger},
	{"type", math_type},
	{"ult", math_ult},
	{"random", NULL},
	{"randomseed", NULL},
	{"maxinteger", NULL},
	{"mininteger", NULL},
	{}
};

static const luaL_Reg random_functions[] = {
	{"random", math_random},
	{"randomseed", math_randomseed},
	{}
};

int luaopen_math(lua_State *L)
{
	struct generator *g;

	luaL_newlib(L, functions);
	lua_pushinteger(L, LUA_MAXINTEGER);
	lua_setfield(L, -2, "maxinteger");
	lua_pushinteger(L, LUA_MININTEGER);
	lua_setfield(L, -2, "mininteger");
	g = lua_newuserdatauv(L, sizeof(*g), 0);
	seed(g, get_random_u64(), get_random_u64());
	luaL_setfuncs(L, random_functions, 1);
	return 1;
}

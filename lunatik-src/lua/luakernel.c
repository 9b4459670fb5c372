// SPDX-License-Identifier: GPL-2.0-only
/*
 * What Lua finds in an operating system and here gets from the kernel: log,
 * randomness, warnings, and the libraries that make sense.
 */
#include <linux/atomic.h>
#include <linux/ctype.h>
#include <linux/export.h>
#include <linux/kernel.h>
#include <linux/moduleparam.h>
#include <linux/once.h>
#include <linux/printk.h>
#include <linux/random.h>
#include <linux/ratelimit.h>
#include <linux/siphash.h>
#include <linux/string.h>

#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"
#include "lstate.h"
#include "lunatik.h"
#include "lunatik_vm.h"

static unsigned long hashseed;
module_param(hashseed, ulong, 0400);
MODULE_PARM_DESC(hashseed, "seed of all hashes, for exact measurements; 0 is a random one");

static bool unsafe_debug;
module_param(unsafe_debug, bool, 0600);
MODULE_PARM_DESC(unsafe_debug, "open all of the debug library, for the test suite of Lua");

static hsiphash_key_t hash_key;
static siphash_key_t pointer_key;

unsigned int lunatikvm_seed(void)
{
	return hashseed ? (unsigned int)hashseed : get_random_u32();
}

/*
 * The kernel's own %p would do, but it prints one text for all of them until
 * the random number generator is ready.
 */
unsigned long long lunatikvm_pointer(const void *p)
{
	return siphash_1u64((unsigned long)p, &pointer_key);
}

void lunatikvm_setsecret(void)
{
	get_random_once(&pointer_key, sizeof(pointer_key));
	if (hashseed)	/* read only: the same each time */
		hash_key.key[0] = hashseed;
	else
		get_random_once(&hash_key, sizeof(hash_key));
}

/* Scripts choose the numbers and see the order: nothing linear will do. */
unsigned int lunatikvm_hash(u64 n)
{
	return hsiphash_2u32((u32)n, n >> 32, &hash_key);
}

unsigned int lunatikvm_hashbytes(const char *bytes, size_t length)
{
	return hsiphash(bytes, length, &hash_key);
}

/*
 * snprintf() of one integer as ISO C wants it. The kernel's own prints a zero
 * with precision 0, fills with zeros in spite of a precision, and gives zero a
 * prefix.
 */
int lunatikvm_format(char *text, size_t size, const char *form, long long n)
{
	const char *point = strchr(form, '.');
	char plain[32];
	int i = 0;

	plain[i++] = *form++;
	for (; *form && strchr("-+#0 ", *form); form++) {
		if ((*form == '0' && point) || (*form == '#' && !n))
			continue;
		if (i < 8)
			plain[i++] = *form;
	}
	strscpy(plain + i, form, sizeof(plain) - i);
	if (point && !n && !isdigit(point[1 + strspn(point + 1, "0")])) {
		char *dot = strchr(plain, '.');

		strscpy(dot, "s", plain + sizeof(plain) - dot);
		return snprintf(text, size, plain, strchr(plain, '+') ? "+" : "");
	}
	return snprintf(text, size, plain, n);
}

/* Whether scripts see what is the libraries' own, and what comes of it is theirs. */
int lunatikvm_unsafe(void)
{
	return READ_ONCE(unsafe_debug);
}

/* It does not know whose warning it is, nor where that runs: deferred. */
static void warn_whole(const char *warning)
{
	static DEFINE_RATELIMIT_STATE(limit, DEFAULT_RATELIMIT_INTERVAL,
				      DEFAULT_RATELIMIT_BURST);

	if (__ratelimit(&limit))
		lunatik_printk_deferred(KERN_WARNING "lunatik: warning: %s\n", warning);
}

/* A second line would be the script's, without a word about that. */
static void keep_line(char *text)
{
	for (; *text; text++)
		if (iscntrl(*text))
			*text = ' ';
}

/* warn(...), and errors in finalizers. The message comes in pieces. */
static void warn_piece(void *data, const char *piece, int continues)
{
	struct lunatikvm *vm = data;
	size_t length = strlen(vm->warning);

	if (!*vm->warning && !continues && *piece == '@') {
		if (!strcmp(piece, "@on"))
			vm->silent = false;
		else if (!strcmp(piece, "@off"))
			vm->silent = true;
		return;
	}
	/* Not strlcat(): it measures all of a piece of any length. */
	strscpy(vm->warning + length, piece, sizeof(vm->warning) - length);
	keep_line(vm->warning + length);
	if (continues)
		return;
	if (!vm->silent)
		warn_whole(vm->warning);
	*vm->warning = '\0';
}

static const luaL_Reg libraries[] = {
	{LUA_GNAME, luaopen_base},
	{LUA_COLIBNAME, luaopen_coroutine},
	{LUA_DBLIBNAME, luaopen_debug},
	{LUA_MATHLIBNAME, luaopen_math},
	{LUA_STRLIBNAME, luaopen_string},
	{LUA_TABLIBNAME, luaopen_table},
	{LUA_UTF8LIBNAME, luaopen_utf8},
	{}
};

/*
 * These would let a script give an object another class, reach into the
 * frames and upvalues of C functions, or find what others keep in the
 * registry. C trusts all of that.
 */
static const char * const unsafe_functions[] = {
	"getlocal", "getmetatable", "getregistry", "getupvalue", "getuservalue",
	"setlocal", "setmetatable", "setupvalue", "setuservalue", "upvalueid",
	"upvaluejoin",
};

static void restrict_debug(lua_State *L)
{
	int i;

	lua_getglobal(L, LUA_DBLIBNAME);
	for (i = 0; i < ARRAY_SIZE(unsafe_functions); i++) {
		lua_pushnil(L);
		lua_setfield(L, -2, unsafe_functions[i]);
	}
	lua_pop(L, 1);
}

void lunatikvm_openlibs(lua_State *L)
{
	const luaL_Reg *library;

	for (library = libraries; library->name; library++) {
		luaL_requiref(L, library->name, library->func, 1);
		lua_pop(L, 1);
	}
	lua_setwarnf(L, warn_piece, &G(L)->vm);
	if (!lunatikvm_unsafe())
		restrict_debug(L);
}

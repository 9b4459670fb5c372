// SPDX-License-Identifier: MIT
/*
 * libxt_lua - teaches iptables, legacy and nft, "-m lua" and "-j LUA"
 */
#include <stdio.h>
#include <string.h>

#include <linux/types.h>
#include <xtables.h>

#include "xt_lua.h"

enum {
	OPTION_FUNCTION,
	OPTION_ARGUMENT,
};

#define LUA_OPTIONS(function_flags)						\
{										\
	{ .name = "function", .id = OPTION_FUNCTION, .type = XTTYPE_STRING,	\
	  .flags = XTOPT_MAND | XTOPT_PUT | (function_flags),			\
	  XTOPT_POINTER(struct xt_lua_info, function), .min = 1 },		\
	{ .name = "argument", .id = OPTION_ARGUMENT, .type = XTTYPE_STRING,	\
	  .flags = XTOPT_PUT, XTOPT_POINTER(struct xt_lua_info, argument) },	\
	XTOPT_TABLEEND,								\
}

static const struct xt_option_entry match_options[] = LUA_OPTIONS(XTOPT_INVERT);
static const struct xt_option_entry target_options[] = LUA_OPTIONS(0);

static void match_help(void)
{
	puts("lua match options:\n"
	     "[!] --function NAME    match if a Lua script's function of that name does\n"
	     "    --argument TEXT    what it is given");
}

static void target_help(void)
{
	puts("LUA target options:\n"
	     "    --function NAME    do as a Lua script's function of that name says\n"
	     "    --argument TEXT    what it is given");
}

static void match_parse(struct xt_option_call *call)
{
	struct xt_lua_info *info = call->data;

	xtables_option_parse(call);
	if (call->invert)
		info->flags |= XT_LUA_INVERT;
}

static void show(const struct xt_lua_info *info, const char *dashes)
{
	printf("%s %sfunction ", info->flags & XT_LUA_INVERT ? " !" : "", dashes);
	/* xtables_save_string() puts a space before what it prints. */
	printf("%s", info->function);
	if (*info->argument) {
		printf(" %sargument", dashes);
		xtables_save_string(info->argument);
	}
}

static void match_print(const void *ip, const struct xt_entry_match *match, int numeric)
{
	(void)ip;
	(void)numeric;
	printf(" lua");
	show((const void *)match->data, "");
}

static void match_save(const void *ip, const struct xt_entry_match *match)
{
	(void)ip;
	show((const void *)match->data, "--");
}

static void target_print(const void *ip, const struct xt_entry_target *target, int numeric)
{
	(void)ip;
	(void)numeric;
	printf(" LUA");
	show((const void *)target->data, "");
}

static void target_save(const void *ip, const struct xt_entry_target *target)
{
	(void)ip;
	show((const void *)target->data, "--");
}

static struct xtables_match lua_match = {
	.version = XTABLES_VERSION,
	.name = "lua",
	.family = NFPROTO_UNSPEC,
	.size = XT_ALIGN(sizeof(struct xt_lua_info)),
	.userspacesize = offsetof(struct xt_lua_info, slot),
	.help = match_help,
	.print = match_print,
	.save = match_save,
	.x6_parse = match_parse,
	.x6_options = match_options,
};

static struct xtables_target lua_target = {
	.version = XTABLES_VERSION,
	.name = "LUA",
	.family = NFPROTO_UNSPEC,
	.size = XT_ALIGN(sizeof(struct xt_lua_info)),
	.userspacesize = offsetof(struct xt_lua_info, slot),
	.help = target_help,
	.print = target_print,
	.save = target_save,
	.x6_parse = xtables_option_parse,
	.x6_options = target_options,
};

static void __attribute__((constructor)) register_lua(void)
{
	xtables_register_match(&lua_match);
	xtables_register_target(&lua_target);
}

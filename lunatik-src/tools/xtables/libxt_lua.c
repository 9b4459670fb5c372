// SPDX-License-Identifier: MIT
/*
 * libxt_lua - teaches iptables, legacy and nft, "-m lua" and "-j LUA"
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include <linux/types.h>
#include <xtables.h>

#include "xt_lua.h"

/*
 * Parsed by ourselves, not by a table of struct xt_option_entry: that grew a
 * member in iptables 1.8.10, and the guest's iptables need not be the one
 * whose header this is built with.
 */
enum {
	OPTION_FUNCTION,
	OPTION_ARGUMENT,
};

static const struct option options[] = {
	{ .name = "function", .has_arg = required_argument, .val = OPTION_FUNCTION },
	{ .name = "argument", .has_arg = required_argument, .val = OPTION_ARGUMENT },
	XT_GETOPT_TABLEEND,
};

static void put(const char *name, char *to, size_t size, size_t least)
{
	size_t length = strlen(optarg);

	if (length < least || length >= size)
		xtables_error(PARAMETER_PROBLEM, "lua: --%s takes %zu to %zu bytes, not %zu",
			      name, least, size - 1, length);
	memcpy(to, optarg, length + 1);
}

/* Whether the option was one of ours; @seen has a bit for each that was. */
static int parse(int option, unsigned int *seen, struct xt_lua_info *info)
{
	const char *name;

	if (option != OPTION_FUNCTION && option != OPTION_ARGUMENT)
		return 0;
	name = options[option].name;
	if (*seen & 1u << option)
		xtables_error(PARAMETER_PROBLEM, "lua: --%s may be there once", name);
	*seen |= 1u << option;
	if (option == OPTION_FUNCTION)
		put(name, info->function, sizeof(info->function), 1);
	else
		put(name, info->argument, sizeof(info->argument), 0);
	return 1;
}

static void no_invert(int invert)
{
	if (invert)
		xtables_error(PARAMETER_PROBLEM, "lua: no ! can be here");
}

static int match_parse(int option, char **argv, int invert, unsigned int *seen,
		       const void *entry, struct xt_entry_match **match)
{
	struct xt_lua_info *info = (void *)(*match)->data;

	(void)argv;
	(void)entry;
	if (option != OPTION_FUNCTION)
		no_invert(invert);
	else if (invert)
		info->flags |= XT_LUA_INVERT;
	return parse(option, seen, info);
}

static int target_parse(int option, char **argv, int invert, unsigned int *seen,
			const void *entry, struct xt_entry_target **target)
{
	(void)argv;
	(void)entry;
	no_invert(invert);
	return parse(option, seen, (void *)(*target)->data);
}

static void check(unsigned int seen)
{
	if (!(seen & 1u << OPTION_FUNCTION))
		xtables_error(PARAMETER_PROBLEM, "lua: --function is missing");
}

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

static void show(const struct xt_lua_info *info, const char *dashes)
{
	printf("%s %sfunction", info->flags & XT_LUA_INVERT ? " !" : "", dashes);
	/* It puts a space before what it prints, and quotes around it if need be. */
	xtables_save_string(info->function);
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
	.parse = match_parse,
	.final_check = check,
	.extra_opts = options,
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
	.parse = target_parse,
	.final_check = check,
	.extra_opts = options,
};

static void __attribute__((constructor)) register_lua(void)
{
	xtables_register_match(&lua_match);
	xtables_register_target(&lua_target);
}

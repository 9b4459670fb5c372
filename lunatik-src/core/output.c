// SPDX-License-Identifier: GPL-2.0-only
/*
 * print(): to the kernel log, or to who reads /dev/lunatik.
 */
#include <linux/export.h>
#include <linux/printk.h>
#include <linux/ratelimit.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "core.h"

#define LUNATIK_OUTPUT_MAX	SZ_1M	/* bytes kept for a reader */
#define LUNATIK_PRINT_LINE	800

void lunatik_output_reset(struct lunatik_output *output)
{
	kvfree(output->text);
	memset(output, 0, sizeof(*output));
}

/*
 * Process context; control->lock, and the runtime's lock inside a chunk. What
 * does not fit is left out.
 */
void lunatik_output_add(struct lunatik_output *output, const char *text, size_t length)
{
	size_t wanted = output->length + length;

	if (output->error)
		return;
	if (wanted > LUNATIK_OUTPUT_MAX) {
		output->error = -EFBIG;
		return;
	}
	if (wanted > output->size) {
		size_t size = max_t(size_t, wanted * 2, 512);
		char *larger = lunatik_fault() ? NULL : kvmalloc(size, GFP_KERNEL);

		if (!larger) {
			output->error = -ENOMEM;
			return;
		}
		if (output->length)
			memcpy(larger, output->text, output->length);
		kvfree(output->text);
		output->text = larger;
		output->size = size;
	}
	memcpy(output->text + output->length, text, length);
	output->length = wanted;
}

static void log_lines(struct lunatik_runtime *runtime, const char *text, size_t length)
{
	while (length) {
		const char *newline = memchr(text, '\n', length);
		size_t line = newline ? newline - text : length;
		size_t step = line + !!newline;

		/* The rest would be refused as well, at a call for each line. */
		if (!__ratelimit(&runtime->print_limit))
			return;
		pr_info("%s: %.*s\n", runtime->name,
			(int)min_t(size_t, line, LUNATIK_PRINT_LINE), text);
		text += step;
		length -= step;
	}
}

bool lunatik_mayprint(lua_State *L)
{
	return __ratelimit(&lunatik_toruntime(L)->print_limit);
}
EXPORT_SYMBOL_GPL(lunatik_mayprint);

int lunatik_print(lua_State *L)
{
	struct lunatik_runtime *runtime = lunatik_toruntime(L);
	int count = lua_gettop(L);
	const char *text;
	luaL_Buffer buffer;
	size_t length;
	int i;

	luaL_buffinit(L, &buffer);
	for (i = 1; i <= count; i++) {
		if (i > 1)
			luaL_addchar(&buffer, '\t');
		luaL_tolstring(L, i, NULL);
		luaL_addvalue(&buffer);
	}
	if (runtime->output || !count)
		luaL_addchar(&buffer, '\n');
	luaL_pushresult(&buffer);

	text = lua_tolstring(L, -1, &length);
	lunatikvm_charge(L, length / 16 + 50);
	if (runtime->output)
		lunatik_output_add(runtime->output, text, length);
	else
		log_lines(runtime, text, length);
	return 0;
}

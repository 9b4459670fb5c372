// SPDX-License-Identifier: GPL-2.0-only
/*
 * print(): to the kernel log, or to who reads /dev/lunatik. And how all that a
 * runtime has to say gets to the kernel log.
 */
#include <linux/export.h>
#include <linux/jiffies.h>
#include <linux/kern_levels.h>
#include <linux/printk.h>
#include <linux/ratelimit.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "core.h"

#define LUNATIK_OUTPUT_MAX	SZ_1M	/* bytes kept for a reader */
#define LUNATIK_PRINT_LINE	800
#define LUNATIK_USUAL_LINE	64	/* of what a binding prints for a script */

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

/*
 * printk() brings the record to the consoles itself, by drivers that take their
 * port's lock, or waits until whoever is at it hands them over. Deferred, it
 * writes the record to the log as ever, in its order and to be read at once,
 * and leaves the consoles to an interrupt of the kernel's own, which cannot
 * come in the middle of what holds such a lock, since that has interrupts off.
 *
 * This is the kernel's printk_deferred(), which is not exported; what it is
 * made of is.
 */
static __printf(2, 0) void log_record(bool deferred, const char *format, va_list args)
{
#ifdef CONFIG_PRINTK
	if (deferred) {
		vprintk_emit(0, LOGLEVEL_SCHED, NULL, format, args);
		return;
	}
#endif
	vprintk(format, args);
}

void lunatik_printk_deferred(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_record(true, format, args);
	va_end(args);
}
EXPORT_SYMBOL_GPL(lunatik_printk_deferred);

/*
 * Inside of a hardirq runtime the consoles are out of bounds. It may have been
 * entered from anywhere, by a probe also with their locks held. And others
 * spin for its lock with interrupts off, who may be the one that writes to the
 * console at this moment, when the terminal's driver tells a notifier of each
 * character: that one waits for the runtime, so nobody inside may wait for it.
 */
static bool must_defer(struct lunatik_runtime *runtime)
{
	return runtime->context == LUNATIK_HARDIRQ && !lunatik_in_process(runtime);
}

void lunatik_printk(struct lunatik_runtime *runtime, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_record(must_defer(runtime), format, args);
	va_end(args);
}

/*
 * What is written in an interrupt, a CPU brings to the consoles while nobody else
 * can have it: on a serial line of 115200 bits a second 8 KiB take 0.7 s. So all
 * interrupt runtimes share so much, whatever each of them may do by its lines.
 * Errors have their own, or who prints could hide those of others.
 */
#define LUNATIK_ALLOWANCE	((size_t)SZ_8K)	/* bytes in such a time: */
#define LUNATIK_ALLOWED_FOR	(5 * HZ)
#define LUNATIK_PREFIX		32		/* time, level and the like, about */

static DEFINE_RAW_SPINLOCK(allowance_lock);	/* guards the next; IRQs off */
static struct allowance {
	unsigned long since;	/* jiffies */
	size_t written;		/* bytes */
	bool told;		/* that there will be no more */
} allowances[LUNATIK_TOPICS];

static bool take_allowance(struct allowance *allowance, size_t bytes, bool *tell)
{
	bool allowed;

	lockdep_assert_held(&allowance_lock);

	if (!time_in_range(jiffies, allowance->since, allowance->since + LUNATIK_ALLOWED_FOR))
		*allowance = (struct allowance){ .since = jiffies };
	allowed = bytes <= LUNATIK_ALLOWANCE - allowance->written;
	if (allowed)
		allowance->written += bytes;
	*tell = !allowed && !allowance->told;
	allowance->told |= *tell;
	return allowed;
}

/*
 * May it write so many lines, of that length together, where it runs? What is
 * too much for any time may be all there is of one. Context: any but NMI.
 */
bool lunatik_may_write(struct lunatik_runtime *runtime, enum lunatik_topic topic,
		       unsigned int lines, size_t length)
{
	size_t bytes = length + lines * (strlen(runtime->name) + LUNATIK_PREFIX);
	unsigned long flags;
	bool allowed, tell;

	if (lunatik_in_process(runtime))
		return true;
	raw_spin_lock_irqsave(&allowance_lock, flags);
	allowed = take_allowance(&allowances[topic], min(bytes, LUNATIK_ALLOWANCE), &tell);
	raw_spin_unlock_irqrestore(&allowance_lock, flags);
	if (tell)
		lunatik_printk_deferred(KERN_WARNING
					"lunatik: %s: interrupt runtimes have written what they may, more is left out for now\n",
					runtime->name);
	return allowed;
}

static void log_lines(struct lunatik_runtime *runtime, const char *text, size_t length)
{
	while (length) {
		const char *newline = memchr(text, '\n', length);
		size_t line = newline ? newline - text : length;
		size_t step = line + !!newline;
		size_t shown = min_t(size_t, line, LUNATIK_PRINT_LINE);

		/* The rest would be refused as well, at a call for each line. */
		if (!__ratelimit(&runtime->print_limit) ||
		    !lunatik_may_write(runtime, LUNATIK_PRINTS, 1, shown))
			return;
		lunatik_printk(runtime, KERN_INFO "%s: %.*s\n", runtime->name, (int)shown, text);
		text += step;
		length -= step;
	}
}

bool lunatik_mayprint(lua_State *L)
{
	struct lunatik_runtime *runtime = lunatik_toruntime(L);

	return __ratelimit(&runtime->print_limit) &&
	       lunatik_may_write(runtime, LUNATIK_PRINTS, 1, LUNATIK_USUAL_LINE);
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

	lunatikvm_charge(L, 8 * (size_t)count);
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

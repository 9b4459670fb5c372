// SPDX-License-Identifier: GPL-2.0-only
/*
 * Allocations that fail on request: tests/e2e/faults makes each one fail in
 * turn, on any kernel. The kernel's own failslab finds what other code takes
 * for us, where it is built in.
 *
 * While fail_nth is 0 this costs a jump that is patched away.
 */
#include <linux/atomic.h>
#include <linux/export.h>
#include <linux/kernel.h>
#include <linux/moduleparam.h>

#include "core.h"

struct static_key_false lunatik_faulty = STATIC_KEY_FALSE_INIT;
EXPORT_SYMBOL_GPL(lunatik_faulty);

/* Allocations until the next fault; 0 and less: they fail, fail_times of them. */
static atomic_long_t countdown;

static ulong fail_times = 1;
module_param(fail_times, ulong, 0600);
MODULE_PARM_DESC(fail_times, "allocations that fail_nth makes fail, one after another (default 1)");

bool lunatik_fault_due(void)
{
	long left = atomic_long_dec_return(&countdown);

	return left <= 0 && -left < READ_ONCE(fail_times);
}
EXPORT_SYMBOL_GPL(lunatik_fault_due);

static int set_countdown(const char *text, const struct kernel_param *param)
{
	long value;
	int ret;

	ret = kstrtol(text, 0, &value);
	if (ret)
		return ret;
	if (value < 0)
		return -EINVAL;
	atomic_long_set(&countdown, value);
	if (value)
		static_branch_enable(&lunatik_faulty);
	else
		static_branch_disable(&lunatik_faulty);
	return 0;
}

static int get_countdown(char *text, const struct kernel_param *param)
{
	return sysfs_emit(text, "%ld\n", atomic_long_read(&countdown));
}

static const struct kernel_param_ops countdown_ops = {
	.set = set_countdown,
	.get = get_countdown,
};

module_param_cb(fail_nth, &countdown_ops, NULL, 0600);
MODULE_PARM_DESC(fail_nth, "the n-th allocation from now fails, for tests; what is left when read");

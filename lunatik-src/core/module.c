// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module itself: defaults of the caps, start and end.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/time64.h>
#include <asm/tsc.h>

#include "core.h"

static ulong memory = 8 << 20;
module_param(memory, ulong, 0644);
MODULE_PARM_DESC(memory, "bytes that a runtime may hold (default 8 MiB)");

static ulong process_instructions = 10000000;
module_param(process_instructions, ulong, 0644);
MODULE_PARM_DESC(process_instructions,
		 "instructions of one entry of a process runtime (default 10000000)");

static ulong softirq_instructions = 200000;
module_param(softirq_instructions, ulong, 0644);
MODULE_PARM_DESC(softirq_instructions,
		 "instructions of one entry of a softirq runtime (default 200000)");

static ulong hardirq_instructions = 20000;
module_param(hardirq_instructions, ulong, 0644);
MODULE_PARM_DESC(hardirq_instructions,
		 "instructions of one entry of a hardirq runtime (default 20000)");

static uint process_share = 100;
module_param(process_share, uint, 0644);
MODULE_PARM_DESC(process_share,
		 "per cent of a CPU that a process runtime may use over time (default 100)");

static uint interrupt_share = 25;
module_param(interrupt_share, uint, 0644);
MODULE_PARM_DESC(interrupt_share,
		 "per cent of a CPU that an interrupt runtime may use over time (default 25)");

static uint interrupt_total = 75;
module_param(interrupt_total, uint, 0644);
MODULE_PARM_DESC(interrupt_total,
		 "per cent of a CPU that its interrupt runtimes may use together over time (default 75)");

static uint max_runtimes = 256;
module_param(max_runtimes, uint, 0644);
MODULE_PARM_DESC(max_runtimes, "runtimes that may exist or have left something (default 256)");

/* A quarter of the machine's, unless whoever loads the module says otherwise. */
#define LUNATIK_UNSET	ULONG_MAX
static ulong total_memory = LUNATIK_UNSET;
module_param(total_memory, ulong, 0644);
MODULE_PARM_DESC(total_memory,
		 "bytes that all runtimes together may hold (default a quarter of the memory); 0: no limit");

/* Works that wait at once; what is the default of a queue differs by kernel. */
#define LUNATIK_WORKERS	256

struct workqueue_struct *lunatik_workqueue;

/*
 * Apart from the other: there all workers may be waiting for scripts that only a
 * work of this one ends. Its works never wait, and a script that has taken all
 * memory must not keep them from a worker.
 */
struct workqueue_struct *lunatik_killqueue;
u32 lunatik_tick_mult;

void lunatik_default_caps(enum lunatik_context context, struct lunatik_caps *caps)
{
	caps->memory = memory;
	caps->share = context == LUNATIK_PROCESS ? process_share : interrupt_share;
	caps->share = clamp(caps->share, 1U, 100U);
	if (context == LUNATIK_PROCESS)
		caps->instructions = process_instructions;
	else if (context == LUNATIK_SOFTIRQ)
		caps->instructions = softirq_instructions;
	else
		caps->instructions = hardirq_instructions;
}

unsigned int lunatik_interrupt_total(void)
{
	return clamp(READ_ONCE(interrupt_total), 1U, 100U);
}

unsigned int lunatik_max_runtimes(void)
{
	return max_runtimes;
}

u64 lunatik_total_memory(void)
{
	return READ_ONCE(total_memory);
}

static int __init lunatik_init(void)
{
	int ret = -ENOMEM;

	if (total_memory == LUNATIK_UNSET)
		total_memory = (totalram_pages() / 4) << PAGE_SHIFT;
	/* A CPU without such a counter is older than any that this runs on. */
	if (!tsc_khz)
		return -ENODEV;
	lunatik_tick_mult = div_u64((u64)USEC_PER_SEC << LUNATIK_TICK_SHIFT, tsc_khz);

	lunatik_killqueue = alloc_workqueue("lunatik_kill", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!lunatik_killqueue)
		return ret;
	lunatik_workqueue = alloc_workqueue("lunatik", WQ_UNBOUND, LUNATIK_WORKERS);
	if (!lunatik_workqueue)
		goto destroy_kill;
	ret = lunatik_table_init();
	if (ret)
		goto destroy;
	ret = lunatik_control_init();
	if (ret)
		goto free;
	return 0;

free:
	lunatik_table_exit();
destroy:
	destroy_workqueue(lunatik_workqueue);
	rcu_barrier();	/* as in lunatik_exit() */
destroy_kill:
	destroy_workqueue(lunatik_killqueue);
	return ret;
}

/*
 * Every runtime and every open file holds the module, so none is left; but the
 * last work, or callback of RCU, that let go of it may not have returned yet.
 */
static void __exit lunatik_exit(void)
{
	lunatik_control_exit();
	lunatik_table_exit();
	destroy_workqueue(lunatik_workqueue);
	destroy_workqueue(lunatik_killqueue);
	rcu_barrier();
}

module_init(lunatik_init);
module_exit(lunatik_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lua in the kernel: isolated, capped runtimes");

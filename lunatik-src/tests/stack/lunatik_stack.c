// SPDX-License-Identifier: GPL-2.0-only
/*
 * stack: how much of the C stack a script takes, for tests/e2e/runtime/test_c_stack.py.
 *
 * The stack below whoever enters the script is painted first, and looked through
 * from its end after: down to the first word that is another is what was used, by
 * the script and by interrupts that came meanwhile.
 */
#include <linux/align.h>
#include <linux/completion.h>
#include <linux/irq_work.h>
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/sched/task_stack.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <asm/asm.h>

#include "lunatik.h"

#define STACK_SCALE	(THREAD_SIZE / SZ_16K)	/* KASAN doubles stacks */
#define STACK_PAINTED	(11 * SZ_1K * STACK_SCALE)	/* of that of an interrupt */
#define STACK_OWN	256	/* bytes below a frame for who paints and who looks */
#define STACK_EATEN_MAX	8	/* KiB */
#define STACK_TRIES	20	/* until one is not on the stack of a task */
#define STACK_PATTERN	0x5ca1ab1e0ddba11UL

struct stack_trial {
	struct lunatik_runtime *runtime;	/* has a handle in the script that asks */
	int ret;			/* of lunatik_run() */
	unsigned long used;		/* bytes, from who entered */
	unsigned long untouched;	/* of what was painted */
	union {
		struct timer_list timer;
		struct irq_work irq_work;
	};
	struct completion done;		/* the above but those two are as they stay */
};

static noinline __no_sanitize_address void stack_paint(unsigned long low, unsigned long high)
{
	unsigned long *word;

	for (word = (unsigned long *)low; word < (unsigned long *)high; word++)
		WRITE_ONCE(*word, STACK_PATTERN);
}

static noinline __no_sanitize_address unsigned long stack_look(unsigned long low,
							       unsigned long high)
{
	unsigned long *word = (unsigned long *)low;

	while (word < (unsigned long *)high && READ_ONCE(*word) == STACK_PATTERN)
		word++;
	return (unsigned long)word;
}

static int stack_body(lua_State *L, void *arg)
{
	lunatik_pushbody(L);
	lua_call(L, 0, 0);
	return 0;
}

static noinline void trial_run(struct stack_trial *trial, unsigned long low)
{
	unsigned long here = current_stack_pointer;
	unsigned long high = ALIGN_DOWN(here - STACK_OWN, sizeof(long));
	unsigned long first;

	stack_paint(low, high);
	trial->ret = lunatik_run(trial->runtime, stack_body, NULL);
	first = stack_look(low, high);
	trial->used = here - first;
	trial->untouched = first - low;
}

/* The last word of a task's stack is looked at by the scheduler. */
static noinline void trial_in_task(struct stack_trial *trial, unsigned int eaten)
{
	char room[SZ_1K - 64];

	barrier_data(room);
	if (eaten)
		trial_in_task(trial, eaten - 1);
	else
		trial_run(trial, (unsigned long)(end_of_stack(current) + 1));
	barrier_data(room);	/* else the compiler would make a loop of it */
}

/* Below an interrupt's stack is nothing. */
static bool is_stack(unsigned long low, unsigned long high)
{
	unsigned long word;

	for (; low < high; low += PAGE_SIZE)
		if (copy_from_kernel_nofault(&word, (void *)low, sizeof(word)))
			return false;
	return true;
}

static void trial_in_interrupt(struct stack_trial *trial)
{
	unsigned long here = current_stack_pointer;
	unsigned long low = ALIGN_DOWN(here - STACK_PAINTED, sizeof(long));

	trial->ret = -EAGAIN;	/* ksoftirqd has it on its own */
	if (here - (unsigned long)task_stack_page(current) >= THREAD_SIZE && is_stack(low, here))
		trial_run(trial, low);
	complete(&trial->done);
}

static void trial_softirq(struct timer_list *timer)
{
	trial_in_interrupt(container_of(timer, struct stack_trial, timer));
}

static void trial_hardirq(struct irq_work *irq_work)
{
	trial_in_interrupt(container_of(irq_work, struct stack_trial, irq_work));
}

enum stack_where {
	STACK_TASK,
	STACK_SOFTIRQ,
	STACK_HARDIRQ,
};

static void trial_once(struct stack_trial *trial, enum stack_where where, unsigned int eaten)
{
	init_completion(&trial->done);
	switch (where) {
	case STACK_TASK:
		trial_in_task(trial, eaten);
		break;
	case STACK_SOFTIRQ:
		timer_setup(&trial->timer, trial_softirq, 0);
		mod_timer(&trial->timer, jiffies + 1);
		wait_for_completion(&trial->done);
		timer_shutdown_sync(&trial->timer);
		break;
	case STACK_HARDIRQ:
		trial->irq_work = IRQ_WORK_INIT_HARD(trial_hardirq);
		irq_work_queue(&trial->irq_work);
		wait_for_completion(&trial->done);
		irq_work_sync(&trial->irq_work);
		break;
	}
}

/*
 * used(runtime, where, eaten) -> what entering gave, bytes used, bytes not: of the
 * function that its script returned, with so many times 1 KiB of a task's stack gone.
 */
static int stack_used(lua_State *L)
{
	static const char *const names[] = { "task", "softirq", "hardirq", NULL };
	struct lunatik_runtime *runtime = lunatik_checkruntime(L, 1);
	enum stack_where where = luaL_checkoption(L, 2, NULL, names);
	unsigned int eaten = lunatik_optrange(L, 3, 0, 0, STACK_EATEN_MAX);
	unsigned long used, untouched;
	struct stack_trial *trial;
	int tries, ret;

	lunatik_checkwait(L, "stack.used");
	trial = kzalloc(sizeof(*trial), GFP_KERNEL);
	if (!trial)
		return lunatik_throw(L, ENOMEM);
	trial->runtime = runtime;
	trial->ret = -EAGAIN;
	for (tries = 0; tries < STACK_TRIES && trial->ret == -EAGAIN; tries++)
		trial_once(trial, where, eaten * STACK_SCALE);
	ret = trial->ret;
	used = trial->used;
	untouched = trial->untouched;
	kfree(trial);
	lua_pushinteger(L, ret);
	lua_pushinteger(L, used);
	lua_pushinteger(L, untouched);
	return 3;
}

/* size() -> bytes of a stack */
static int stack_size(lua_State *L)
{
	lua_pushinteger(L, THREAD_SIZE);
	return 1;
}

static const luaL_Reg stack_functions[] = {
	{"used", stack_used},
	{"size", stack_size},
	{}
};

static const struct lunatik_library stack_library = {
	.name = "stack",
	.contexts = LUNATIK_PROCESS,
	.functions = stack_functions,
};

LUNATIK_LIBRARY(stack, stack_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: how much of the C stack a script takes");

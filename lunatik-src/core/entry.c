// SPDX-License-Identifier: GPL-2.0-only
/*
 * The way in: every call from the kernel into a runtime takes its lock here,
 * is given its budget, is protected, and is charged.
 *
 * Deadlocks are avoided by never blocking on the lock of one runtime while
 * holding another's: process runtimes wait with trylock and a limit, interrupt
 * runtimes spin outright only on a CPU that is inside no runtime. So lockdep
 * sees no order between runtimes, nor between a runtime's mutex and the RTNL
 * that a notifier's caller holds; who loses such a race gets -EBUSY.
 */
#include <linux/bottom_half.h>
#include <linux/delay.h>
#include <linux/export.h>
#include <linux/jiffies.h>
#include <linux/math64.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/task_work.h>
#include <asm/msr.h>

#include "core.h"

/* How long an entry waits for a process runtime that somebody else is in. */
#define LUNATIK_PATIENCE	(10 * HZ)
#define LUNATIK_HURRY		(HZ / 10)

/* How often an entry that may not wait tries, about 1 us each. */
#define LUNATIK_SPINS		1000

/* The share of the CPU is topped up to at most what this time (ns) earns. */
#define LUNATIK_WINDOW		NSEC_PER_SEC

/*
 * What all interrupt runtimes owe of a CPU at most, in ns: who may use all of it is
 * not refused, and others are not to pay for that long after it has ended.
 */
#define LUNATIK_DEBT		(LUNATIK_WINDOW / 10)

/* What a wait that did not wait costs, in instructions: about its time. */
#define LUNATIK_WAIT_COST	1000

/* Bytes of what is said of a runtime that has used up its share, about. */
#define THROTTLED_LINE		64

/* Instructions after which the Lua machine looks around, at most. */
#define LUNATIK_SLICE		4096

/* How often an entry that others wait for may wait. */
#define LUNATIK_WAITS		10

/*
 * A CPU's interrupt runtimes. What they may use of it together is less than what
 * as many as there may be could use each. All but @inside is read and written
 * inside of one of them only, and written in the outermost only: so nothing
 * comes between.
 */
struct lunatik_pool {
	int inside;		/* those that the CPU is inside of */
	s64 credit;		/* ns of it that they may still use */
	unsigned long credited;	/* jiffies when that was last topped up */
	u64 began;		/* time stamp counter when the outermost came in, then 0 */
};

static DEFINE_PER_CPU(struct lunatik_pool, pool);

struct lunatik_runtime *lunatik_toruntime(lua_State *L)
{
	return *(struct lunatik_runtime **)lua_getextraspace(L);
}
EXPORT_SYMBOL_GPL(lunatik_toruntime);

/* Is whoever runs in it now in process context and free to sleep? */
bool lunatik_in_process(struct lunatik_runtime *runtime)
{
	return runtime->context == LUNATIK_PROCESS ||
	       READ_ONCE(runtime->owner_cpu) < 0;
}

bool lunatik_maysleep(lua_State *L)
{
	return lunatik_in_process(lunatik_toruntime(L));
}
EXPORT_SYMBOL_GPL(lunatik_maysleep);

/* Does much of the kernel wait for whoever runs in it now? */
bool lunatik_hurried(lua_State *L)
{
	return lunatik_toruntime(L)->pace == LUNATIK_HURRIED;
}

gfp_t lunatik_gfp(lua_State *L)
{
	return lunatik_maysleep(L) ? GFP_KERNEL : GFP_ATOMIC;
}
EXPORT_SYMBOL_GPL(lunatik_gfp);

static bool settled(struct lunatik_runtime *runtime, bool *locked)
{
	*locked = mutex_trylock(&runtime->mutex);
	return *locked || READ_ONCE(runtime->state) > LUNATIK_ARMED;
}

/*
 * Where all the kernel waits, those who wait in vain are many: each notifier is
 * told of each event of each device, under one RTNL. So of a second some tenths
 * at most go by that, whoever they are. No lock: a lost write is one wait more.
 */
static unsigned long hurried_in_vain = INITIAL_JIFFIES - HZ;

static long hurry(void)
{
	return time_before(jiffies, READ_ONCE(hurried_in_vain) + HZ) ? 0 : LUNATIK_HURRY;
}

/* Who stops the runtime that the task comes from ends the wait: lunatik_interrupt(). */
static noinline int wait_for_mutex(struct lunatik_runtime *runtime, enum lunatik_pace pace,
				   const struct lunatik_runtime *outer)
{
	long patience = pace == LUNATIK_HURRIED ? hurry() : LUNATIK_PATIENCE;
	bool locked;
	long left;

	left = wait_event_killable_timeout(runtime->unlocked,
					   settled(runtime, &locked) || lunatik_ending(outer),
					   patience);
	if (left > 0 && locked)
		return 0;
	if (left > 0)
		return READ_ONCE(runtime->state) > LUNATIK_ARMED ? -ESHUTDOWN : -EINTR;
	if (!left && patience == LUNATIK_HURRY)
		WRITE_ONCE(hurried_in_vain, jiffies);
	return left ? -EINTR : -EBUSY;
}

/* The task becomes the one that lunatik_interrupt() wakes. */
void lunatik_own(struct lunatik_runtime *runtime)
{
	/*
	 * No lock: whoever stops the runtime says so before they look for an
	 * owner, and here the owner stands before anybody looks whether it is
	 * stopped.
	 */
	smp_store_mb(runtime->owner, current);
}

/*
 * Take back what lunatik_interrupt() has set. Else the task could not sleep in the
 * runtimes that it is in besides before it returns to user mode, which a kernel
 * thread never does. Work that the flag was for as well is done there all the same.
 */
static noinline void calm(void)
{
	clear_thread_flag(TIF_NOTIFY_SIGNAL);
	smp_mb__after_atomic();	/* what it was set for is there before it */
	if (task_work_pending(current))
		set_thread_flag(TIF_NOTIFY_RESUME);
}

/* The task inside is to end, or one that it is in as well is. By that task. */
static bool interrupted(const struct lunatik_runtime *runtime)
{
	for (; runtime; runtime = runtime->outer)
		if (READ_ONCE(runtime->stop_requested) ||
		    (runtime->asked && READ_ONCE(*runtime->asked)))
			return true;
	return false;
}

/* Nobody is about to wake the task any more: its struct may go. */
void lunatik_disown(struct lunatik_runtime *runtime)
{
	raw_spin_lock_irq(&runtime->state_lock);
	WRITE_ONCE(runtime->owner, NULL);
	raw_spin_unlock_irq(&runtime->state_lock);
	if (READ_ONCE(runtime->stop_requested)) {
		calm();
		/* Who interrupts one of those says so first, and sets the flag then. */
		if (interrupted(runtime->outer))
			set_thread_flag(TIF_NOTIFY_SIGNAL);
	}
	runtime->outer = NULL;
}

static unsigned long switches_of(const struct task_struct *task)
{
	return READ_ONCE(task->nvcsw) + READ_ONCE(task->nivcsw);
}

/*
 * Where CPU time is counted from. Who was not switched away from used all the
 * time that passed, on one CPU: its time stamp counter tells, and local_clock()
 * costs ten times more. Only who was, in process context, is asked for what the
 * scheduler knows, which it brings up to date at switches and ticks: an entry
 * that is shorter than a tick is free by that, or pays for all since the last.
 */
static __always_inline void start_clock(struct lunatik_runtime *runtime)
{
	if (runtime->context == LUNATIK_PROCESS) {
		/* First: a switch from here on is one too many. */
		runtime->clock.switches = switches_of(current);
		runtime->clock.executed = READ_ONCE(current->se.sum_exec_runtime);
	}
	runtime->clock.ticks = rdtsc();
}

static __always_inline s64 ns_of_ticks(u64 ticks)
{
	return mul_u64_u32_shr(ticks, lunatik_tick_mult, LUNATIK_TICK_SHIFT);
}

/* CPU time since start_clock(), in ns. */
static __always_inline u64 read_clock(struct lunatik_runtime *runtime)
{
	u64 ticks = rdtsc() - runtime->clock.ticks;

	if (runtime->context == LUNATIK_PROCESS &&
	    runtime->clock.switches != switches_of(current))
		return READ_ONCE(current->se.sum_exec_runtime) - runtime->clock.executed;
	return ns_of_ticks(ticks);
}

static __always_inline int enter_process(struct lunatik_runtime *runtime,
					 enum lunatik_pace pace,
					 struct lunatik_runtime *outer)
{
	might_sleep();
	if (READ_ONCE(runtime->owner) == current)
		return -EDEADLK;
	if (unlikely(!mutex_trylock(&runtime->mutex))) {
		int ret = wait_for_mutex(runtime, pace, outer);

		if (ret)
			return ret;
	}
	if (outer)	/* else it is NULL since the last has left */
		runtime->outer = outer;
	lunatik_own(runtime);
	return 0;
}

/* To load it, and to give it up: the way in when there is no entry to count. */
int lunatik_enter_process(struct lunatik_runtime *runtime)
{
	int ret = enter_process(runtime, LUNATIK_USUAL, NULL);

	if (!ret)
		start_clock(runtime);
	return ret;
}

static __always_inline void leave_process(struct lunatik_runtime *runtime)
{
	lockdep_assert_held(&runtime->mutex);

	lunatik_disown(runtime);
	mutex_unlock(&runtime->mutex);
	/* Its barrier stands between that and the look; theirs in wait_event(). */
	if (wq_has_sleeper(&runtime->unlocked))
		wake_up(&runtime->unlocked);
}

void lunatik_leave_process(struct lunatik_runtime *runtime)
{
	leave_process(runtime);
}

static noinline bool spin_trylock_bounded(struct lunatik_runtime *runtime)
{
	int spins;

	for (spins = 0; spins < LUNATIK_SPINS; spins++) {
		if (spin_trylock(&runtime->spin)) {
			__release(&runtime->spin);	/* see enter_interrupt() */
			return true;
		}
		udelay(1);
	}
	return false;
}

/*
 * What sparse is told, here and in leave_interrupt(): that the lock is not
 * held on return, since it can't see that the result says whether it is.
 */
static __always_inline int enter_interrupt(struct lunatik_runtime *runtime,
					   unsigned long *flags)
{
	int ret = -EDEADLK;

	*flags = 0;
	if (runtime->context == LUNATIK_SOFTIRQ) {
		if (in_hardirq() || irqs_disabled())
			return -EDEADLK;
		local_bh_disable();
	} else {
		if (in_nmi())
			return -EDEADLK;
		local_irq_save(*flags);
	}

	if (READ_ONCE(runtime->owner_cpu) == smp_processor_id())
		goto refuse;

	if (__this_cpu_read(pool.inside)) {
		ret = -EBUSY;
		if (!spin_trylock_bounded(runtime))
			goto refuse;
	} else {
		spin_lock(&runtime->spin);
		__release(&runtime->spin);
	}

	__this_cpu_inc(pool.inside);
	WRITE_ONCE(runtime->owner_cpu, smp_processor_id());
	return 0;

refuse:
	if (runtime->context == LUNATIK_SOFTIRQ)
		local_bh_enable();
	else
		local_irq_restore(*flags);
	return ret;
}

static __always_inline void leave_interrupt(struct lunatik_runtime *runtime,
					    unsigned long flags)
{
	WRITE_ONCE(runtime->owner_cpu, -1);
	__this_cpu_dec(pool.inside);
	__acquire(&runtime->spin);
	if (runtime->context == LUNATIK_SOFTIRQ)
		spin_unlock_bh(&runtime->spin);
	else
		spin_unlock_irqrestore(&runtime->spin, flags);
}

static __always_inline bool ticked(unsigned long since)
{
	unsigned long now = jiffies;

	return now != since;
}

/* Once a tick: whoever calls it has seen that @credited is over. */
static noinline void top_up(s64 *credit, unsigned long *credited, unsigned int share)
{
	unsigned long now = jiffies;
	s64 limit = (s64)LUNATIK_WINDOW * share / 100;
	s64 passed;

	passed = min_t(u64, (u64)(now - *credited) * TICK_NSEC, LUNATIK_WINDOW);
	*credit = min(*credit + passed * share / 100, limit);
	*credited = now;
}

static __always_inline void earn(struct lunatik_runtime *runtime)
{
	if (ticked(runtime->credited))
		top_up(&runtime->credit, &runtime->credited, runtime->caps.share);
}

static __always_inline u64 spend(struct lunatik_runtime *runtime)
{
	u64 spent = read_clock(runtime);

	runtime->time += spent;
	runtime->credit -= spent;
	return spent;
}

static noinline void pool_earn(void)
{
	struct lunatik_pool *mine = this_cpu_ptr(&pool);

	top_up(&mine->credit, &mine->credited, lunatik_interrupt_total());
}

/* In an interrupt runtime: is there something left for it of what all may use? */
static __always_inline bool pool_has_some(void)
{
	if (__this_cpu_read(pool.inside) > 1) {
		u64 began = __this_cpu_read(pool.began);

		return __this_cpu_read(pool.credit) > (began ? ns_of_ticks(rdtsc() - began) : 0);
	}
	if (ticked(__this_cpu_read(pool.credited)))
		pool_earn();
	return __this_cpu_read(pool.credit) > 0;
}

static __always_inline void pool_start(const struct lunatik_runtime *runtime)
{
	if (__this_cpu_read(pool.inside) == 1)
		__this_cpu_write(pool.began, runtime->clock.ticks);
}

/* The outermost has used what those inside of it have as well. */
static __always_inline void pool_spend(u64 spent)
{
	if (__this_cpu_read(pool.inside) == 1) {
		__this_cpu_write(pool.credit, max(__this_cpu_read(pool.credit) - (s64)spent,
						  -(s64)LUNATIK_DEBT));
		__this_cpu_write(pool.began, 0);
	}
}

static bool shared(struct lunatik_runtime *runtime)
{
	return runtime->caps.share < 100;
}

static bool may_pay(struct lunatik_runtime *runtime, enum lunatik_pace pace)
{
	return runtime->context == LUNATIK_PROCESS && pace != LUNATIK_HURRIED;
}

/*
 * Sleep off what a process runtime owes of its share. With its lock held: who
 * waits for that uses the same share. What ends a wait ends this.
 */
static void pay(struct lunatik_runtime *runtime)
{
	while (runtime->credit < 0 && !signal_pending(current) &&
	       !READ_ONCE(runtime->stop_requested)) {
		runtime->throttled++;
		schedule_timeout_interruptible(HZ / 50 + 1);
		earn(runtime);
	}
}

/* The task inside gives up the CPU, or might: what it used is counted first. */
static void settle(struct lunatik_runtime *runtime)
{
	if (runtime->context != LUNATIK_PROCESS || !shared(runtime))
		return;
	spend(runtime);
	start_clock(runtime);
	earn(runtime);
	if (runtime->pace != LUNATIK_HURRIED)
		pay(runtime);
}

static noinline void throttle(struct lunatik_runtime *runtime)
{
	bool own = runtime->credit <= 0;

	if (runtime->throttled++ ||
	    !lunatik_may_write(runtime, LUNATIK_ERRORS, 1, THROTTLED_LINE))
		return;
	lunatik_printk(runtime, KERN_WARNING
		       "lunatik: %s: %s used up %u %% of a CPU, its hooks fall back for now\n",
		       runtime->name, own ? "it has" : "all interrupt scripts have",
		       own ? runtime->caps.share : lunatik_interrupt_total());
}

/*
 * The way in and out is inlined into lunatik_run(): calls among its parts were
 * a tenth of what an empty callback costs.
 */

/**
 * enter() - take the lock of an armed runtime
 * @runtime: the caller owns a reference
 * @flags: for leave()
 * @pace: what hangs on this task
 * @outer: whose entry this one is in, if it may sleep; or NULL
 *
 * Return: 0, or one of the errors of lunatik_run(), with no lock held.
 */
static __always_inline int enter(struct lunatik_runtime *runtime, unsigned long *flags,
				 enum lunatik_pace pace, struct lunatik_runtime *outer)
{
	bool enough;
	int ret;

	if (runtime->cpu >= 0 && runtime->cpu != raw_smp_processor_id())
		return -EREMOTE;
	if (READ_ONCE(runtime->state) != LUNATIK_ARMED)
		return -ESHUTDOWN;

	if (runtime->context == LUNATIK_PROCESS)
		ret = enter_process(runtime, pace, outer);
	else
		ret = enter_interrupt(runtime, flags);
	if (ret)
		return ret;

	if (READ_ONCE(runtime->state) != LUNATIK_ARMED) {
		ret = -ESHUTDOWN;
		goto leave;
	}
	enough = runtime->context == LUNATIK_PROCESS || pool_has_some();
	if (shared(runtime)) {
		earn(runtime);
		if (!enough || (runtime->credit <= 0 && !may_pay(runtime, pace))) {
			throttle(runtime);
			ret = -EAGAIN;
			goto leave;
		}
		if (runtime->context == LUNATIK_PROCESS) {
			pay(runtime);
			if (READ_ONCE(runtime->state) != LUNATIK_ARMED) {	/* meanwhile */
				ret = -ESHUTDOWN;
				goto leave;
			}
		}
	}
	runtime->pace = pace;
	runtime->entries++;
	start_clock(runtime);
	if (runtime->context != LUNATIK_PROCESS)
		pool_start(runtime);
	return 0;

leave:
	if (runtime->context == LUNATIK_PROCESS)
		lunatik_leave_process(runtime);
	else
		leave_interrupt(runtime, *flags);
	return ret;
}

static __always_inline void leave(struct lunatik_runtime *runtime, unsigned long flags)
{
	u64 spent = spend(runtime);

	if (runtime->context == LUNATIK_PROCESS) {
		leave_process(runtime);
	} else {
		pool_spend(spent);
		leave_interrupt(runtime, flags);
	}
}

/* Wake whoever sleeps inside a runtime: its waits end as by a signal. */
void lunatik_interrupt(struct lunatik_runtime *runtime)
{
	struct task_struct *owner;
	unsigned long flags;

	smp_mb();	/* as lunatik_own() says */
	raw_spin_lock_irqsave(&runtime->state_lock, flags);
	owner = READ_ONCE(runtime->owner);
	if (owner && owner != current) {
		set_tsk_thread_flag(owner, TIF_NOTIFY_SIGNAL);
		wake_up_process(owner);
	}
	raw_spin_unlock_irqrestore(&runtime->state_lock, flags);
	wake_up_all(&runtime->unlocked);
}

/*
 * The task inside was killed, and the script with it. Not so a script that it
 * only calls, such as a device's, which serves others: there all waits end at
 * once, and the budget ends the rest.
 */
static bool killed(struct lunatik_runtime *runtime)
{
	return runtime->pace == LUNATIK_PATIENT && fatal_signal_pending(current);
}

/*
 * Called by the Lua machine now and then. A script in process context gives
 * way to others here, also on kernels without preemption; sleeps off what it
 * owes of its share; and ends when its task is killed.
 */
void lunatik_pause(lua_State *L, void *data)
{
	struct lunatik_runtime *runtime = data;

	if (!lunatik_in_process(runtime))
		return;
	if (killed(runtime))
		lunatikvm_stop(L, LUNATIKVM_REQUEST);
	cond_resched();
	settle(runtime);
}

static noinline u64 larger_budget(struct lunatik_runtime *runtime)
{
	struct lunatik_caps caps;

	lunatik_default_caps(LUNATIK_PROCESS, &caps);
	return max(runtime->caps.instructions, caps.instructions);
}

/* The body of an interrupt script, and its end, are in nobody's way. */
u64 lunatik_budget(struct lunatik_runtime *runtime)
{
	if (runtime->context == LUNATIK_PROCESS || !lunatik_in_process(runtime))
		return runtime->caps.instructions;
	return larger_budget(runtime);
}

static int failed(struct lunatik_runtime *runtime, lua_State *L, int status,
		  struct lunatik_error *error, struct lunatik_hook *hook)
{
	enum lunatikvm_reason why = lunatikvm_stopped(L);
	const char *text = "error object is not a string";
	char reason[sizeof(runtime->reason)];
	int ret = status == LUA_ERRMEM ? -ENOMEM : -EINVAL;

	runtime->errors++;
	if (why != LUNATIKVM_RUNNING) {
		snprintf(reason, sizeof(reason), "%s%s%s", lunatikvm_why(why),
			 *lunatikvm_where(L) ? " at " : "", lunatikvm_where(L));
		text = reason;
		ret = why == LUNATIKVM_REQUEST ? -ESHUTDOWN : -EDQUOT;
		lunatik_break(runtime, reason);
	} else if (lua_type(L, -1) == LUA_TSTRING) {
		/* Any other type would be converted, which may throw. */
		text = lua_tostring(L, -1);
	}

	if (error) {
		error->text = NULL;
		if (!lunatik_fault())
			error->text = kstrdup(text, (lunatik_in_process(runtime) ?
						     GFP_KERNEL : GFP_ATOMIC) | __GFP_NOWARN);
		if (!error->text && ret == -EINVAL)
			ret = -ENOMEM;	/* all that can be said without text */
		error->code = ret;
	} else if (why == LUNATIKVM_RUNNING) {
		lunatik_log(runtime, hook, text);
	}
	return ret;
}

static __always_inline int call(struct lunatik_runtime *runtime, lunatik_handler handler,
				void *arg, struct lunatik_error *error,
				struct lunatik_hook *hook)
{
	struct lunatikvm_result result;
	lua_State *L = runtime->L;
	int status;

	runtime->switches = current->nvcsw;
	status = lunatikvm_call(L, lunatik_budget(runtime), handler, arg, lunatik_traceback,
				&result);
	runtime->instructions += result.instructions;
	if (error)
		error->instructions += result.instructions;
	if (unlikely(status != LUA_OK)) {
		result.value = failed(runtime, L, status, error, hook);
		lua_settop(L, 0);
	}
	return result.value;
}

/**
 * lunatik_call() - run a handler in a Lua state that the caller owns
 * @runtime: locked, or loading in this task
 * @handler: what to do
 * @arg: for @handler
 * @error: where to leave the message; NULL: the kernel log
 *
 * Return: as lunatik_run().
 */
int lunatik_call(struct lunatik_runtime *runtime, lunatik_handler handler, void *arg,
		 struct lunatik_error *error)
{
	return call(runtime, handler, arg, error, NULL);
}

static __always_inline int enter_and_call(struct lunatik_runtime *runtime,
					  lunatik_handler handler, void *arg,
					  struct lunatik_error *error,
					  enum lunatik_pace pace,
					  struct lunatik_runtime *outer, const bool *asked)
{
	unsigned long flags;
	int ret;

	ret = enter(runtime, &flags, pace, outer);
	if (ret)
		return ret;
	if (asked)
		runtime->asked = asked;
	ret = call(runtime, handler, arg, error, NULL);
	if (asked)
		runtime->asked = NULL;
	if (pace == LUNATIK_PATIENT)
		runtime->output = NULL;		/* it was lent to this entry */
	leave(runtime, flags);
	return ret;
}

/**
 * lunatik_resume() - lunatik_run() with the message of a failure
 * @runtime: as for lunatik_run()
 * @handler: as for lunatik_run()
 * @arg: as for lunatik_run()
 * @error: where to leave the message; NULL: the kernel log
 * @pace: what hangs on this task
 * @outer: the runtime whose script calls, or NULL
 *
 * Return: as lunatik_run().
 */
int lunatik_resume(struct lunatik_runtime *runtime, lunatik_handler handler, void *arg,
		   struct lunatik_error *error, enum lunatik_pace pace,
		   struct lunatik_runtime *outer)
{
	return enter_and_call(runtime, handler, arg, error, pace, outer, NULL);
}

int lunatik_run(struct lunatik_runtime *runtime, lunatik_handler handler, void *arg)
{
	return enter_and_call(runtime, handler, arg, NULL, LUNATIK_USUAL, NULL, NULL);
}
EXPORT_SYMBOL_GPL(lunatik_run);

int lunatik_run_finally(struct lunatik_hook *hook, lunatik_handler handler,
			void (*finally)(void *arg), void *arg)
{
	struct lunatik_runtime *runtime = hook->runtime;
	unsigned long flags;
	int ret;

	ret = enter(runtime, &flags, LUNATIK_USUAL, NULL);
	if (ret)
		return ret;
	ret = call(runtime, handler, arg, NULL, hook);
	finally(arg);
	leave(runtime, flags);
	return ret;
}
EXPORT_SYMBOL_GPL(lunatik_run_finally);

int lunatik_run_alone(struct lunatik_runtime *runtime, lunatik_handler handler, void *arg,
		      const bool *asked)
{
	return enter_and_call(runtime, handler, arg, NULL, LUNATIK_PATIENT, NULL, asked);
}
EXPORT_SYMBOL_GPL(lunatik_run_alone);

int lunatik_run_hurried(struct lunatik_runtime *runtime, lunatik_handler handler, void *arg)
{
	return lunatik_resume(runtime, handler, arg, NULL, LUNATIK_HURRIED, NULL);
}
EXPORT_SYMBOL_GPL(lunatik_run_hurried);

/* Somebody waits for the end of this entry, and must not for ever. */
static bool awaited(struct lunatik_runtime *runtime)
{
	return runtime->pace == LUNATIK_HURRIED || runtime->closing ||
	       fatal_signal_pending(current) || lunatik_ending(runtime->outer);
}

/*
 * A script calls another: what that takes has a budget of its own. But not where
 * somebody waits for both: a loop of calls would have as many budgets.
 */
void lunatik_charge_nested(lua_State *L, u64 instructions)
{
	if (!lunatik_maysleep(L) || awaited(lunatik_toruntime(L)))
		lunatikvm_charge(L, instructions);
}

/*
 * A wait that ended at once, since the task is being interrupted or there was
 * nothing to wait for, gave up no CPU and is no new entry: or a loop of such
 * waits would never end, nor let anybody else run. Nor is it one for whom
 * others wait, under RTNL perhaps: of those it gets a few.
 */
void lunatik_slept(lua_State *L)
{
	struct lunatik_runtime *runtime = lunatik_toruntime(L);
	bool waited = runtime->switches != current->nvcsw;

	cond_resched();
	if (killed(runtime))
		lunatikvm_stop(L, LUNATIKVM_REQUEST);
	settle(runtime);
	if (!waited) {
		/* Who is stopped is to see it now: its next wait might be the last. */
		lunatikvm_charge(L, lunatikvm_stopped(L) ? LUNATIK_SLICE : LUNATIK_WAIT_COST);
		return;
	}
	runtime->switches = current->nvcsw;
	if (awaited(runtime)) {
		lunatikvm_charge(L, lunatik_budget(runtime) / LUNATIK_WAITS);
		return;
	}
	runtime->instructions += lunatikvm_leave(L);
	lunatikvm_enter(L, lunatik_budget(runtime));
	lunatikvm_charge(L, 1);
}
EXPORT_SYMBOL_GPL(lunatik_slept);

void lunatik_charge(lua_State *L, size_t units)
{
	lunatikvm_charge(L, units);
}
EXPORT_SYMBOL_GPL(lunatik_charge);

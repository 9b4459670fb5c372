// SPDX-License-Identifier: GPL-2.0-only
/*
 * The life of a runtime: made, loaded, armed; broken or stopped; gone.
 *
 * Whoever stops it, from wherever: one work does it. It refuses new entries,
 * wakes and after a second of grace kills what runs inside, takes the hooks
 * out (each waits for its last callback), closes the Lua state, and lets go of
 * the modules that it has seen.
 * A runtime that breaks a cap loses its Lua state, and with it its memory, but
 * keeps its hooks, which do their fallback until somebody stops it.
 */
#include <linux/cpumask.h>
#include <linux/export.h>
#include <linux/ratelimit.h>
#include <linux/jiffies.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/timer.h>

#include "core.h"

/* What a script that is being stopped has to come to an end by itself. */
#define LUNATIK_GRACE	HZ

/*
 * How long a script's rt:stop() waits for the end: long where nothing else
 * hangs on it, short in a callback, whose caller may hold locks (the RTNL)
 * that the end may need; the end then comes by itself a little later.
 */
#define LUNATIK_WAIT_PATIENT	(10 * HZ)
#define LUNATIK_WAIT_CALLBACK	(HZ / 10)

LIST_HEAD(lunatik_runtimes);
DEFINE_MUTEX(lunatik_runtimes_lock);	/* guards lunatik_runtimes */

/* Those that count against max_runtimes; grows under lunatik_runtimes_lock only. */
static atomic_t runtimes;

enum lunatik_context lunatik_context(const struct lunatik_runtime *runtime)
{
	return runtime->context;
}
EXPORT_SYMBOL_GPL(lunatik_context);

const char *lunatik_name(const struct lunatik_runtime *runtime)
{
	return runtime->name;
}
EXPORT_SYMBOL_GPL(lunatik_name);

int lunatik_cpu(const struct lunatik_runtime *runtime)
{
	return runtime->cpu;
}
EXPORT_SYMBOL_GPL(lunatik_cpu);

void lunatik_add_timer(const struct lunatik_runtime *runtime, struct timer_list *timer)
{
	/* That CPU cannot go meanwhile: a wheel of one that is gone stands still. */
	preempt_disable();
	if (runtime->cpu < 0 || !cpu_online(runtime->cpu))
		add_timer(timer);
	else
		add_timer_on(timer, runtime->cpu);
	preempt_enable();
}
EXPORT_SYMBOL_GPL(lunatik_add_timer);

static void runtime_free(struct kref *kref)
{
	struct lunatik_runtime *runtime = container_of(kref, struct lunatik_runtime, kref);

	/* Whatever is on its account holds a reference. */
	WARN_ON_ONCE(atomic64_read(&runtime->objects) || runtime->granted);
	kfree(runtime);
	module_put(THIS_MODULE);
}

struct lunatik_runtime *lunatik_get(struct lunatik_runtime *runtime)
{
	kref_get(&runtime->kref);
	return runtime;
}
EXPORT_SYMBOL_GPL(lunatik_get);

void lunatik_put(struct lunatik_runtime *runtime)
{
	kref_put(&runtime->kref, runtime_free);
}
EXPORT_SYMBOL_GPL(lunatik_put);

/* It, or one that the task inside is in as well. By that task. */
bool lunatik_ending(const struct lunatik_runtime *runtime)
{
	for (; runtime; runtime = runtime->outer)
		if (READ_ONCE(runtime->stop_requested))
			return true;
	return false;
}

bool lunatik_stopping(lua_State *L)
{
	return lunatik_ending(lunatik_toruntime(L));
}
EXPORT_SYMBOL_GPL(lunatik_stopping);

/* Without the CPU that it serves. */
static size_t script_length(const struct lunatik_runtime *runtime)
{
	const char *end = runtime->cpu < 0 ? NULL : strrchr(runtime->name, ':');

	return end ? end - runtime->name : strlen(runtime->name);
}

static bool same_script(const struct lunatik_runtime *a, const struct lunatik_runtime *b)
{
	size_t length = script_length(a);

	if (a->cpu != b->cpu && a->cpu >= 0 && b->cpu >= 0)
		return false;	/* each serves its own */
	return length == script_length(b) && !memcmp(a->name, b->name, length);
}

/* Who is being stopped is in nobody's way. */
static bool is_taken(const struct lunatik_runtime *runtime)
{
	const struct lunatik_runtime *other;

	lockdep_assert_held(&lunatik_runtimes_lock);

	list_for_each_entry(other, &lunatik_runtimes, node)
		if (other->only && !READ_ONCE(other->stop_requested) &&
		    same_script(runtime, other))
			return true;
	return false;
}

/*
 * A runtime counts from its start until nothing is on its account any more: what
 * it has made and others hold, in lunatik._ENV for one, outlives its stop, and
 * max_runtimes times the memory of each is all that scripts can hold. Until it
 * stops its own struct is on the account, so the account is empty once only.
 * Sessions do not count: who is to stop what has taken all the room needs one.
 *
 * -EEXIST: it was to be the only one. -ENFILE. -ENOSPC: the others hold all the
 * memory that there is for them.
 */
static int enlist(struct lunatik_runtime *runtime)
{
	int ret = -EEXIST;

	mutex_lock(&lunatik_runtimes_lock);
	if (runtime->only && is_taken(runtime))
		goto unlock;
	ret = -ENFILE;
	if (!runtime->session && atomic_read(&runtimes) >= lunatik_max_runtimes())
		goto unlock;
	ret = -ENOSPC;
	if (!lunatik_grant(runtime, min_t(u64, sizeof(*runtime), runtime->caps.memory)))
		goto unlock;
	atomic_set(&runtime->counted, !runtime->session);
	atomic_add(!runtime->session, &runtimes);
	atomic64_set(&runtime->objects, sizeof(*runtime));
	list_add_tail(&runtime->node, &lunatik_runtimes);
	ret = 0;
unlock:
	mutex_unlock(&lunatik_runtimes_lock);
	return ret;
}

static void delist(struct lunatik_runtime *runtime)
{
	mutex_lock(&lunatik_runtimes_lock);
	list_del_init(&runtime->node);
	mutex_unlock(&lunatik_runtimes_lock);
	lunatik_unaccount(runtime, sizeof(*runtime));
}

/* The account is empty. Context: any, whatever is held. */
void lunatik_uncount(struct lunatik_runtime *runtime)
{
	lunatik_drop_grant(runtime);
	if (atomic_xchg(&runtime->counted, 0))
		atomic_dec(&runtimes);
}

static lua_State *take_state(struct lunatik_runtime *runtime)
{
	unsigned long flags;
	lua_State *L;

	raw_spin_lock_irqsave(&runtime->state_lock, flags);
	WARN_ON_ONCE(runtime->state == LUNATIK_ARMED);
	L = runtime->L;
	runtime->L = NULL;
	raw_spin_unlock_irqrestore(&runtime->state_lock, flags);
	return L;
}

/*
 * Take the Lua state away from everybody, once the last entry has left. After
 * that no entry runs nor comes. Process context, no lock held.
 */
static lua_State *detach_state(struct lunatik_runtime *runtime)
{
	lua_State *L;

	if (runtime->context == LUNATIK_PROCESS) {
		mutex_lock(&runtime->mutex);
		L = take_state(runtime);
		mutex_unlock(&runtime->mutex);
	} else {
		spin_lock_irq(&runtime->spin);
		L = take_state(runtime);
		spin_unlock_irq(&runtime->spin);
	}
	return L;
}

/*
 * Finalizers of a script that was stopped in peace may run, within one budget;
 * those of one that was killed find the machine stopped.
 */
static void close_state(struct lunatik_runtime *runtime, lua_State *L)
{
	if (!L)
		return;
	runtime->instructions = lunatikvm_used(L);
	runtime->closing = true;
	runtime->pace = LUNATIK_USUAL;
	lunatikvm_enter(L, lunatik_budget(runtime));
	lua_close(L);
	WARN_ON_ONCE(runtime->memory);
	smp_store_release(&runtime->closed, true);	/* its memory stands */
	lunatik_trim_grant(runtime);
}

/* A work: process context, nothing held; never while stop_work() closes it. */
static void kill_work(struct work_struct *work)
{
	struct lunatik_runtime *runtime =
		container_of(to_delayed_work(work), struct lunatik_runtime, kill_work);
	unsigned long flags;

	raw_spin_lock_irqsave(&runtime->state_lock, flags);
	if (runtime->L)
		lunatikvm_stop(runtime->L, LUNATIKVM_REQUEST);
	raw_spin_unlock_irqrestore(&runtime->state_lock, flags);
	lunatik_interrupt(runtime);
}

/* A work: process context, nothing held; the runtime is BROKEN, or stopped since. */
static void bury_work(struct work_struct *work)
{
	struct lunatik_runtime *runtime =
		container_of(work, struct lunatik_runtime, bury_work);

	close_state(runtime, detach_state(runtime));
	lunatik_put(runtime);
}

/* A work: process context, nothing held; once for each runtime. */
static void stop_work(struct work_struct *work)
{
	struct lunatik_runtime *runtime =
		container_of(work, struct lunatik_runtime, stop_work);
	unsigned long flags;
	lua_State *L;

	raw_spin_lock_irqsave(&runtime->state_lock, flags);
	WRITE_ONCE(runtime->state, LUNATIK_STOPPING);
	raw_spin_unlock_irqrestore(&runtime->state_lock, flags);

	lunatik_interrupt(runtime);
	queue_delayed_work(lunatik_killqueue, &runtime->kill_work, LUNATIK_GRACE);
	L = detach_state(runtime);
	cancel_delayed_work_sync(&runtime->kill_work);
	lunatik_hooks_stop(runtime);
	close_state(runtime, L);
	if (cancel_work_sync(&runtime->bury_work))
		lunatik_put(runtime);
	lunatik_unpin_all(runtime);

	delist(runtime);

	raw_spin_lock_irqsave(&runtime->state_lock, flags);
	WRITE_ONCE(runtime->state, LUNATIK_STOPPED);
	raw_spin_unlock_irqrestore(&runtime->state_lock, flags);
	complete_all(&runtime->stopped);
	lunatik_put(runtime);
}

static void queue_stop(struct lunatik_runtime *runtime)
{
	lockdep_assert_held(&runtime->state_lock);

	if (runtime->stop_queued)
		return;
	runtime->stop_queued = true;
	lunatik_get(runtime);
	queue_work(lunatik_workqueue, &runtime->stop_work);
}

/**
 * lunatik_stop() - end a runtime, soon
 * @runtime: any, in any state, any number of times
 *
 * Context: any. While the script is being loaded the loading task ends it.
 */
void lunatik_stop(struct lunatik_runtime *runtime)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&runtime->state_lock, flags);
	WRITE_ONCE(runtime->stop_requested, true);
	if (runtime->state != LUNATIK_LOADING)
		queue_stop(runtime);
	else if (runtime->L)
		lunatikvm_stop(runtime->L, LUNATIKVM_REQUEST);
	raw_spin_unlock_irqrestore(&runtime->state_lock, flags);
	lunatik_interrupt(runtime);
}
EXPORT_SYMBOL_GPL(lunatik_stop);

/* How long a script may wait for the end of whom it stops, in jiffies. */
unsigned long lunatik_stop_patience(const struct lunatik_runtime *waiter)
{
	return waiter->pace == LUNATIK_PATIENT ? LUNATIK_WAIT_PATIENT : LUNATIK_WAIT_CALLBACK;
}

/* Wait so long for the end of a runtime that lunatik_stop() was called for. */
void lunatik_wait_stopped(struct lunatik_runtime *runtime, struct lunatik_runtime *waiter,
			  unsigned long patience)
{
	if (!lunatik_in_process(waiter) || READ_ONCE(runtime->owner) == current)
		return;
	if (runtime == waiter)
		return;
	wait_for_completion_interruptible_timeout(&runtime->stopped, patience);
}

/* The script broke a cap: called by the owner of its Lua state. */
void lunatik_break(struct lunatik_runtime *runtime, const char *reason)
{
	static DEFINE_RATELIMIT_STATE(limit, 5 * HZ, 100);
	unsigned long flags;
	bool armed;

	raw_spin_lock_irqsave(&runtime->state_lock, flags);
	armed = runtime->state == LUNATIK_ARMED;
	if (!*runtime->reason)
		strscpy(runtime->reason, reason, sizeof(runtime->reason));
	if (armed) {
		WRITE_ONCE(runtime->state, LUNATIK_BROKEN);
		lunatik_get(runtime);
		queue_work(lunatik_workqueue, &runtime->bury_work);
	}
	raw_spin_unlock_irqrestore(&runtime->state_lock, flags);

	/* Others may be made again and again, to be stopped: each would be the first. */
	if (armed && lunatik_may_write(runtime, LUNATIK_ERRORS, 1, strlen(reason)) &&
	    __ratelimit(&limit))
		lunatik_printk(runtime, KERN_ERR "lunatik: %s: stopped: %s\n", runtime->name,
			       reason);
}

/*
 * What a hardirq runtime prints goes to the consoles after it has left, and on
 * nobody's account: no more than a serial line of 115200 bits a second takes.
 */
static void init_limits(struct lunatik_runtime *runtime)
{
	static const int logs[] = {
		[LUNATIK_PROCESS] = 10, [LUNATIK_SOFTIRQ] = 10, [LUNATIK_HARDIRQ] = 3,
	};
	static const int lines[] = {
		[LUNATIK_PROCESS] = 2000, [LUNATIK_SOFTIRQ] = 100, [LUNATIK_HARDIRQ] = 60,
	};

	ratelimit_state_init(&runtime->log_limit, 5 * HZ, logs[runtime->context]);
	ratelimit_state_init(&runtime->print_limit, 5 * HZ, lines[runtime->context]);
}

static void init_lock(struct lunatik_runtime *runtime)
{
	if (runtime->context == LUNATIK_PROCESS)
		mutex_init(&runtime->mutex);
	else if (runtime->context == LUNATIK_SOFTIRQ)
		spin_lock_init(&runtime->spin);
	else	/* a class of its own: taken with interrupts off only */
		spin_lock_init(&runtime->spin);
}

static void leave_loading(struct lunatik_runtime *runtime)
{
	if (runtime->context == LUNATIK_PROCESS)
		lunatik_leave_process(runtime);
	else
		lunatik_disown(runtime);
}

static int open_libraries(lua_State *L, void *arg)
{
	lunatikvm_openlibs(L);
	lunatik_open_package(L);
	lunatik_open_library(L);
	lua_pushcfunction(L, lunatik_print);
	lua_setglobal(L, "print");
	lua_pushliteral(L, "Lunatik 4.4");
	lua_setglobal(L, "_LUNATIK_VERSION");
	return 0;
}

/*
 * Whoever looks for runtimes finds it since it is on the list, and who has asked
 * it to stop since then found nothing to stop.
 */
static int make_state(struct lunatik_runtime *runtime)
{
	lua_State *L = lua_newstate(lunatik_lua_alloc, runtime, lunatikvm_seed());
	unsigned long flags;

	if (!L)
		return -ENOMEM;
	*(struct lunatik_runtime **)lua_getextraspace(L) = runtime;
	lunatikvm_init(L, lunatik_pause, runtime);

	raw_spin_lock_irqsave(&runtime->state_lock, flags);
	runtime->L = L;
	if (runtime->stop_requested)
		lunatikvm_stop(L, LUNATIKVM_REQUEST);
	raw_spin_unlock_irqrestore(&runtime->state_lock, flags);
	return 0;
}

/**
 * lunatik_create() - make a runtime, with libraries and without a script
 * @name: as lunatik_name()
 * @context: where its callbacks will run
 * @cpu: that it serves, or -1
 * @caps: its caps
 * @kind: what it is beside others
 *
 * Process context. It is loading: lunatik_call() in it, then lunatik_arm() or
 * lunatik_abandon(), all from this task.
 *
 * Return: the runtime, with one reference, or an ERR_PTR().
 */
struct lunatik_runtime *lunatik_create(const char *name, enum lunatik_context context,
				       int cpu, const struct lunatik_caps *caps,
				       enum lunatik_kind kind)
{
	struct lunatik_runtime *runtime = NULL;
	int ret;

	if (!lunatik_fault())
		runtime = kzalloc(sizeof(*runtime), GFP_KERNEL);
	if (!runtime)
		return ERR_PTR(-ENOMEM);

	__module_get(THIS_MODULE);
	kref_init(&runtime->kref);
	strscpy(runtime->name, name, sizeof(runtime->name));
	runtime->context = context;
	runtime->cpu = cpu;
	runtime->caps = *caps;
	runtime->only = kind == LUNATIK_ONLY;
	runtime->session = kind == LUNATIK_SESSION;
	runtime->owner_cpu = -1;
	runtime->credit = (s64)NSEC_PER_SEC * caps->share / 100;
	runtime->credited = jiffies;
	init_lock(runtime);
	init_waitqueue_head(&runtime->unlocked);
	INIT_LIST_HEAD(&runtime->pins);
	INIT_LIST_HEAD(&runtime->node);
	INIT_LIST_HEAD(&runtime->hooks);
	raw_spin_lock_init(&runtime->state_lock);
	mutex_init(&runtime->hooks_lock);
	INIT_WORK(&runtime->stop_work, stop_work);
	INIT_WORK(&runtime->bury_work, bury_work);
	INIT_DELAYED_WORK(&runtime->kill_work, kill_work);
	init_completion(&runtime->stopped);
	init_limits(runtime);

	ret = enlist(runtime);
	if (ret)
		goto put;

	ret = make_state(runtime);
	if (ret)
		goto delist;

	if (context == LUNATIK_PROCESS) {
		ret = lunatik_enter_process(runtime);
		if (ret)	/* killed */
			goto close;
	} else {
		lunatik_own(runtime);
	}
	ret = lunatik_call(runtime, open_libraries, NULL, NULL);
	if (ret < 0)
		goto leave;
	return runtime;

leave:
	leave_loading(runtime);
close:
	/* Who has found it in the list may be about to stop it. */
	lua_close(take_state(runtime));
	lunatik_unpin_all(runtime);
delist:
	delist(runtime);
	complete_all(&runtime->stopped);
put:
	lunatik_put(runtime);
	return ERR_PTR(ret);
}

static char resume_key;

static int run_body(lua_State *L, void *arg)
{
	struct lunatik_runtime *runtime = arg;
	char name[LUNATIK_NAME_MAX];

	strscpy(name, runtime->name, sizeof(name));
	if (runtime->cpu >= 0)
		*strchrnul(name, ':') = '\0';

	if (lunatik_load_script(L, name))
		return lua_error(L);
	lua_call(L, 0, 1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &resume_key);
	/* What the body leaves behind is collected where that may take time. */
	if (runtime->context != LUNATIK_PROCESS)
		lua_gc(L, LUA_GCCOLLECT);
	return 0;
}

void lunatik_pushbody(lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &resume_key);
}
EXPORT_SYMBOL_GPL(lunatik_pushbody);

/**
 * lunatik_load() - run the body of the script
 * @runtime: loading
 * @error: gets the message
 * @pace: of the task that loads it
 *
 * Return: 0, or a negative errno.
 */
int lunatik_load(struct lunatik_runtime *runtime, struct lunatik_error *error,
		 enum lunatik_pace pace)
{
	runtime->pace = pace;
	return lunatik_call(runtime, run_body, runtime, error);
}

static int end_loading(struct lunatik_runtime *runtime, bool arm)
{
	unsigned long flags;
	int ret = 0;

	raw_spin_lock_irqsave(&runtime->state_lock, flags);
	if (runtime->stop_requested || !arm) {
		WRITE_ONCE(runtime->stop_requested, true);
		WRITE_ONCE(runtime->state, LUNATIK_STOPPING);
		ret = -ESHUTDOWN;
	} else {
		WRITE_ONCE(runtime->state, LUNATIK_ARMED);
	}
	raw_spin_unlock_irqrestore(&runtime->state_lock, flags);

	leave_loading(runtime);

	if (ret) {
		raw_spin_lock_irqsave(&runtime->state_lock, flags);
		queue_stop(runtime);
		raw_spin_unlock_irqrestore(&runtime->state_lock, flags);
	}
	return ret;
}

/**
 * lunatik_arm() - the body is done: let the kernel in
 * @runtime: loading, in this task
 *
 * Return: 0, or -ESHUTDOWN if it was stopped meanwhile; it is ended then.
 */
int lunatik_arm(struct lunatik_runtime *runtime)
{
	return end_loading(runtime, true);
}

/* The body failed: end it; see lunatik_wait_stopped(). */
void lunatik_abandon(struct lunatik_runtime *runtime)
{
	end_loading(runtime, false);
}

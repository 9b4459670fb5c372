/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of the core share. Bindings include lunatik.h only.
 */
#ifndef LUNATIK_CORE_H
#define LUNATIK_CORE_H

#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/mutex.h>
#include <linux/ratelimit_types.h>
#include <linux/rcupdate.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "lunatik.h"
#include "lunatik_vm.h"

#ifdef CONFIG_PREEMPT_RT
#error "an interrupt runtime holds a spinlock that may not sleep: not for PREEMPT_RT"
#endif

#define LUNATIK_ROOT		"/lib/modules/lua/"
#define LUNATIK_NAME_MAX	128	/* bytes of a script's name, NUL too */
#define LUNATIK_SCRIPT_MAX	SZ_1M	/* bytes of a script */

/**
 * enum lunatik_state - the life of a runtime; it only ever moves downwards
 * @LUNATIK_LOADING: the Lua state belongs to the task that loads the script;
 *	entries are refused
 * @LUNATIK_ARMED: the Lua state belongs to whoever holds the lock
 * @LUNATIK_BROKEN: it broke a cap: entries are refused, hooks stay and do
 *	their fallback, the Lua state is about to be closed or is gone
 * @LUNATIK_STOPPING: entries are refused, hooks are being taken out
 * @LUNATIK_STOPPED: nothing is left but the memory of the struct
 */
enum lunatik_state {
	LUNATIK_LOADING,
	LUNATIK_ARMED,
	LUNATIK_BROKEN,
	LUNATIK_STOPPING,
	LUNATIK_STOPPED,
};

/**
 * enum lunatik_pace - what hangs on the task that is inside a runtime
 * @LUNATIK_USUAL: its caller may hold locks: waits for others are short
 * @LUNATIK_HURRIED: its caller holds a lock that much of the kernel waits for
 *	(the RTNL): the script may not wait
 * @LUNATIK_PATIENT: nothing; the script may wait as long as it likes, and ends
 *	when the task is killed
 */
enum lunatik_pace {
	LUNATIK_USUAL,
	LUNATIK_HURRIED,
	LUNATIK_PATIENT,
};

/**
 * enum lunatik_kind - what a runtime is beside others
 * @LUNATIK_ANY_NUMBER: one of as many of its script as there may be
 * @LUNATIK_ONLY: the only one of its script, or that of its CPU, of this kind
 * @LUNATIK_SESSION: what somebody types at /dev/lunatik
 */
enum lunatik_kind {
	LUNATIK_ANY_NUMBER,
	LUNATIK_ONLY,
	LUNATIK_SESSION,
};

/* Caps, as given by module parameters or the table of lunatik.runtime(). */
struct lunatik_caps {
	u64 memory;		/* bytes */
	u64 instructions;	/* for each entry */
	unsigned int share;	/* per cent of one CPU */
};

/* See start_clock(). */
struct lunatik_clock {
	u64 ticks;		/* time stamp counter */
	u64 executed;		/* process: CPU time of the task by its scheduler, ns */
	unsigned long switches;	/* process: how often the task lost the CPU */
};

struct lunatik_runtime {
	struct kref kref;	/* of this memory: hooks, objects, works, handles */
	char name[LUNATIK_NAME_MAX];
	enum lunatik_context context;
	int cpu;		/* -1: serves all */
	bool only;		/* as enum lunatik_kind says; fixed */
	bool session;		/* as well */
	struct lunatik_caps caps;

	/*
	 * The lock of the Lua state, by context. Taken by enter() of entry.c
	 * only, which never blocks on one while it holds another.
	 */
	union {
		struct mutex mutex;	/* process */
		spinlock_t spin;	/* softirq: BH off; hardirq: IRQs off */
	};
	wait_queue_head_t unlocked;	/* waiters for the mutex; and for hooks_ending */

	/* Owned by the holder of the lock, or as enum lunatik_state says. */
	lua_State *L;
	struct lunatik_runtime *outer;	/* whose entry this one is in, if it may sleep */
	const bool *asked;	/* is the task inside to end? NULL: nobody asks it so */
	struct lunatik_clock clock;	/* of this entry */
	unsigned long switches;	/* of the task inside, when its budget was granted */
	s64 credit;		/* ns of CPU it may still use */
	unsigned long credited;	/* jiffies when credit was last topped up */
	u64 memory;		/* bytes of the Lua state */
	u64 instructions;	/* charged so far, all entries */
	u64 time;		/* ns spent inside */
	u64 entries;
	u64 errors;
	u64 throttled;
	struct lunatik_output *output;	/* NULL: print to the log. Lent for an entry */
	struct list_head pins;		/* modules that it has seen */

	int owner_cpu;		/* interrupt: the CPU that is inside, or -1 */
	atomic64_t objects;	/* bytes of lunatik_alloc(), objects and, until it stops, this */
	atomic64_t peak;	/* most bytes ever in use, memory and objects */
	u64 granted;		/* bytes that it may hold so far; written under pool_lock */
	atomic64_t lapsed;	/* bytes off the account that RCU has yet to let go of */

	raw_spinlock_t state_lock;	/* guards the next; innermost; IRQs off */
	enum lunatik_state state;
	bool stop_requested;
	bool stop_queued;
	enum lunatik_pace pace;	/* by its lock: of the task inside */
	bool closing;		/* the Lua state is being closed, by who took it */
	bool closed;		/* it is gone; released by who closed it */
	/*
	 * Who is inside, or loads it, and may sleep. Set without the lock,
	 * cleared with it.
	 */
	struct task_struct *owner;
	char reason[160];	/* why it is BROKEN */

	struct mutex hooks_lock;	/* guards the next two and hooks_closed */
	struct list_head hooks;
	unsigned int hooks_count;
	atomic_t hooks_ending;	/* works at it; counted before it is off the list */
	bool hooks_closed;		/* no hook may be added */

	struct work_struct stop_work;
	struct work_struct bury_work;
	struct delayed_work kill_work;
	struct completion stopped;
	struct ratelimit_state log_limit;
	struct ratelimit_state print_limit;
	struct list_head node;	/* lunatik_runtimes, by lunatik_runtimes_lock */
	atomic_t counted;	/* 1: against max_runtimes. Who makes it 0 uncounts it */
};

extern struct list_head lunatik_runtimes;
extern struct mutex lunatik_runtimes_lock;
extern struct workqueue_struct *lunatik_workqueue;
extern struct workqueue_struct *lunatik_killqueue;

/* module.c: defaults of the caps */
void lunatik_default_caps(enum lunatik_context context, struct lunatik_caps *caps);
unsigned int lunatik_max_runtimes(void);
unsigned int lunatik_interrupt_total(void);
u64 lunatik_total_memory(void);

/* memory.c */
void *lunatik_lua_alloc(void *ud, void *ptr, size_t osize, size_t nsize);
void *lunatik_try_alloc(struct lunatik_runtime *runtime, size_t size, gfp_t gfp);
u64 lunatik_memory_used(struct lunatik_runtime *runtime);
bool lunatik_grant(struct lunatik_runtime *runtime, u64 bytes);
void lunatik_trim_grant(struct lunatik_runtime *runtime);
void lunatik_drop_grant(struct lunatik_runtime *runtime);
bool lunatik_await_reclaim(lua_State *L);
void lunatik_lapse(struct lunatik_runtime *runtime, size_t size, struct rcu_head *rcu,
		   rcu_callback_t reclaim);
void lunatik_reclaimed(struct lunatik_runtime *runtime, size_t size);

/* errors.c */
int lunatik_traceback(lua_State *L);
void lunatik_log(struct lunatik_runtime *runtime, struct lunatik_hook *hook, const char *text);

/* entry.c */
struct lunatik_error {
	char *text;	/* kfree(); NULL: see @code */
	int code;
	u64 instructions;	/* added: what it took, failed or not */
};

int lunatik_call(struct lunatik_runtime *runtime, lunatik_handler handler, void *arg,
		 struct lunatik_error *error);
int lunatik_resume(struct lunatik_runtime *runtime, lunatik_handler handler, void *arg,
		   struct lunatik_error *error, enum lunatik_pace pace,
		   struct lunatik_runtime *outer);
void lunatik_charge_nested(lua_State *L, u64 instructions);
void lunatik_interrupt(struct lunatik_runtime *runtime);
bool lunatik_ending(const struct lunatik_runtime *runtime);
bool lunatik_in_process(struct lunatik_runtime *runtime);
bool lunatik_hurried(lua_State *L);
void lunatik_own(struct lunatik_runtime *runtime);
void lunatik_disown(struct lunatik_runtime *runtime);
int lunatik_enter_process(struct lunatik_runtime *runtime);
void lunatik_leave_process(struct lunatik_runtime *runtime);
u64 lunatik_budget(struct lunatik_runtime *runtime);
void lunatik_pause(lua_State *L, void *data);

/* module.c: ns = ticks of the time stamp counter * lunatik_tick_mult >> LUNATIK_TICK_SHIFT */
#define LUNATIK_TICK_SHIFT	22
extern u32 lunatik_tick_mult;

/* runtime.c */
struct lunatik_runtime *lunatik_create(const char *name, enum lunatik_context context,
				       int cpu, const struct lunatik_caps *caps,
				       enum lunatik_kind kind);
int lunatik_load(struct lunatik_runtime *runtime, struct lunatik_error *error,
		 enum lunatik_pace pace);
int lunatik_arm(struct lunatik_runtime *runtime);
unsigned long lunatik_stop_patience(const struct lunatik_runtime *waiter);
void lunatik_wait_stopped(struct lunatik_runtime *runtime, struct lunatik_runtime *waiter,
			  unsigned long patience);
void lunatik_break(struct lunatik_runtime *runtime, const char *reason);
void lunatik_abandon(struct lunatik_runtime *runtime);
void lunatik_uncount(struct lunatik_runtime *runtime);

/* hook.c */
void lunatik_hooks_stop(struct lunatik_runtime *runtime);
size_t lunatik_hooks_names(struct lunatik_runtime *runtime, char *buffer, size_t size);

/* require.c */
void lunatik_open_package(lua_State *L);
bool lunatik_pin(struct lunatik_runtime *runtime, struct module *owner, gfp_t gfp);
void lunatik_unpin_all(struct lunatik_runtime *runtime);

/* loader.c */
bool lunatik_valid_name(const char *name);
int lunatik_load_script(lua_State *L, const char *name);
int lunatik_load_path(lua_State *L, const char *path);

/* object.c */
extern const struct lunatik_class lunatik_runtime_class;
struct lunatik_object *lunatik_object_create(struct lunatik_runtime *runtime,
					     const struct lunatik_class *class,
					     size_t size, gfp_t gfp);
bool lunatik_owned(const struct lunatik_object *object);
struct lunatik_object *lunatik_object_publish(struct lunatik_object *object);
struct lunatik_object *lunatik_object_get_live(struct lunatik_object *object);
struct lunatik_object **lunatik_push_blank(lua_State *L);
void lunatik_bless(lua_State *L);

/* lunatik.c */
void lunatik_open_library(lua_State *L);

/* output.c: what print() wrote, kept for the reader of /dev/lunatik */
struct lunatik_output {
	char *text;
	size_t length;
	size_t size;
	int error;	/* why what came later is missing: -EFBIG, -ENOMEM */
};

enum lunatik_topic {
	LUNATIK_PRINTS,
	LUNATIK_ERRORS,
	LUNATIK_TOPICS,
};

int lunatik_print(lua_State *L);
bool lunatik_may_write(struct lunatik_runtime *runtime, enum lunatik_topic topic,
		       unsigned int lines, size_t length);
/* printk(), deferred as lunatik_printk_deferred() where @runtime runs so that it has to be. */
__printf(2, 3) void lunatik_printk(struct lunatik_runtime *runtime, const char *format, ...);
void lunatik_output_add(struct lunatik_output *output, const char *text, size_t length);
void lunatik_output_reset(struct lunatik_output *output);

/* table.c: lunatik._ENV */
int lunatik_table_init(void);
void lunatik_table_exit(void);
extern struct lunatik_object *lunatik_env;

/* control.c: /dev/lunatik */
int lunatik_control_init(void);
void lunatik_control_exit(void);

#endif /* LUNATIK_CORE_H */

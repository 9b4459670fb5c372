/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lunatik.h - everything a binding needs to speak to the in-kernel Lua.
 *
 * A binding is one module, lunatik_<name>.ko, made of one C file. It gives
 * scripts a library (LUNATIK_LIBRARY), maybe classes of objects, and maybe
 * hooks: places in the kernel that call a script back. docs/c-api.md walks
 * through a whole one.
 *
 * Who may touch what, in short:
 *
 * - a lua_State is touched only inside an entry: in the body of a script, in
 *   a C function that Lua called, or in the handler of lunatik_run();
 * - lunatik_run() takes the lock of the runtime; never call it, or anything
 *   that sleeps, between lunatik_lock() and lunatik_unlock();
 * - a Lua error is a longjmp: hold no lock, no RCU section, no disabled
 *   preemption and no unowned memory across any call that takes a lua_State.
 */
#ifndef LUNATIK_H
#define LUNATIK_H

#include <linux/bits.h>
#include <linux/gfp_types.h>
#include <linux/jump_label.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/types.h>
#include <linux/workqueue.h>

#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"

/* ---- runtimes ---------------------------------------------------------- */

/**
 * struct lunatik_runtime - one isolated Lua state: its lock, caps and hooks
 *
 * Opaque. A runtime is *loading* while the body of its script runs (always in
 * process context, allowed to sleep), *armed* from then on, and *dead* once
 * it was stopped or has broken a cap. A pointer to it stays valid for as long
 * as a hook of it exists, or until lunatik_put(); that it still answers is
 * another matter: lunatik_run() tells.
 */
struct lunatik_runtime;

struct lunatik_hook;

/**
 * enum lunatik_context - where the callbacks of a runtime are run
 * @LUNATIK_PROCESS: process context; may sleep; entries hold a mutex
 * @LUNATIK_SOFTIRQ: softirq or process context; entries hold a spinlock with
 *	bottom halves disabled
 * @LUNATIK_HARDIRQ: any context but NMI; entries hold a spinlock with
 *	interrupts disabled
 */
enum lunatik_context {
	LUNATIK_PROCESS	= BIT(0),
	LUNATIK_SOFTIRQ	= BIT(1),
	LUNATIK_HARDIRQ	= BIT(2),
};

#define LUNATIK_INTERRUPT	(LUNATIK_SOFTIRQ | LUNATIK_HARDIRQ)
#define LUNATIK_ANY		(LUNATIK_PROCESS | LUNATIK_INTERRUPT)

/* The runtime that @L, or any coroutine of it, belongs to. */
struct lunatik_runtime *lunatik_toruntime(lua_State *L);

enum lunatik_context lunatik_context(const struct lunatik_runtime *runtime);

/* The script's name, for logs: "dns/filter", "dns/filter:3" when per CPU. */
const char *lunatik_name(const struct lunatik_runtime *runtime);

/* The CPU whose events a per-CPU runtime serves; -1 when it serves all. */
int lunatik_cpu(const struct lunatik_runtime *runtime);

/*
 * Arm a timer that is not pending, for its @expires, on the CPU of @runtime, as
 * long as that is online: on another CPU the runtime of one does not answer, and
 * what a CPU that goes offline leaves to others comes back by this. Any context.
 */
void lunatik_add_timer(const struct lunatik_runtime *runtime, struct timer_list *timer);

/* Keep the memory of @runtime (not its life); any context. */
struct lunatik_runtime *lunatik_get(struct lunatik_runtime *runtime);
void lunatik_put(struct lunatik_runtime *runtime);

/**
 * typedef lunatik_handler - what lunatik_run() does inside the runtime
 *
 * Runs protected: a Lua error raised in it, by it or by the script that it
 * calls ends it, not the kernel. Its stack starts empty with LUA_MINSTACK
 * slots. Return a value >= 0 for lunatik_run() to return.
 */
typedef int (*lunatik_handler)(lua_State *L, void *arg);

/**
 * lunatik_run() - enter a runtime from the kernel
 * @runtime: to enter; the caller must own a reference (a hook does)
 * @handler: called with the lock of the runtime held
 * @arg: passed to @handler; where results go as well
 *
 * Context: process context for LUNATIK_PROCESS, may sleep; softirq or process
 * context for LUNATIK_SOFTIRQ; any but NMI for LUNATIK_HARDIRQ. Takes the
 * lock of the runtime, gives it a new instruction budget, charges the time to
 * its share of the CPU.
 *
 * Return: what @handler returned, or
 * -EREMOTE: a per-CPU runtime and this is not its CPU: stand aside, another
 *	runtime of the same script sees the event;
 * -ESHUTDOWN: loading (not armed yet), being stopped, or dead;
 * -EDEADLK: this CPU or task is already inside this runtime (a hook that
 *	fires because of what the script itself does), or the context is wrong;
 * -EBUSY, -EINTR: somebody else was inside for too long, or waiting for them
 *	might have been a deadlock, or the task is being killed;
 * -EAGAIN: it has used up its share of the CPU for now;
 * -ENOMEM, -EINVAL: the script ran out of memory, or raised an error, which
 *	was logged (rate-limited, with a traceback);
 * -EDQUOT: it broke a cap and is now dead.
 *
 * After any of these but -EREMOTE do what the hook declared as its fallback.
 */
int lunatik_run(struct lunatik_runtime *runtime, lunatik_handler handler, void *arg);

/*
 * The same for a task that holds no lock and has nothing else to do, such as
 * a kernel thread of the binding's own: scripts in it may wait long.
 *
 * @asked, or NULL: whoever wants the task to end sets it, then after a full barrier
 * the task's TIF_NOTIFY_SIGNAL: which nothing that ends inside takes back then.
 */
int lunatik_run_alone(struct lunatik_runtime *runtime, lunatik_handler handler, void *arg,
		      const bool *asked);

/*
 * The same for a task that holds a lock much of the kernel waits for, such as
 * the RTNL: -EBUSY comes after a tenth of a second, the script may not wait
 * (lunatik_checkwait()), and nothing is loaded for it.
 */
int lunatik_run_hurried(struct lunatik_runtime *runtime, lunatik_handler handler, void *arg);

/*
 * Say in the log, rate-limited, that @what did not run since its runtime was not to be
 * had, if @ret of lunatik_run() means that. What a script failed by is there already,
 * and that one is stopped is nobody's fault. Process context.
 */
void lunatik_tell_refused(struct lunatik_runtime *runtime, const char *what, int ret);

/* Push the value that the body of the script returned. */
void lunatik_pushbody(lua_State *L);

/*
 * lunatik_run() for a hook on packets, in the hook's runtime. The first failure
 * of the hook is logged, whatever was logged before; later ones are counted
 * only. @finally(@arg) is called before the runtime's lock is let go, however
 * @handler ended (not if it was never called): to take back what the script was
 * lent for the call. It must not raise errors or touch the stack.
 * Context: as @handler's, the runtime's lock held.
 */
int lunatik_run_finally(struct lunatik_hook *hook, lunatik_handler handler,
			void (*finally)(void *arg), void *arg);

/* End a runtime, soon, as rt:stop() does; any context, any number of times. */
void lunatik_stop(struct lunatik_runtime *runtime);

/* The runtime of the object at @arg, as lunatik.runtime() made it. */
struct lunatik_runtime *lunatik_checkruntime(lua_State *L, int arg);

/* ---- in a C function called from Lua ----------------------------------- */

/*
 * Raise the bare name of @err (-EINVAL or EINVAL) as error: "EINVAL". Never
 * returns, which stays untold: objtool knows the kernel's noreturn functions
 * by a list of its own, and warns about the callers of any other.
 */
int lunatik_throw(lua_State *L, int err);

/* lunatik_throw() if @ret is negative; returns it otherwise. */
#define lunatik_try(L, ret)				\
({							\
	typeof(ret) __ret = (ret);			\
							\
	if (__ret < 0)					\
		lunatik_throw((L), (int)__ret);		\
	__ret;						\
})

/* "EINVAL" for -EINVAL or EINVAL; NULL for what is no errno. */
const char *lunatik_errname(int err);

/**
 * lunatik_maysleep() - may this C function sleep?
 * @L: its Lua state
 *
 * True in a process runtime, and in the body of any script (an interrupt
 * runtime runs its body in process context, before it is armed).
 */
bool lunatik_maysleep(lua_State *L);

/* GFP_KERNEL if lunatik_maysleep(), GFP_ATOMIC otherwise. */
gfp_t lunatik_gfp(lua_State *L);

/**
 * lunatik_has_files() - whether the running task can open anything
 *
 * exit_files(), exit_fs() and exit_task_namespaces() come before the work that
 * calls a device's release() for the last descriptor of a task that exits.
 */
static inline bool lunatik_has_files(void)
{
	return current->files && current->fs && current->nsproxy;
}

/**
 * lunatik_checksleep() - refuse a call that sleeps where none may
 * @L: Lua state
 * @what: for the message, "netfilter.register"
 */
void lunatik_checksleep(lua_State *L, const char *what);

/**
 * lunatik_checkwait() - refuse a wait of the script's choice where none may be
 * @L: Lua state
 * @what: for the message, "completion.wait"
 *
 * lunatik_checksleep() for what may take long: refused as well inside of
 * lunatik_run_hurried().
 */
void lunatik_checkwait(lua_State *L, const char *what);

/* Raise an error unless the runtime is of one of @contexts (a mask). */
void lunatik_checkcontext(lua_State *L, unsigned int contexts, const char *what);

/**
 * lunatik_slept() - tell that the function has slept
 * @L: Lua state
 *
 * Call it after each wait that a script can repeat, interruptible ones only.
 * The script gave up its CPU, so its instruction budget starts anew; and if the runtime was killed
 * meanwhile this raises the error that ends the script. Stopping a runtime
 * interrupts its waits: signal_pending() is true then.
 */
void lunatik_slept(lua_State *L);

/*
 * printk() for where a hook may be called with locks of the console held, or by
 * who writes to it: the log has the record at once, the consoles a tick later.
 * Any context. @format begins with a KERN_ level.
 */
__printf(1, 2) void lunatik_printk_deferred(const char *format, ...);

/* May the script write to the kernel log once more? Its messages are limited. */
bool lunatik_mayprint(lua_State *L);

/* Is the runtime being stopped? (What thread.shouldstop() looks at.) */
bool lunatik_stopping(lua_State *L);

/**
 * lunatik_charge() - count work done in C against the instruction budget
 * @L: Lua state
 * @units: about one for each VM instruction's worth: 16 to 64 bytes touched,
 *	one element visited
 *
 * Call it before loops whose length the script chooses. Raises the error that
 * ends the script when the budget is used up.
 */
void lunatik_charge(lua_State *L, size_t units);

/**
 * lunatik_alloc() - kernel memory on the account of this runtime
 * @L: Lua state
 * @size: bytes
 *
 * Zeroed, counted against the memory cap of the runtime until
 * lunatik_free(); raises "not enough memory" when there is none. May outlive
 * the runtime. Physically contiguous for up to two pages only.
 */
void *lunatik_alloc(lua_State *L, size_t size);

/* Any context. @memory may be NULL. */
void lunatik_free(void *memory);

/**
 * lunatik_account() - put memory that the kernel allocates on an account
 * @runtime: whose; NULL is nobody
 * @size: bytes
 *
 * For what cannot come from lunatik_alloc(), such as a packet. Any context.
 *
 * Return: false if the runtime would hold more than its cap allows; then
 * nothing is counted, and lua_gc() may help.
 */
bool lunatik_account(struct lunatik_runtime *runtime, size_t size);

/*
 * The same, or "not enough memory" is raised. Garbage is collected first where
 * that is wanted, in which the script may be stopped: nothing may be held.
 */
void lunatik_checkaccount(lua_State *L, struct lunatik_runtime *runtime, size_t size);

/* Take it off again; any context. Whoever does keeps @runtime (lunatik_get()). */
void lunatik_unaccount(struct lunatik_runtime *runtime, size_t size);

DECLARE_STATIC_KEY_FALSE(lunatik_faulty);
bool lunatik_fault_due(void);

/*
 * Is an allocation to fail, for a test, that a binding is about to make by other
 * means than those above? See tests/e2e/faults. Any context.
 */
static inline bool lunatik_fault(void)
{
	return static_branch_unlikely(&lunatik_faulty) && lunatik_fault_due();
}

/* Arguments; @arg is a stack index, as for luaL_check*. */
lua_Integer lunatik_checkrange(lua_State *L, int arg, lua_Integer min, lua_Integer max);
lua_Integer lunatik_optrange(lua_State *L, int arg, lua_Integer fallback,
			     lua_Integer min, lua_Integer max);

/*
 * Fields of the table at @table, as in netfilter.register{hooknum = ...}. The
 * messages name the field. lunatik_fieldref() checks for a
 * function; lunatik_fieldstring() leaves the string on the stack,
 * which keeps it alive (the field need not), and lunatik_optfieldstring()
 * leaves nil there and gives NULL when it is absent; lunatik_fieldoption() gives
 * the string's index in @options, which end with NULL; lunatik_fieldref() gives a
 * reference (see lunatik_ref()), or LUA_NOREF when it is absent and @optional.
 */
lua_Integer lunatik_fieldrange(lua_State *L, int table, const char *name,
			       lua_Integer min, lua_Integer max);
lua_Integer lunatik_optfieldrange(lua_State *L, int table, const char *name,
				  lua_Integer fallback,
				  lua_Integer min, lua_Integer max);
const char *lunatik_fieldstring(lua_State *L, int table, const char *name, size_t *length);
const char *lunatik_optfieldstring(lua_State *L, int table, const char *name, size_t *length);
int lunatik_fieldoption(lua_State *L, int table, const char *name, int fallback,
			const char *const *options);
int lunatik_fieldref(lua_State *L, int table, const char *name, bool optional);

/* References that keep a script's value (a callback) alive in its runtime. */
int lunatik_ref(lua_State *L, int index);	/* does not pop */
void lunatik_pushref(lua_State *L, int ref);
void lunatik_unref(lua_State *L, int ref);	/* any ref, LUA_NOREF too */

/**
 * lunatik_attempt() - take several things, or give all of them back
 * @L: Lua state
 * @take: takes them, one after the other, and notes each in @arg; runs on the
 *	caller's stack, which is left as it was; may raise errors, but none
 *	once it has succeeded
 * @drop: gives back what @take has noted; raises none, so no more than
 *	lunatik_unref(); the error is on top of the stack
 * @arg: for both
 *
 * After an error of @take's @drop is called, and the error raised again: also
 * after the one that ends the script, which is then stopped, whatever is raised.
 */
void lunatik_attempt(lua_State *L, void (*take)(lua_State *L, void *arg),
		     void (*drop)(lua_State *L, void *arg), void *arg);

/* ---- objects ----------------------------------------------------------- */

struct lunatik_object;

/**
 * enum lunatik_class_flags - how the objects of a class behave
 * @LUNATIK_SINGLE: never leaves its runtime ("cannot share SINGLE object")
 * @LUNATIK_MONITOR: may be used by several runtimes at once; its methods put
 *	what they do to the private data between lunatik_lock() and
 *	lunatik_unlock()
 * @LUNATIK_SLEEP: methods may sleep: refused in interrupt runtimes when made
 *	and when shared; its monitor is a mutex instead of a spinlock
 * @LUNATIK_DEFER: @release sleeps: it is called from a workqueue
 */
enum lunatik_class_flags {
	LUNATIK_SINGLE	= BIT(0),
	LUNATIK_MONITOR	= BIT(1),
	LUNATIK_SLEEP	= BIT(2),
	LUNATIK_DEFER	= BIT(3),
};

/**
 * struct lunatik_class - a kind of object
 * @name: as in messages and the metatable's __name: "data"
 * @flags: enum lunatik_class_flags
 * @methods: the metatable's fields, ended by a NULL name. __index is the
 *	table of methods itself unless given here; __gc, __close and
 *	__metatable are the core's and must not be given
 * @release: called once, when nobody refers to the object any more; frees
 *	what the private data owns, not the private data. May be NULL.
 *	Context: any; process with LUNATIK_DEFER
 * @stop: called when a script closes the object (obj:stop(), leaving the
 *	scope of a local <close>), if not NULL; the object may live on.
 *	Context: an entry, the runtime's lock held
 * @owner: THIS_MODULE; held while any object or any runtime that has seen
 *	one exists
 */
struct lunatik_class {
	const char *name;
	unsigned int flags;
	const luaL_Reg *methods;
	void (*release)(void *private);
	void (*stop)(lua_State *L, void *private);
	struct module *owner;
};

/**
 * lunatik_new() - make an object and push it
 * @L: Lua state
 * @class: its class
 * @size: bytes of private data, zeroed, on the runtime's account; 0 for none
 *	(see lunatik_attach())
 *
 * Raises an error if the class does not fit the runtime's context. From here
 * on class->release will be called for it, so zeroed private data must be
 * acceptable to it.
 *
 * Return: the private data (the object itself when @size is 0; see
 * lunatik_object()).
 */
void *lunatik_new(lua_State *L, const struct lunatik_class *class, size_t size);

/**
 * lunatik_check() - the private data of an argument
 * @L: Lua state
 * @arg: stack index
 * @class: what it must be
 *
 * Raises the usual argument error for anything else, and "<class> is closed"
 * for an object whose private data was detached.
 */
void *lunatik_check(lua_State *L, int arg, const struct lunatik_class *class);

/* As lunatik_check(), but NULL instead of an error. */
void *lunatik_test(lua_State *L, int arg, const struct lunatik_class *class);

/* The object at @arg, of whatever class; NULL if it is none. */
struct lunatik_object *lunatik_object(lua_State *L, int arg);

/**
 * lunatik_attach() - point a LUNATIK_SINGLE object at other private data
 * @object: made with size 0
 * @private: what lunatik_check() gives from now on; NULL closes the object
 *
 * For views of what the kernel lends for one call (a packet): attach before
 * calling the script, attach NULL after. Under the runtime's lock.
 */
void lunatik_attach(struct lunatik_object *object, void *private);

void *lunatik_private(struct lunatik_object *object);
const struct lunatik_class *lunatik_classof(const struct lunatik_object *object);

/* References to an object from C; any context. The last put releases it. */
struct lunatik_object *lunatik_object_get(struct lunatik_object *object);
void lunatik_object_put(struct lunatik_object *object);

/**
 * lunatik_push() - push an object into a runtime
 * @L: Lua state, of any runtime
 * @object: a reference of the caller's own is not consumed
 *
 * Raises "cannot share SINGLE object" and the context errors of lunatik_new()
 */
void lunatik_push(lua_State *L, struct lunatik_object *object);

/**
 * lunatik_lock() - enter an object's monitor
 * @private: as given by lunatik_check()
 * @class: of the object; must have LUNATIK_MONITOR
 * @flags: for lunatik_unlock()
 *
 * A spinlock with interrupts off, or a mutex for LUNATIK_SLEEP. Nothing that
 * takes a lua_State may be called until lunatik_unlock(): prepare buffers
 * before, push results after. Does not nest. Only for private data that
 * lunatik_new() allocated.
 */
void lunatik_lock(void *private, const struct lunatik_class *class, unsigned long *flags);
void lunatik_unlock(void *private, const struct lunatik_class *class, unsigned long flags);

/* ---- hooks ------------------------------------------------------------- */

/**
 * struct lunatik_hook_ops - how a hook ends
 * @name: for `lunatik list` and logs: "netfilter"
 * @stop: take it out of the kernel and wait for the last callback to return
 *	(synchronize_net(), kthread_stop(), ...). Called exactly once, in
 *	process context: by the core when the runtime is stopped, and no entry
 *	is left; after lunatik_hook_cancel(), beside entries; in an entry, the
 *	runtime's lock held, by lunatik_hook_end(). May be NULL
 * @free: free the memory that the hook is embedded in; after @stop, when
 *	the last reference is gone. Context: process, or the caller of
 *	lunatik_hook_put()
 * @owner: THIS_MODULE; held until @free has returned
 */
struct lunatik_hook_ops {
	const char *name;
	void (*stop)(struct lunatik_hook *hook);
	void (*free)(struct lunatik_hook *hook);
	struct module *owner;
};

/**
 * struct lunatik_hook - a place where the kernel calls a runtime
 * @runtime: whom to lunatik_run(); valid as long as the hook
 * @ops: how it ends
 *
 * Embed it. The rest is the core's. A hook outlives its Lua state: when the
 * script breaks a cap the state is gone at once, but the hook stays, and does
 * its fallback, until somebody stops the runtime. So it is never memory of
 * Lua's (allocate it with lunatik_alloc() and free it with lunatik_free()).
 */
struct lunatik_hook {
	struct lunatik_runtime *runtime;
	const struct lunatik_hook_ops *ops;
	/* private: */
	struct kref kref;
	struct list_head node;		/* in the runtime, under its hooks_lock */
	struct work_struct work;	/* of lunatik_hook_cancel() */
	atomic_t cancelled;
	bool told;			/* its failure was logged; under the runtime's lock */
};

/**
 * lunatik_hook_add() - give a hook to the runtime of @L
 * @L: Lua state; must be in process context (see lunatik_checksleep())
 * @hook: embedded in memory of the caller's, @ops not set yet
 * @ops: how it ends
 *
 * Call it *before* the hook is registered with the kernel: callbacks that
 * come early get -ESHUTDOWN from lunatik_run(). If the registration then
 * fails, call lunatik_hook_abort() and throw. After success the core owns
 * one reference, dropped after ops->stop.
 *
 * Raises an error (with ops->free called) if the runtime is being stopped.
 */
void lunatik_hook_add(lua_State *L, struct lunatik_hook *hook,
		      const struct lunatik_hook_ops *ops);

/*
 * The same for another runtime than that of the caller, as a negative errno:
 * -ESHUTDOWN, with @hook not freed and nothing to undo. Process context.
 * Nothing keeps that runtime from being stopped at once: ops->stop has to wait
 * until what it stops is complete, and the caller takes a reference before.
 */
int lunatik_hook_add_to(struct lunatik_runtime *runtime, struct lunatik_hook *hook,
			const struct lunatik_hook_ops *ops);

/* Registration failed: take it back and free it; ops->stop is not called. */
void lunatik_hook_abort(struct lunatik_hook *hook);

/**
 * lunatik_hook_cancel() - end one hook while its runtime lives on
 * @hook: the caller has a reference
 *
 * Any context, any number of times, also from the hook's own callback:
 * ops->stop runs from a workqueue.
 */
void lunatik_hook_cancel(struct lunatik_hook *hook);

/*
 * The same, done on return, or being done by somebody else. Process context;
 * inside an entry of the hook's runtime only if ops->stop does not wait for
 * callbacks.
 */
void lunatik_hook_end(struct lunatik_hook *hook);

struct lunatik_hook *lunatik_hook_get(struct lunatik_hook *hook);
void lunatik_hook_put(struct lunatik_hook *hook);

/* ---- libraries --------------------------------------------------------- */

/**
 * struct lunatik_constant - a named integer
 * @name: key, without the C prefix: "DROP"
 * @value: as the target kernel's headers define it
 */
struct lunatik_constant {
	const char *name;
	lua_Integer value;
};

/**
 * struct lunatik_namespace - a table of constants in a library
 * @name: where it goes, dotted for nested ones: "action", "ct.tcp"; NULL for
 *	the library's own table
 * @constants: ended by a NULL name
 */
struct lunatik_namespace {
	const char *name;
	const struct lunatik_constant *constants;
};

/**
 * struct lunatik_library - what require() gives
 * @name: as required: "linux.nf"
 * @contexts: mask of enum lunatik_context; require() in another runtime fails
 * @functions: ended by a NULL name; may be NULL
 * @namespaces: ended by NULL constants; may be NULL
 * @open: called at the end with the library's table on top of the stack, to
 *	add what else it needs; may be NULL
 */
struct lunatik_library {
	const char *name;
	unsigned int contexts;
	const luaL_Reg *functions;
	const struct lunatik_namespace *namespaces;
	void (*open)(lua_State *L);
};

/* Push the table of @library. LUNATIK_LIBRARY() calls it. */
int lunatik_open(lua_State *L, const struct lunatik_library *library);

/* Set the fields of the table on top of the stack. */
void lunatik_setconstants(lua_State *L, const struct lunatik_constant *constants);

/**
 * LUNATIK_LIBRARY() - make a library findable by require()
 * @symbol: its name with dots as underscores, a bare token: linux_nf
 * @library: struct lunatik_library
 *
 * require("linux.nf") looks for the symbol luaopen_linux_nf, asks modprobe for
 * lunatik-linux_nf if there is none, and holds the module for as long as the
 * runtime lives. A module may hold several libraries, and needs neither
 * module_init() nor module_exit() for them.
 */
#define LUNATIK_LIBRARY(symbol, library)				\
	MODULE_ALIAS("lunatik-" #symbol);				\
	int luaopen_##symbol(lua_State *L);				\
	int luaopen_##symbol(lua_State *L)				\
	{								\
		return lunatik_open(L, &(library));			\
	}								\
	EXPORT_SYMBOL_GPL(luaopen_##symbol)

#endif /* LUNATIK_H */

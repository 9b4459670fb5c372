// SPDX-License-Identifier: GPL-2.0-only
/*
 * thread: kernel threads that run the function that a script returned.
 *
 * A thread is a hook of the runtime that it runs: when that is stopped, the
 * thread is told first, and has ended before the runtime is gone.
 */
#include <linux/completion.h>
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>

#include "lunatik.h"

/* What a thread has to end by itself before its runtime is stopped. */
#define THREAD_GRACE	HZ

/*
 * What the kernel allocates for a thread, on the account of who makes it: the
 * stack until the function returns, the task as long as somebody refers to it.
 */
#define THREAD_STACK	THREAD_SIZE
#define THREAD_TASK	sizeof(struct task_struct)
#define THREAD_COST	(THREAD_STACK + THREAD_TASK)

#define THREAD_NAME_MAX	127	/* bytes, as of a script's */

struct thread {
	struct lunatik_hook hook;	/* of the runtime that runs in it */
	struct lunatik_object *runtime;	/* counted, until the function returns */
	struct task_struct *task;	/* counted; NULL: there is none */
	struct lunatik_runtime *payer;	/* counted: of THREAD_STACK and THREAD_TASK */
	struct completion ready;	/* all of the above is as it stays */
	struct completion done;		/* the function has returned */
	bool stop;			/* asked to */
};

static int thread_body(lua_State *L, void *arg)
{
	lunatik_pushbody(L);
	if (lua_type(L, -1) != LUA_TFUNCTION)
		return luaL_error(L, "the script returned no function to run");
	lua_call(L, 0, 0);
	return 0;
}

/* The thread: nothing held. It owns references to runtime, hook and module. */
static int thread_main(void *data)
{
	struct thread *thread = data;
	int ret;

	ret = lunatik_run_alone(thread->hook.runtime, thread_body, NULL, &thread->stop);
	lunatik_tell_refused(thread->hook.runtime, "a thread", ret);
	lunatik_object_put(thread->runtime);
	lunatik_unaccount(thread->payer, THREAD_STACK);
	complete_all(&thread->done);
	lunatik_hook_cancel(&thread->hook);
	lunatik_hook_put(&thread->hook);
	module_put_and_kthread_exit(0);
	return 0;
}

static void thread_wake(struct thread *thread)
{
	WRITE_ONCE(thread->stop, true);
	smp_mb__before_atomic();	/* see lunatik_run_alone() */
	/* Ends its interruptible waits as a signal would. */
	set_tsk_thread_flag(thread->task, TIF_NOTIFY_SIGNAL);
	wake_up_process(thread->task);
}

/* The runtime may be stopped while thread_run(), in another, makes the thread. */
static void thread_stop_hook(struct lunatik_hook *hook)
{
	struct thread *thread = container_of(hook, struct thread, hook);

	wait_for_completion(&thread->ready);
	if (!thread->task)
		return;
	thread_wake(thread);
	wait_for_completion(&thread->done);
}

static void thread_free(struct lunatik_hook *hook)
{
	struct thread *thread = container_of(hook, struct thread, hook);

	if (thread->task)
		put_task_struct(thread->task);
	lunatik_unaccount(thread->payer, THREAD_TASK);
	lunatik_put(thread->payer);
	lunatik_free(thread);
}

static const struct lunatik_hook_ops thread_ops = {
	.name = "thread",
	.stop = thread_stop_hook,
	.free = thread_free,
	.owner = THIS_MODULE,
};

/* ---- objects ---- */

struct thread_object {
	struct thread *thread;		/* its hook is counted; NULL: not ours */
	struct task_struct *task;	/* the thread's; counted if that is not ours */
	struct lunatik_runtime *payer;	/* of such a task; has this object, lives as long */
};

static void thread_release(void *private)
{
	struct thread_object *object = private;

	if (object->thread)
		lunatik_hook_put(&object->thread->hook);
	else if (object->task)
		put_task_struct(object->task);
	lunatik_unaccount(object->payer, THREAD_TASK);
}

static void thread_stop(lua_State *L, void *private)
{
	struct thread_object *object = private;
	struct thread *thread = object->thread;

	if (!thread)
		lunatik_throw(L, EPERM);
	lunatik_checkwait(L, "thread.stop");
	if (completion_done(&thread->done))
		return;
	thread_wake(thread);
	if (thread->task == current)
		return;
	if (!wait_for_completion_timeout(&thread->done, THREAD_GRACE))
		lunatik_stop(thread->hook.runtime);
	lunatik_slept(L);
}

static const struct lunatik_class thread_class;

static int thread_task(lua_State *L)
{
	struct thread_object *object = lunatik_check(L, 1, &thread_class);
	struct task_struct *task = object->task;
	char command[TASK_COMM_LEN];

	lua_createtable(L, 0, 4);
	lua_pushinteger(L, task_cpu(task));
	lua_setfield(L, -2, "cpu");
	get_task_comm(command, task);
	lua_pushstring(L, command);
	lua_setfield(L, -2, "command");
	lua_pushinteger(L, task->pid);
	lua_setfield(L, -2, "pid");
	lua_pushinteger(L, task->tgid);
	lua_setfield(L, -2, "tgid");
	return 1;
}

static const luaL_Reg thread_methods[] = {
	{"task", thread_task},
	{}
};

static const struct lunatik_class thread_class = {
	.name = "thread",
	.flags = LUNATIK_SLEEP,
	.methods = thread_methods,
	.release = thread_release,
	.stop = thread_stop,
	.owner = THIS_MODULE,
};

/* ---- the library ---- */

/* run(runtime, name) */
static int thread_run(lua_State *L)
{
	struct lunatik_runtime *runtime = lunatik_checkruntime(L, 1);
	struct lunatik_runtime *self = lunatik_toruntime(L);
	size_t length;
	const char *name = luaL_checklstring(L, 2, &length);
	struct thread_object *object;
	struct task_struct *task;
	struct thread *thread;
	int ret;

	if (lunatik_context(runtime) != LUNATIK_PROCESS)
		return luaL_error(L, "thread.run: not a process runtime");
	/* The kernel keeps all of it, as long as somebody refers to the task. */
	luaL_argcheck(L, length <= THREAD_NAME_MAX, 2, "name too long");

	object = lunatik_new(L, &thread_class, sizeof(*object));
	/* Threads that have ended may be garbage; below, too much is held to collect it. */
	lunatik_checkaccount(L, self, sizeof(*thread) + THREAD_COST);
	lunatik_unaccount(self, sizeof(*thread) + THREAD_COST);
	thread = lunatik_alloc(L, sizeof(*thread));
	init_completion(&thread->ready);
	init_completion(&thread->done);
	if (!lunatik_account(self, THREAD_COST)) {
		lunatik_free(thread);
		return luaL_error(L, "not enough memory");
	}
	thread->payer = lunatik_get(self);

	ret = lunatik_hook_add_to(runtime, &thread->hook, &thread_ops);
	if (ret) {
		lunatik_unaccount(self, THREAD_STACK);
		thread_free(&thread->hook);
		return lunatik_throw(L, ret);
	}
	/* The runtime's reference stays until "ready"; from then on there is ours. */
	lunatik_hook_get(&thread->hook);
	task = kthread_create(thread_main, thread, "%s", name);
	if (IS_ERR(task)) {
		lunatik_unaccount(self, THREAD_STACK);
		complete_all(&thread->ready);
		lunatik_hook_abort(&thread->hook);
		lunatik_hook_put(&thread->hook);
		return lunatik_throw(L, PTR_ERR(task));
	}
	thread->task = get_task_struct(task);
	thread->runtime = lunatik_object_get(lunatik_object(L, 1));
	lunatik_hook_get(&thread->hook);	/* thread_main()'s */
	__module_get(THIS_MODULE);		/* thread_main()'s */

	object->task = task;
	object->thread = thread;		/* with our reference */
	complete_all(&thread->ready);
	wake_up_process(task);
	return 1;
}

static struct thread *current_thread(void)
{
	if (!(current->flags & PF_KTHREAD) || kthread_func(current) != thread_main)
		return NULL;
	return kthread_data(current);
}

static int thread_shouldstop(lua_State *L)
{
	struct thread *thread = current_thread();

	lua_pushboolean(L, lunatik_stopping(L) || (thread && READ_ONCE(thread->stop)) ||
			fatal_signal_pending(current));
	return 1;
}

static int thread_current(lua_State *L)
{
	struct thread_object *object = lunatik_new(L, &thread_class, sizeof(*object));
	struct lunatik_runtime *self = lunatik_toruntime(L);
	struct thread *thread = current_thread();

	if (thread) {
		lunatik_hook_get(&thread->hook);
		object->thread = thread;
		object->task = thread->task;
		return 1;
	}
	lunatik_checkaccount(L, self, THREAD_TASK);
	object->payer = self;
	object->task = get_task_struct(current);
	return 1;
}

static const luaL_Reg thread_functions[] = {
	{"run", thread_run},
	{"shouldstop", thread_shouldstop},
	{"current", thread_current},
	{}
};

static const struct lunatik_library thread_library = {
	.name = "thread",
	.contexts = LUNATIK_PROCESS,
	.functions = thread_functions,
};

LUNATIK_LIBRARY(thread, thread_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: kernel threads that run scripts");

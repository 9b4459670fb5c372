// SPDX-License-Identifier: GPL-2.0-only
/*
 * probe - scripts that run when the kernel executes an instruction (kprobes)
 *
 * A probe can hit anywhere, also while the code that is probed holds a lock of
 * the allocator's or of the runtime's own. Both are held with interrupts off
 * only, so a hit with interrupts off is left out, and counted as missed. What
 * hits through a breakpoint and not through the function tracer's call at the
 * start of a function looks like an NMI to the core, which refuses it.
 *
 * For the same reason nothing here prints to a console on the spot: the lock
 * may be that of the console's own driver (lunatik_printk_deferred()).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kprobes.h>
#include <linux/kallsyms.h>
#include <linux/printk.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/stacktrace.h>
#include <linux/workqueue.h>

#include "lunatik.h"

struct probe {
	struct lunatik_hook hook;
	struct kprobe kprobe;
	char symbol[KSYM_NAME_LEN];	/* fixed; empty: by address */
	int pre, post;			/* references; guarded by the runtime's lock */
	bool closed;			/* set under the runtime's lock, never cleared */
	bool enabled;			/* set under the runtime's lock */
	struct work_struct toggle;	/* makes the kernel's state that of enabled */
	bool warned;			/* of missed hits; races are harmless */
};

/* The object that a script holds. */
struct handle {
	struct probe *probe;		/* its hook is counted */
};

/* ---- hits ---------------------------------------------------------------- */

struct request {
	struct probe *probe;
	bool post;
};

/* What a backtrace costs, in instructions, where there is no slow console. */
#define PROBE_DUMP_COST		5000
#define PROBE_DUMP_DEPTH	64

#ifdef CONFIG_STACKTRACE
/* Innermost first. @entries: room for PROBE_DUMP_DEPTH. Each line counts. */
static void dump_trace(lua_State *L, unsigned long *entries)
{
	unsigned int count = stack_trace_save(entries, PROBE_DUMP_DEPTH, 0);
	unsigned int i;

	for (i = 0; i < count && lunatik_mayprint(L); i++)
		lunatik_printk_deferred(KERN_INFO " %pS\n", (void *)entries[i]);
}
#else
static void dump_trace(lua_State *L, unsigned long *entries)
{
	lunatik_printk_deferred(KERN_INFO " (none: CONFIG_STACKTRACE is not set)\n");
}
#endif

/* As dump_stack() does, which prints at once. */
static int dump(lua_State *L)
{
	unsigned long *entries;

	lunatik_charge(L, PROBE_DUMP_COST);
	if (!lunatik_mayprint(L))
		return 0;
	/* Not on the stack, of which a hit may have little left. */
	entries = lua_newuserdatauv(L, PROBE_DUMP_DEPTH * sizeof(*entries), 0);
	lunatik_printk_deferred(KERN_INFO pr_fmt("%s: CPU: %d PID: %d Comm: %s\n"),
				lunatik_name(lunatik_toruntime(L)), raw_smp_processor_id(),
				task_pid_nr(current), current->comm);
	lunatik_printk_deferred(KERN_INFO "Call Trace:\n");
	dump_trace(L, entries);
	return 0;
}

static int call_handler(lua_State *L, void *arg)
{
	struct request *request = arg;
	struct probe *probe = request->probe;
	int ref = request->post ? probe->post : probe->pre;

	if (probe->closed || !probe->enabled || ref == LUA_NOREF)
		return 0;
	lunatik_pushref(L, ref);
	if (*probe->symbol)
		lua_pushstring(L, probe->symbol);
	else
		lua_pushlightuserdata(L, probe->kprobe.addr);
	lua_pushcfunction(L, dump);
	lua_call(L, 2, 0);
	return 0;
}

static void probe_hit(struct kprobe *kprobe, struct pt_regs *regs, bool post)
{
	struct probe *probe = container_of(kprobe, struct probe, kprobe);
	struct request request = { .probe = probe, .post = post };

	if (READ_ONCE(probe->closed) || !READ_ONCE(probe->enabled))
		return;
	if (!regs_irqs_disabled(regs) && !in_nmi()) {
		lunatik_run(probe->hook.runtime, call_handler, &request);
		return;
	}
	if (READ_ONCE(probe->warned))
		return;
	WRITE_ONCE(probe->warned, true);
	lunatik_printk_deferred(KERN_WARNING
				pr_fmt("%s: hits of %pS with interrupts off are left out\n"),
				lunatik_name(probe->hook.runtime), kprobe->addr);
}

/* Wherever the kernel is: preemption off, any of its locks held. */
static int probe_pre(struct kprobe *kprobe, struct pt_regs *regs)
{
	probe_hit(kprobe, regs, false);
	return 0;
}

/* As probe_pre(). */
static void probe_post(struct kprobe *kprobe, struct pt_regs *regs, unsigned long flags)
{
	probe_hit(kprobe, regs, true);
}

/* ---- life ---------------------------------------------------------------- */

/* A work: process context, nothing held; probe_stop() waits for it. */
static void probe_toggle(struct work_struct *work)
{
	struct probe *probe = container_of(work, struct probe, toggle);

	if (READ_ONCE(probe->enabled))
		enable_kprobe(&probe->kprobe);
	else
		disable_kprobe(&probe->kprobe);
}

/* unregister_kprobe() waits for the last hit. */
static void probe_stop(struct lunatik_hook *hook)
{
	struct probe *probe = container_of(hook, struct probe, hook);

	WRITE_ONCE(probe->closed, true);
	cancel_work_sync(&probe->toggle);
	unregister_kprobe(&probe->kprobe);
}

static void probe_free(struct lunatik_hook *hook)
{
	lunatik_free(container_of(hook, struct probe, hook));
}

static const struct lunatik_hook_ops probe_ops = {
	.name = "probe",
	.stop = probe_stop,
	.free = probe_free,
	.owner = THIS_MODULE,
};

static void handle_release(void *private)
{
	struct handle *handle = private;

	if (handle->probe)
		lunatik_hook_put(&handle->probe->hook);
}

/* Also from a handler of the probe's: the core's workqueue takes it out. */
static void handle_stop(lua_State *L, void *private)
{
	struct handle *handle = private;
	struct probe *probe = handle->probe;

	if (!probe || probe->closed)
		return;
	WRITE_ONCE(probe->closed, true);
	lunatik_unref(L, probe->pre);
	lunatik_unref(L, probe->post);
	lunatik_hook_cancel(&probe->hook);
}

static const struct lunatik_class handle_class;

/*
 * At once for the script; the kernel's own work of patching the probe in or
 * out, which sleeps, follows. A closed probe stays closed.
 */
static int handle_enable(lua_State *L)
{
	struct handle *handle = lunatik_check(L, 1, &handle_class);
	struct probe *probe = handle->probe;

	luaL_checktype(L, 2, LUA_TBOOLEAN);
	if (!probe || probe->closed)
		return luaL_error(L, "probe is closed");
	WRITE_ONCE(probe->enabled, lua_toboolean(L, 2));
	schedule_work(&probe->toggle);
	return 0;
}

static const luaL_Reg handle_methods[] = {
	{ "enable", handle_enable },
	{ NULL, NULL }
};

/* Single: it drops references of its runtime's. */
static const struct lunatik_class handle_class = {
	.name = "probe",
	.flags = LUNATIK_SINGLE,
	.methods = handle_methods,
	.release = handle_release,
	.stop = handle_stop,
	.owner = THIS_MODULE,
};

static void take_target(lua_State *L, struct probe *probe)
{
	const char *symbol;
	size_t length;

	switch (lua_type(L, 1)) {
	case LUA_TLIGHTUSERDATA:
		probe->kprobe.addr = lua_touserdata(L, 1);
		break;
	case LUA_TNUMBER:
		probe->kprobe.addr = (kprobe_opcode_t *)(uintptr_t)luaL_checkinteger(L, 1);
		break;
	default:
		symbol = luaL_checklstring(L, 1, &length);
		if (!length || length >= sizeof(probe->symbol) || strlen(symbol) != length)
			luaL_argerror(L, 1, "invalid symbol");
		memcpy(probe->symbol, symbol, length);
	}
}

struct making {
	struct probe *checked;	/* what is taken so far */
	struct handle *handle;
};

static void making_take(lua_State *L, void *arg)
{
	struct making *making = arg;
	struct probe *probe;
	int ret;

	making->checked->pre = lunatik_fieldref(L, 2, "pre", true);
	making->checked->post = lunatik_fieldref(L, 2, "post", true);

	/* Nothing may raise an error from here until the core owns the hook. */
	probe = lunatik_alloc(L, sizeof(*probe));
	*probe = *making->checked;
	if (*probe->symbol)
		probe->kprobe.symbol_name = probe->symbol;
	probe->kprobe.pre_handler = probe_pre;
	if (probe->post != LUA_NOREF)
		probe->kprobe.post_handler = probe_post;
	probe->enabled = true;
	INIT_WORK(&probe->toggle, probe_toggle);
	lunatik_hook_add(L, &probe->hook, &probe_ops);

	ret = register_kprobe(&probe->kprobe);
	if (ret) {
		lunatik_hook_abort(&probe->hook);
		lunatik_throw(L, ret);
	}
	lunatik_hook_get(&probe->hook);
	making->handle->probe = probe;
}

static void making_drop(lua_State *L, void *arg)
{
	struct making *making = arg;

	lunatik_unref(L, making->checked->pre);
	lunatik_unref(L, making->checked->post);
}

/* probe.new(symbol or address, {pre = , post = }) */
static int probe_new(lua_State *L)
{
	struct making making;
	struct probe *checked;

	lunatik_checksleep(L, "probe.new");
	luaL_checktype(L, 2, LUA_TTABLE);
	making.handle = lunatik_new(L, &handle_class, sizeof(*making.handle));

	/* Too large for the stack of the kernel. */
	checked = lua_newuserdatauv(L, sizeof(*checked), 0);
	memset(checked, 0, sizeof(*checked));
	take_target(L, checked);
	checked->pre = LUA_NOREF;
	checked->post = LUA_NOREF;
	making.checked = checked;
	lunatik_attempt(L, making_take, making_drop, &making);
	lua_pop(L, 1);
	return 1;
}

static const luaL_Reg probe_functions[] = {
	{ "new", probe_new },
	{ NULL, NULL }
};

static const struct lunatik_library probe_library = {
	.name = "probe",
	.contexts = LUNATIK_HARDIRQ,
	.functions = probe_functions,
};

LUNATIK_LIBRARY(probe, probe_library);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: kprobes");

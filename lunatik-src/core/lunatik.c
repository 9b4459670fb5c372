// SPDX-License-Identifier: GPL-2.0-only
/*
 * The library "lunatik": runtimes as objects of scripts.
 */
#include <linux/cpumask.h>
#include <linux/err.h>
#include <linux/export.h>
#include <linux/jiffies.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "core.h"

#define LUNATIK_VALUES	16	/* arguments or results of rt:resume() */
#define LUNATIK_ROOM	(HZ / 10)	/* how long to wait until there is room for one more */

/* The object of a runtime: its references keep it going. */
struct holder {
	struct lunatik_runtime *runtime;	/* counted */
	struct lunatik_runtime *payer;	/* of its memory; has this object, lives as long */
};

static void holder_release(void *private)
{
	struct holder *holder = private;

	if (holder->runtime) {
		lunatik_stop(holder->runtime);
		lunatik_put(holder->runtime);
	}
	lunatik_unaccount(holder->payer, sizeof(*holder->runtime));
}

static void holder_stop(lua_State *L, void *private)
{
	struct lunatik_runtime *self = lunatik_toruntime(L);
	struct holder *holder = private;

	lunatik_stop(holder->runtime);
	lunatik_wait_stopped(holder->runtime, self, lunatik_stop_patience(self));
	/* A loop of this is one of waits, in a finalizer that is the last as well. */
	if (lunatik_maysleep(L))
		lunatik_slept(L);
}

/* ---- values on their way between two Lua states ---- */

struct value {
	int type;		/* LUA_T*; LUA_TUSERDATA: object */
	union {
		bool boolean;
		lua_Integer integer;
		struct lunatik_object *object;	/* counted */
		struct {
			char *text;		/* lunatik_free() */
			size_t length;
		};
	};
};

/* Lives as an object on the caller's stack, so that no error can leak it. */
struct transfer {
	struct lunatik_runtime *payer;	/* has this object, and lives as long */
	int arguments;
	int results;
	struct value values[LUNATIK_VALUES];
	char *error;		/* kfree() */
	size_t error_size;	/* on the payer's account */
};

static void clear_values(struct transfer *transfer, int count)
{
	int i;

	for (i = 0; i < count; i++) {
		struct value *value = &transfer->values[i];

		if (value->type == LUA_TUSERDATA)
			lunatik_object_put(value->object);
		else if (value->type == LUA_TSTRING)
			lunatik_free(value->text);
		value->type = LUA_TNIL;
	}
}

static void transfer_release(void *private)
{
	struct transfer *transfer = private;

	clear_values(transfer, LUNATIK_VALUES);
	kfree(transfer->error);
	lunatik_unaccount(transfer->payer, transfer->error_size);
}

/* The message counts as long as this is not collected. */
static void keep_error(struct transfer *transfer, char *text)
{
	size_t size = text ? strlen(text) + 1 : 0;

	if (!lunatik_account(transfer->payer, size)) {
		kfree(text);
		return;
	}
	transfer->error = text;
	transfer->error_size = size;
}

static const struct lunatik_class transfer_class = {
	.name = "transfer",
	.flags = LUNATIK_SINGLE,
	.release = transfer_release,
	.owner = THIS_MODULE,
};

static void take_object(lua_State *L, int arg, struct value *value)
{
	struct lunatik_object *object = lunatik_object(L, arg);

	if (!object)
		luaL_argerror(L, arg, "invalid object");
	if (lunatik_classof(object)->flags & LUNATIK_SINGLE)
		luaL_error(L, "cannot share SINGLE object");
	value->object = lunatik_object_get(object);
	value->type = LUA_TUSERDATA;
}

static void take_result(lua_State *L, int index, struct value *value,
			struct lunatik_runtime *payer)
{
	const char *text;

	switch (lua_type(L, index)) {
	case LUA_TNIL:
		break;
	case LUA_TBOOLEAN:
		value->boolean = lua_toboolean(L, index);
		value->type = LUA_TBOOLEAN;
		break;
	case LUA_TNUMBER:
		value->integer = lua_tointeger(L, index);
		value->type = LUA_TNUMBER;
		break;
	case LUA_TSTRING:
		text = lua_tolstring(L, index, &value->length);
		lunatikvm_charge(L, value->length / 64);
		value->text = lunatik_try_alloc(payer, value->length + 1, lunatik_gfp(L));
		if (!value->text)
			luaL_error(L, "not enough memory");
		memcpy(value->text, text, value->length);
		value->type = LUA_TSTRING;
		break;
	case LUA_TUSERDATA:
		take_object(L, index, value);
		break;
	default:
		luaL_error(L, "cannot pass a %s between runtimes", luaL_typename(L, index));
	}
}

static void push_value(lua_State *L, const struct value *value)
{
	switch (value->type) {
	case LUA_TBOOLEAN:
		lua_pushboolean(L, value->boolean);
		break;
	case LUA_TNUMBER:
		lua_pushinteger(L, value->integer);
		break;
	case LUA_TSTRING:
		lua_pushlstring(L, value->text, value->length);
		break;
	case LUA_TUSERDATA:
		lunatik_push(L, value->object);
		break;
	default:
		lua_pushnil(L);
	}
}

/* In the resumed runtime. */
static int resume_body(lua_State *L, void *arg)
{
	struct transfer *transfer = arg;
	int i, results;

	lunatik_pushbody(L);
	if (lua_type(L, 1) != LUA_TFUNCTION)
		return luaL_error(L, "the script returned no function to resume");
	for (i = 0; i < transfer->arguments; i++)
		push_value(L, &transfer->values[i]);
	lua_call(L, transfer->arguments, LUA_MULTRET);

	results = lua_gettop(L);
	if (results > LUNATIK_VALUES)
		return luaL_error(L, "too many results");
	clear_values(transfer, transfer->arguments);
	for (i = 0; i < results; i++)
		take_result(L, i + 1, &transfer->values[i], transfer->payer);
	transfer->results = results;
	return 0;
}

static int runtime_resume(lua_State *L)
{
	struct holder *holder = lunatik_check(L, 1, &lunatik_runtime_class);
	struct lunatik_runtime *runtime = holder->runtime;
	struct lunatik_runtime *self = lunatik_toruntime(L);
	struct lunatik_error error = {};
	int arguments = lua_gettop(L) - 1;
	struct transfer *transfer;
	int i, ret;

	if (arguments > LUNATIK_VALUES)
		return luaL_error(L, "too many arguments");
	if (runtime->context == LUNATIK_PROCESS)
		lunatik_checksleep(L, "resume of a process runtime");
	lunatikvm_checkstack(L);

	transfer = lunatik_new(L, &transfer_class, sizeof(*transfer));
	transfer->payer = self;
	for (i = 0; i < arguments; i++)
		take_object(L, i + 2, &transfer->values[i]);
	transfer->arguments = arguments;

	/* What holds of this task's locks holds of the nested entry as well. */
	ret = lunatik_resume(runtime, resume_body, transfer, &error,
			     lunatik_hurried(L) ? LUNATIK_HURRIED : LUNATIK_USUAL,
			     lunatik_maysleep(L) ? self : NULL);
	keep_error(transfer, error.text);
	if (ret < 0)
		clear_values(transfer, LUNATIK_VALUES);
	if (lunatik_maysleep(L))
		lunatik_slept(L);
	else if (ret == -EBUSY)	/* it span for a millisecond */
		lunatikvm_charge(L, self->caps.instructions / 16);
	lunatik_charge_nested(L, error.instructions);
	if (ret < 0) {
		if (!transfer->error)
			return lunatik_throw(L, ret);
		lua_pushstring(L, transfer->error);
		return lua_error(L);
	}

	luaL_checkstack(L, transfer->results, NULL);
	for (i = 0; i < transfer->results; i++)
		push_value(L, &transfer->values[i]);
	return transfer->results;
}

static const luaL_Reg runtime_methods[] = {
	{"resume", runtime_resume},
	{}
};

const struct lunatik_class lunatik_runtime_class = {
	.name = "runtime",
	.methods = runtime_methods,
	.release = holder_release,
	.stop = holder_stop,
	.owner = THIS_MODULE,
};

struct lunatik_runtime *lunatik_checkruntime(lua_State *L, int arg)
{
	struct holder *holder = lunatik_check(L, arg, &lunatik_runtime_class);

	return holder->runtime;
}
EXPORT_SYMBOL_GPL(lunatik_checkruntime);

/* ---- lunatik.runtime() ---- */

/*
 * Who types may give any caps; a script what anybody has by default, or what it
 * has itself: or its own would bind nobody. What is little in process context
 * is much in softirq, so of instructions and share its own count in its own
 * context only.
 */
static void most_caps(const struct lunatik_runtime *self, enum lunatik_context context,
		      struct lunatik_caps *most)
{
	if (self->session) {
		most->memory = LUA_MAXINTEGER;
		most->instructions = LUA_MAXINTEGER;
		most->share = 100;
		return;
	}
	lunatik_default_caps(context, most);
	most->memory = max(most->memory, self->caps.memory);
	if (self->context != context)
		return;
	most->instructions = max(most->instructions, self->caps.instructions);
	most->share = max(most->share, self->caps.share);
}

/* What the third argument of lunatik.runtime() says. */
struct options {
	struct lunatik_caps caps;
	enum lunatik_kind kind;
	int cpu;
};

static void take_options(lua_State *L, int arg, enum lunatik_context context,
			 struct options *options)
{
	struct lunatik_caps *caps = &options->caps;
	struct lunatik_caps most;

	options->kind = LUNATIK_ANY_NUMBER;
	options->cpu = -1;
	lunatik_default_caps(context, caps);
	if (lua_isnoneornil(L, arg))
		return;
	most_caps(lunatik_toruntime(L), context, &most);
	luaL_checktype(L, arg, LUA_TTABLE);
	caps->memory = lunatik_optfieldrange(L, arg, "memory", caps->memory, 1, most.memory);
	caps->instructions = lunatik_optfieldrange(L, arg, "instructions", caps->instructions,
						   1, most.instructions);
	caps->share = lunatik_optfieldrange(L, arg, "share", caps->share, 1, most.share);
	options->cpu = lunatik_optfieldrange(L, arg, "cpu", -1, -1, nr_cpu_ids - 1);
	lua_getfield(L, arg, "only");
	if (lua_toboolean(L, -1))
		options->kind = LUNATIK_ONLY;
	lua_pop(L, 1);
}

/* Its memory stays as long as the object does, stopped or not. */
static struct holder *new_holder(lua_State *L)
{
	struct holder *holder = lunatik_new(L, &lunatik_runtime_class, sizeof(*holder));
	struct lunatik_runtime *payer = lunatik_toruntime(L);

	lunatik_checkaccount(L, payer, sizeof(*holder->runtime));
	holder->payer = payer;
	return holder;
}

static bool no_room(const struct lunatik_runtime *runtime)
{
	return runtime == ERR_PTR(-ENFILE) || runtime == ERR_PTR(-ENOSPC);
}

/*
 * Some of what a runtime had goes a little after its stop, by works: who makes
 * one after another must not fail by that. Nor wait long for what may never go.
 */
static struct lunatik_runtime *create(lua_State *L, const char *name,
				      enum lunatik_context context,
				      const struct options *options)
{
	unsigned long limit = jiffies + LUNATIK_ROOM;
	struct lunatik_runtime *runtime;

	for (;;) {
		runtime = lunatik_create(name, context, options->cpu, &options->caps,
					 options->kind);
		if (!no_room(runtime) || lunatik_hurried(L) ||
		    time_after(jiffies, limit) || signal_pending(current))
			return runtime;
		schedule_timeout_interruptible(1);
	}
}

static int create_failed(lua_State *L, const char *script, int err)
{
	lunatik_slept(L);
	if (err == -EEXIST)
		return luaL_error(L, "%s is already running", script);
	if (err == -ENOSPC)
		return luaL_error(L,
				  "ENOMEM: the runtimes together hold what they may (total_memory)");
	if (err != -ENFILE)
		return lunatik_throw(L, err);
	return luaL_error(L,
			  "ENFILE: too many runtimes (max_runtimes): one that was stopped counts until nobody holds what it made, as lunatik._ENV may");
}

static int new_runtime(lua_State *L)
{
	static const char * const names[] = { "process", "softirq", "hardirq", NULL };
	static const enum lunatik_context contexts[] = {
		LUNATIK_PROCESS, LUNATIK_SOFTIRQ, LUNATIK_HARDIRQ,
	};
	const char *script = luaL_checkstring(L, 1);
	enum lunatik_context context = contexts[luaL_checkoption(L, 2, "process", names)];
	struct lunatik_runtime *self = lunatik_toruntime(L);
	struct lunatik_runtime *runtime;
	struct lunatik_error error = {};
	struct options options;
	struct transfer *transfer;
	char name[LUNATIK_NAME_MAX];
	struct holder *holder;
	int ret;

	take_options(L, 3, context, &options);
	lunatik_checksleep(L, "runtime");
	lunatikvm_checkstack(L);
	if (!lunatik_valid_name(script))
		return luaL_error(L, "invalid script name");
	if (options.cpu < 0)
		strscpy(name, script, sizeof(name));
	else
		snprintf(name, sizeof(name), "%s:%d", script, options.cpu);

	transfer = lunatik_new(L, &transfer_class, sizeof(*transfer));
	transfer->payer = self;
	holder = new_holder(L);

	runtime = create(L, name, context, &options);
	if (IS_ERR(runtime))
		return create_failed(L, script, PTR_ERR(runtime));
	holder->runtime = runtime;
	runtime->outer = self;

	ret = lunatik_load(runtime, &error, lunatik_hurried(L) ? LUNATIK_HURRIED : LUNATIK_PATIENT);
	keep_error(transfer, error.text);
	if (!ret)
		ret = lunatik_arm(runtime);
	else
		lunatik_abandon(runtime);
	lunatik_slept(L);
	lunatik_charge_nested(L, error.instructions);
	if (!ret)
		return 1;

	lunatik_wait_stopped(runtime, self, lunatik_stop_patience(self));
	if (!transfer->error)
		return lunatik_throw(L, ret);
	lua_pushstring(L, transfer->error);
	return lua_error(L);
}

/* ---- lunatik.status() ---- */

struct status {
	char name[LUNATIK_NAME_MAX];
	char hooks[128];
	char reason[160];
	const char *context;
	const char *state;
	struct lunatik_caps caps;
	bool session;
	u64 memory, peak, instructions, entries, errors, throttled, time;
};

static struct lunatik_runtime *nth_runtime(int n)
{
	struct lunatik_runtime *runtime, *found = NULL;

	mutex_lock(&lunatik_runtimes_lock);
	list_for_each_entry(runtime, &lunatik_runtimes, node) {
		if (!n--) {
			found = lunatik_get(runtime);
			break;
		}
	}
	mutex_unlock(&lunatik_runtimes_lock);
	return found;
}

static u64 figure(const u64 *counter)
{
	return data_race(*counter);	/* whoever runs it adds to it meanwhile */
}

/* Figures of a running runtime are read without its lock: good for people. */
static bool take_status(int n, struct status *status)
{
	static const char * const states[] = {
		"loading", "running", "broken", "stopping", "stopped",
	};
	struct lunatik_runtime *runtime = nth_runtime(n);

	if (!runtime)
		return false;
	strscpy(status->name, runtime->name, sizeof(status->name));
	status->session = runtime->session;
	raw_spin_lock_irq(&runtime->state_lock);
	status->state = states[runtime->state];
	strscpy(status->reason, runtime->reason, sizeof(status->reason));
	raw_spin_unlock_irq(&runtime->state_lock);
	lunatik_hooks_names(runtime, status->hooks, sizeof(status->hooks));
	status->context = runtime->context == LUNATIK_PROCESS ? "process" :
			  runtime->context == LUNATIK_SOFTIRQ ? "softirq" : "hardirq";
	status->caps = runtime->caps;
	/* As in figure(). */
	status->memory = data_race(lunatik_memory_used(runtime));
	status->peak = atomic64_read(&runtime->peak);
	status->instructions = figure(&runtime->instructions);
	status->entries = figure(&runtime->entries);
	status->errors = figure(&runtime->errors);
	status->throttled = figure(&runtime->throttled);
	status->time = figure(&runtime->time);
	lunatik_put(runtime);
	return true;
}

static void set_string(lua_State *L, const char *key, const char *value)
{
	lua_pushstring(L, value);
	lua_setfield(L, -2, key);
}

static void set_integer(lua_State *L, const char *key, u64 value)
{
	lua_pushinteger(L, value);
	lua_setfield(L, -2, key);
}

static int list_status(lua_State *L)
{
	struct status *status;
	int n;

	lunatik_checksleep(L, "status");
	lua_settop(L, 0);
	status = lua_newuserdatauv(L, sizeof(*status), 0);
	lua_newtable(L);
	for (n = 0; take_status(n, status); n++) {
		lua_createtable(L, 0, 16);
		set_string(L, "name", status->name);
		set_string(L, "context", status->context);
		set_string(L, "state", status->state);
		set_string(L, "reason", status->reason);
		set_string(L, "hooks", status->hooks);
		lua_pushboolean(L, status->session);
		lua_setfield(L, -2, "session");
		set_integer(L, "memory", status->memory);
		set_integer(L, "memory_cap", status->caps.memory);
		set_integer(L, "peak", status->peak);
		set_integer(L, "instructions", status->instructions);
		set_integer(L, "instructions_cap", status->caps.instructions);
		set_integer(L, "share", status->caps.share);
		set_integer(L, "entries", status->entries);
		set_integer(L, "errors", status->errors);
		set_integer(L, "throttled", status->throttled);
		set_integer(L, "time", status->time);
		lua_seti(L, 2, n + 1);
	}
	return 1;
}

/* ---- lunatik.stop() ---- */

/* Sessions all have one name, and are their users': a script ends none. */
static bool answers_to(const struct lunatik_runtime *runtime, const char *name,
		       const struct lunatik_runtime *self)
{
	return runtime != self && !runtime->session && !strcmp(runtime->name, name);
}

/* Nobody is waited for before all of them know. */
static bool stop_all(const char *name, const struct lunatik_runtime *self)
{
	struct lunatik_runtime *runtime;
	bool found = false;

	mutex_lock(&lunatik_runtimes_lock);
	list_for_each_entry(runtime, &lunatik_runtimes, node) {
		if (answers_to(runtime, name, self)) {
			lunatik_stop(runtime);
			found = true;
		}
	}
	mutex_unlock(&lunatik_runtimes_lock);
	return found;
}

/* With a reference; NULL: none is left. */
static struct lunatik_runtime *find_stopping(const char *name,
					     const struct lunatik_runtime *self)
{
	struct lunatik_runtime *runtime, *found = NULL;

	mutex_lock(&lunatik_runtimes_lock);
	list_for_each_entry(runtime, &lunatik_runtimes, node) {
		if (answers_to(runtime, name, self) && READ_ONCE(runtime->stop_requested)) {
			found = lunatik_get(runtime);
			break;
		}
	}
	mutex_unlock(&lunatik_runtimes_lock);
	return found;
}

/*
 * stop(name) -> whether there was one, loading ones too, but for the caller's own.
 * It waits for all of them together as long as rt:stop() does for one: others may
 * be started and stopped meanwhile, without end.
 */
static int stop_named(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	struct lunatik_runtime *self = lunatik_toruntime(L);
	struct lunatik_runtime *runtime;
	unsigned long limit, now;
	bool found, ended = true;

	lunatik_checksleep(L, "stop");
	found = stop_all(name, self);
	limit = jiffies + lunatik_stop_patience(self);
	while (ended && time_before(now = jiffies, limit)) {
		runtime = find_stopping(name, self);
		if (!runtime)
			break;
		lunatik_wait_stopped(runtime, self, limit - now);
		ended = completion_done(&runtime->stopped);
		lunatik_put(runtime);
	}
	lunatik_slept(L);
	lua_pushboolean(L, found);
	return 1;
}

/* ---- the library ---- */

static void set_environment(lua_State *L)
{
	lunatik_push(L, lunatik_env);
	lua_setfield(L, -2, "_ENV");
}

static const luaL_Reg functions[] = {
	{"runtime", new_runtime},
	{"status", list_status},
	{"stop", stop_named},
	{}
};

static const struct lunatik_library library = {
	.name = "lunatik",
	.contexts = LUNATIK_ANY,
	.functions = functions,
	.open = set_environment,
};

static int open_lunatik(lua_State *L)
{
	return lunatik_open(L, &library);
}

void lunatik_open_library(lua_State *L)
{
	luaL_requiref(L, "lunatik", open_lunatik, 0);
	lua_pop(L, 1);
}

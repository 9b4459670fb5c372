// SPDX-License-Identifier: GPL-2.0-only
/*
 * Budget, stop and C stack of a state; see luabudget.h for how Lua charges.
 */
#include <linux/atomic.h>
#include <linux/export.h>
#include <linux/limits.h>
#include <linux/minmax.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/sched/task_stack.h>
#include <linux/kernel.h>

#include "lua.h"
#include "ldebug.h"
#include "ldo.h"
#include "lobject.h"
#include "lstate.h"
#include "lunatik_vm.h"

/* Instructions between two looks at whether somebody wants the state stopped. */
#define SLICE		2048

/* Far below zero, so that no charge brings a stopped state back. */
#define STOPPED		(S64_MIN / 2)

/*
 * The C stack that Lua leaves alone: for the deepest C function that a script
 * calls, what that calls in the kernel, and an exception on top of it. On the
 * stack of a task what is left is known. On an interrupt stack it is not:
 * there Lua takes so much at most, and the rest is for what came before and
 * for interrupts that come on the same stack. docs/lua.md has the measures.
 */
#define TASK_RESERVE	(THREAD_SIZE / 16 * 5)
#define IRQ_ALLOWANCE	(THREAD_SIZE / 16 * 6)

static const char * const reasons[LUNATIKVM_REASONS] = {
	[LUNATIKVM_RUNNING] = "running",
	[LUNATIKVM_BUDGET] = "instruction budget exceeded",
	[LUNATIKVM_REQUEST] = "stopped",
};

const char *lunatikvm_why(enum lunatikvm_reason reason)
{
	return reason < LUNATIKVM_REASONS ? reasons[reason] : "unknown";
}

/*
 * Down to where the states that are entered on this CPU's interrupt stack may
 * go, all of them together; 0 while there are none. Set by the outermost, which
 * stays on its CPU until it leaves.
 */
static DEFINE_PER_CPU(unsigned long, interrupt_limit);

static unsigned long stack_limit(struct lunatikvm *vm)
{
	unsigned long here = (unsigned long)__builtin_frame_address(0);
	unsigned long base = (unsigned long)task_stack_page(current);
	unsigned long limit;

	if (here - base < THREAD_SIZE)
		return base + TASK_RESERVE;
	limit = this_cpu_read(interrupt_limit);
	if (limit)
		return max(limit, here - IRQ_ALLOWANCE);
	limit = here - IRQ_ALLOWANCE;
	this_cpu_write(interrupt_limit, limit);
	vm->outermost = true;
	return limit;
}

static void record_where(lua_State *L, struct lunatikvm *vm)
{
	char name[LUA_IDSIZE];
	CallInfo *ci = L->ci;
	Proto *p;

	while (ci && !isLua(ci))
		ci = ci->previous;
	if (!ci)
		return;
	p = ci_func(ci)->p;
	if (p->source)
		luaO_chunkid(name, getstr(p->source), tsslen(p->source));
	else
		luaO_chunkid(name, "=?", 2);
	snprintf(vm->where, sizeof(vm->where), "%s:%d", name,
		 luaG_getfuncline(p, pcRel(ci->u.l.savedpc, p)));
}

static s64 spent(const struct lunatikvm *vm)
{
	return vm->granted - vm->left - vm->slice;
}

static void mark_stopped(struct lunatikvm *vm, int reason)
{
	vm->spent = vm->depth ? spent(vm) : 0;
	vm->stopped = reason;
	vm->slice = STOPPED;
}

static void grant(struct lunatikvm *vm)
{
	s64 slice;

	vm->left += vm->slice;		/* pay what is overdrawn */
	slice = min_t(s64, vm->left, SLICE);
	vm->left -= slice;
	vm->slice = slice;
}

void lunatikvm_spent(lua_State *L)
{
	struct lunatikvm *vm = &G(L)->vm;
	int reason = READ_ONCE(vm->requested);

	if (vm->stopped) {
		luaD_throw(L, LUA_ERRSTOP);
		return;
	}
	if (!vm->depth) {	/* outside of any entry nothing is limited */
		vm->slice = S64_MAX / 2;
		return;
	}
	if (!reason) {
		if (vm->left + vm->slice < 0) {
			reason = LUNATIKVM_BUDGET;
		} else {
			grant(vm);
			if (vm->pause)
				vm->pause(L, vm->data);
			reason = READ_ONCE(vm->requested);
			if (!reason)
				return;
		}
	}
	record_where(L, vm);
	mark_stopped(vm, reason);
	luaD_throw(L, LUA_ERRSTOP);
}

void lunatikvm_charge(lua_State *L, size_t instructions)
{
	luai_charge(L, instructions);
}
EXPORT_SYMBOL_GPL(lunatikvm_charge);

void lunatikvm_checkstack(lua_State *L)
{
	if (luai_stacklow(L))
		luaE_checkcstack(L);
}
EXPORT_SYMBOL_GPL(lunatikvm_checkstack);

void lunatikvm_init(lua_State *L, lunatikvm_pause pause, void *data)
{
	struct lunatikvm *vm = &G(L)->vm;

	vm->pause = pause;
	vm->data = data;
}

static __always_inline void enter(lua_State *L, u64 instructions)
{
	struct lunatikvm *vm = &G(L)->vm;
	int reason;

	if (vm->depth++)
		return;
	vm->lowest = stack_limit(vm);
	vm->overflowing = false;
	vm->granted = min_t(u64, instructions, S64_MAX / 2);
	vm->left = vm->granted;
	reason = READ_ONCE(vm->requested);
	if (vm->stopped) {
		vm->spent = 0;
	} else if (reason) {
		vm->slice = 0;
		mark_stopped(vm, reason);
	} else {
		vm->slice = 0;
		grant(vm);
	}
}

void lunatikvm_enter(lua_State *L, u64 instructions)
{
	enter(L, instructions);
}

static __always_inline u64 leave(lua_State *L)
{
	struct lunatikvm *vm = &G(L)->vm;
	u64 instructions;

	if (--vm->depth)
		return 0;
	instructions = vm->stopped ? vm->spent : spent(vm);
	vm->used += instructions;
	vm->spent = 0;
	vm->lowest = 0;
	if (vm->outermost) {
		this_cpu_write(interrupt_limit, 0);
		vm->outermost = false;
	}
	if (!vm->stopped)
		vm->slice = S64_MAX / 2;
	return instructions;
}

u64 lunatikvm_leave(lua_State *L)
{
	return leave(L);
}

/* Where an error lands, and what it finds there to put back. */
struct lunatikvm_place {
	lua_longjmp jump;
	l_uint32 calls;
	lu_byte allowhook;
	bool overflowing;
};

/* luaD_call() of a C function that is not on the stack and gives no results. */
static __always_inline int call_frame(lua_State *L, int (*function)(lua_State *L, void *arg),
				      void *arg)
{
	CallInfo *ci = L->ci;
	int value;

	luai_charge(L, LUAI_CALLCOST);
	luaD_checkstack(L, LUA_MINSTACK);
	ci = ci->next ? ci->next : luaE_extendCI(L, 1);
	ci->func.p = L->top.p - 1;
	ci->top.p = L->top.p + LUA_MINSTACK;
	ci->callstatus = CIST_C | 1;
	ci->u.c.k = NULL;
	L->ci = ci;
	value = function(L, arg);
	luai_charge(L, 0);	/* what it has only noted */
	L->ci = L->ci->previous;
	return value;
}

/*
 * What luaD_rawrunprotected() and luaD_pcall() do with an error; the frame that
 * it left is the base.
 */
static noinline int catch_error(lua_State *L, ptrdiff_t top, const struct lunatikvm_place *place)
{
	struct lunatikvm *vm = &G(L)->vm;
	int status = place->jump.status;

	L->nCcalls = place->calls;
	if (vm->overflowing != place->overflowing) {
		vm->overflowing = place->overflowing;
		vm->lowest += LUAI_STACKEXTRA;
	}
	L->ci = &L->base_ci;
	L->allowhook = place->allowhook;
	status = luaD_closeprotected(L, top, status);
	luaD_seterrorobj(L, status, restorestack(L, top));
	luaD_shrinkstack(L);
	return status;
}

/*
 * In one piece: luaD_rawrunprotected() and calls among the parts were a tenth of
 * what an empty callback costs. What only an error changes is put back by
 * catch_error() alone.
 */
int lunatikvm_call(lua_State *L, u64 instructions, int (*function)(lua_State *L, void *arg),
		   void *arg, lua_CFunction handler, struct lunatikvm_result *result)
{
	LUAI_UNCLEARED struct lunatikvm_place place;
	ptrdiff_t base = savestack(L, L->top.p);

	enter(L, instructions);
	setfvalue(s2v(L->top.p), handler);
	setfvalue(s2v(L->top.p + 1), handler);	/* stands for @function in tracebacks */
	L->top.p += 2;
	L->errfunc = base;

	place.calls = L->nCcalls;
	place.allowhook = L->allowhook;
	place.overflowing = G(L)->vm.overflowing;
	place.jump.status = LUA_OK;
	place.jump.passable = 0;
	place.jump.previous = L->errorJmp;
	L->errorJmp = &place.jump;
	if (likely(!setjmp(place.jump.b))) {
		result->value = call_frame(L, function, arg);
		L->top.p = restorestack(L, base);
	}
	L->errorJmp = place.jump.previous;
	if (unlikely(place.jump.status != LUA_OK))
		place.jump.status = catch_error(L, base + sizeof(StackValue), &place);
	L->errfunc = 0;
	result->instructions = leave(L);
	return place.jump.status;
}

int lunatikvm_try(lua_State *L, void (*function)(lua_State *L, void *arg), void *arg)
{
	ptrdiff_t top = savestack(L, L->top.p);
	int status = luaD_pcall(L, function, arg, top, 0);

	if (status == LUA_OK)
		L->top.p = restorestack(L, top);
	return status;
}

u64 lunatikvm_used(lua_State *L)
{
	const struct lunatikvm *vm = &G(L)->vm;

	if (!vm->depth)
		return vm->used;
	return vm->used + (vm->stopped ? vm->spent : spent(vm));
}

void lunatikvm_stop(lua_State *L, enum lunatikvm_reason reason)
{
	cmpxchg(&G(L)->vm.requested, LUNATIKVM_RUNNING, (int)reason);
}

enum lunatikvm_reason lunatikvm_stopped(lua_State *L)
{
	struct lunatikvm *vm = &G(L)->vm;
	int stopped = READ_ONCE(vm->stopped);

	return stopped ? stopped : READ_ONCE(vm->requested);
}

const char *lunatikvm_where(lua_State *L)
{
	return G(L)->vm.where;
}

static void *touserdata(lua_State *L, int index, size_t size)
{
	void *memory = lua_touserdata(L, index);

	if (!memory || lua_type(L, index) != LUA_TUSERDATA || lua_rawlen(L, index) != size)
		return NULL;
	return memory;
}

/* Arguments are looked at for each call of a method: not by three calls. */
void *lunatikvm_touserdata(lua_State *L, int index, size_t size)
{
	StkId argument = L->ci->func.p + index;

	if (unlikely(index <= 0))
		return touserdata(L, index, size);
	if (argument >= L->top.p || !ttisfulluserdata(s2v(argument)))
		return NULL;
	return uvalue(s2v(argument))->len == size ? getudatamem(uvalue(s2v(argument))) : NULL;
}

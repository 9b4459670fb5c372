// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory of runtimes: every byte that a script causes to be held is counted
 * here, and refused beyond the cap of its runtime.
 *
 * runtime->memory is what its Lua state holds, changed by the holder of the
 * runtime's lock. runtime->objects is what outlives the lock or the state:
 * objects and memory of lunatik_alloc(), given back from anywhere.
 *
 * What it may hold is drawn from one pool, some at a time: so all runtimes
 * together hold no more than the machine can spare, and only who needs more
 * than ever before pays for that.
 */
#include <linux/export.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/printk.h>
#include <linux/ratelimit.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "core.h"

/* kmalloc() beyond this is left to luck in an interrupt runtime. */
#define LUNATIK_SMALL	(2 * PAGE_SIZE)

/* How long who wants more waits for RCU, where it may. */
#define LUNATIK_RECLAIM		(HZ / 2)

#ifdef LUNATIK_CALL_RCU_HURRY
#define reclaim_call_rcu	call_rcu_hurry
#else
#define reclaim_call_rcu	call_rcu
#endif

/* Bytes that are drawn from the pool at once: an empty runtime needs no more. */
#define LUNATIK_DRAUGHT	SZ_64K

/* Guards the next, and the grants of all runtimes; innermost; IRQs off. */
static DEFINE_RAW_SPINLOCK(pool_lock);
static u64 pool;	/* bytes granted to all but sessions */

struct lunatik_block {
	struct lunatik_runtime *runtime;	/* counted; NULL: nobody's */
	size_t size;
	struct rcu_head rcu;
	u64 data[];
};

u64 lunatik_memory_used(struct lunatik_runtime *runtime)
{
	return runtime->memory + atomic64_read(&runtime->objects);
}

static void set_grant(struct lunatik_runtime *runtime, u64 bytes)
{
	lockdep_assert_held(&pool_lock);

	if (!runtime->session)
		pool += bytes - runtime->granted;
	WRITE_ONCE(runtime->granted, bytes);
}

static u64 draught(const struct lunatik_runtime *runtime, u64 bytes)
{
	return min(round_up(bytes, LUNATIK_DRAUGHT), runtime->caps.memory);
}

/* Whoever types is to find room where scripts have taken it all. */
static bool spare(const struct lunatik_runtime *runtime, u64 bytes)
{
	u64 limit = lunatik_total_memory();

	lockdep_assert_held(&pool_lock);

	return runtime->session || !limit || pool + bytes - runtime->granted <= limit;
}

static void tell_of_the_pool(struct lunatik_runtime *runtime)
{
	static DEFINE_RATELIMIT_STATE(limit, 5 * HZ, 1);

	if (__ratelimit(&limit))
		lunatik_printk_deferred(KERN_WARNING
					"lunatik: %s: all runtimes together hold what they may (total_memory)\n",
					runtime->name);
}

/*
 * May it hold so many bytes in all, by its cap and by the pool?
 * Context: any, whatever is held.
 */
noinline bool lunatik_grant(struct lunatik_runtime *runtime, u64 bytes)
{
	unsigned long flags;
	bool granted = true;

	if (bytes > runtime->caps.memory)
		return false;
	raw_spin_lock_irqsave(&pool_lock, flags);
	bytes = draught(runtime, bytes);
	if (bytes > runtime->granted) {
		granted = spare(runtime, bytes);
		if (granted)
			set_grant(runtime, bytes);
	}
	raw_spin_unlock_irqrestore(&pool_lock, flags);
	if (!granted)
		tell_of_the_pool(runtime);
	return granted;
}

/* Its Lua state is gone, its account is not yet empty. Context: any. */
void lunatik_trim_grant(struct lunatik_runtime *runtime)
{
	unsigned long flags;
	u64 needed;

	raw_spin_lock_irqsave(&pool_lock, flags);
	needed = draught(runtime, lunatik_memory_used(runtime));
	if (needed < runtime->granted)
		set_grant(runtime, needed);
	raw_spin_unlock_irqrestore(&pool_lock, flags);
}

/* Nothing is on its account any more. Context: any, whatever is held. */
void lunatik_drop_grant(struct lunatik_runtime *runtime)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&pool_lock, flags);
	set_grant(runtime, 0);
	raw_spin_unlock_irqrestore(&pool_lock, flags);
}

static bool fits(struct lunatik_runtime *runtime, size_t more)
{
	u64 used = lunatik_memory_used(runtime);
	u64 granted = READ_ONCE(runtime->granted);

	if (unlikely(more > granted || used > granted - more) &&
	    (more > runtime->caps.memory || !lunatik_grant(runtime, used + more)))
		return false;
	if (used + more > atomic64_read(&runtime->peak))
		atomic64_set(&runtime->peak, used + more);
	return true;
}

/* May sleep where the runtime may; never warns: the script gets an error. */
static gfp_t gfp_of(struct lunatik_runtime *runtime)
{
	return (lunatik_in_process(runtime) ? GFP_KERNEL : GFP_ATOMIC) | __GFP_NOWARN;
}

/*
 * A hardirq runtime frees with interrupts off, where vfree() may not be
 * called; a softirq one with bottom halves off, where it defers itself.
 */
static void *get(struct lunatik_runtime *runtime, size_t size, gfp_t gfp)
{
	void *memory;

	if (lunatik_fault())
		return NULL;
	memory = kmalloc(size, size > LUNATIK_SMALL ? gfp | __GFP_NORETRY : gfp);
	if (!memory && size > LUNATIK_SMALL && gfpflags_allow_blocking(gfp) &&
	    runtime->context != LUNATIK_HARDIRQ)
		memory = kvmalloc(size, gfp);
	return memory;
}

/*
 * lua_Alloc. A shrink must not fail: where there is no memory to move to, the
 * block stays. Only there: Lua shrinks a stack again and again, by a third.
 */
void *lunatik_lua_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
	struct lunatik_runtime *runtime = ud;
	void *memory;

	if (!ptr)
		osize = 0;	/* Lua passes the kind of the new object */

	if (!nsize) {
		kvfree(ptr);
		runtime->memory -= osize;
		return NULL;
	}

	if (nsize > osize && !fits(runtime, nsize - osize))
		return NULL;

	memory = get(runtime, nsize, gfp_of(runtime));
	if (!memory) {
		if (nsize > osize)
			return NULL;
		memory = ptr;
	} else if (ptr) {
		memcpy(memory, ptr, min(osize, nsize));
		kvfree(ptr);
	}
	runtime->memory += nsize - osize;
	return memory;
}

bool lunatik_account(struct lunatik_runtime *runtime, size_t size)
{
	if (!runtime)
		return true;
	if (!fits(runtime, size))
		return false;
	atomic64_add(size, &runtime->objects);
	return true;
}
EXPORT_SYMBOL_GPL(lunatik_account);

void lunatik_checkaccount(lua_State *L, struct lunatik_runtime *runtime, size_t size)
{
	if (lunatik_account(runtime, size))
		return;
	/* Garbage may hold what is wanted; Lua cannot know of it. */
	lua_gc(L, LUA_GCCOLLECT);
	if (!lunatik_account(runtime, size))
		luaL_error(L, "not enough memory");
}
EXPORT_SYMBOL_GPL(lunatik_checkaccount);

void lunatik_unaccount(struct lunatik_runtime *runtime, size_t size)
{
	if (!runtime)
		return;
	if (atomic64_sub_and_test(size, &runtime->objects)) {
		lunatik_uncount(runtime);
		return;
	}
	/* What close_state() has released stands: it will not want that back. */
	if (unlikely(smp_load_acquire(&runtime->closed)))
		lunatik_trim_grant(runtime);
}
EXPORT_SYMBOL_GPL(lunatik_unaccount);

/*
 * What others may still look at is off the account when it is out of their reach, or
 * a script that writes the same key again and again would run out of memory that it
 * does not have. But its bytes are there until RCU is through, and so many writes
 * take more than anybody should: as much as the cap once more may be on its way. Who
 * may wait does, holding no more than its runtime.
 */
bool lunatik_await_reclaim(lua_State *L)
{
	struct lunatik_runtime *runtime = lunatik_toruntime(L);
	unsigned long limit = jiffies + LUNATIK_RECLAIM;

	while ((u64)atomic64_read(&runtime->lapsed) > runtime->caps.memory) {
		if (!lunatik_maysleep(L) || lunatik_hurried(L) || runtime->closing ||
		    signal_pending(current) || time_after(jiffies, limit))
			return false;
		schedule_timeout_interruptible(1);
	}
	return true;
}

/*
 * Off the account of @runtime, which may be NULL, and to be freed by RCU: @reclaim
 * calls lunatik_reclaimed(). What goes holds its runtime, and with it this module,
 * until then. Context: any, whatever is held.
 */
void lunatik_lapse(struct lunatik_runtime *runtime, size_t size, struct rcu_head *rcu,
		   rcu_callback_t reclaim)
{
	if (runtime)
		atomic64_add(size, &runtime->lapsed);
	lunatik_unaccount(runtime, size);
	reclaim_call_rcu(rcu, reclaim);
}

/* A callback of RCU: softirq, nothing held. */
void lunatik_reclaimed(struct lunatik_runtime *runtime, size_t size)
{
	if (!runtime)
		return;
	atomic64_sub(size, &runtime->lapsed);
	lunatik_put(runtime);
}

/* NULL when over the cap or out of memory. @runtime may be NULL. */
void *lunatik_try_alloc(struct lunatik_runtime *runtime, size_t size, gfp_t gfp)
{
	struct lunatik_block *block = NULL;
	size_t total;

	if (check_add_overflow(size, sizeof(*block), &total) || total > INT_MAX)
		return NULL;
	if (!lunatik_account(runtime, total))
		return NULL;

	gfp |= __GFP_NOWARN | __GFP_ZERO;
	if (!lunatik_fault())
		block = gfpflags_allow_blocking(gfp) ? kvmalloc(total, gfp) : kmalloc(total, gfp);
	if (!block) {
		lunatik_unaccount(runtime, total);
		return NULL;
	}
	block->runtime = runtime ? lunatik_get(runtime) : NULL;
	block->size = total;
	return block->data;
}

void *lunatik_alloc(lua_State *L, size_t size)
{
	struct lunatik_runtime *runtime = lunatik_toruntime(L);
	void *memory;

	lunatikvm_charge(L, size / 64);
	memory = lunatik_try_alloc(runtime, size, lunatik_gfp(L));
	if (!memory) {
		/* Garbage may hold what is wanted; Lua cannot know of it. */
		lua_gc(L, LUA_GCCOLLECT);
		memory = lunatik_try_alloc(runtime, size, lunatik_gfp(L));
	}
	if (!memory)
		luaL_error(L, "not enough memory");
	return memory;
}
EXPORT_SYMBOL_GPL(lunatik_alloc);

void lunatik_free(void *memory)
{
	struct lunatik_block *block;
	struct lunatik_runtime *runtime;

	if (!memory)
		return;
	block = container_of(memory, struct lunatik_block, data);
	runtime = block->runtime;
	lunatik_unaccount(runtime, block->size);
	/* vfree() defers itself in interrupts, but not where they are only off. */
	if (irqs_disabled() && is_vmalloc_addr(block))
		kvfree_rcu(block, rcu);
	else
		kvfree(block);
	if (runtime)
		lunatik_put(runtime);
}
EXPORT_SYMBOL_GPL(lunatik_free);

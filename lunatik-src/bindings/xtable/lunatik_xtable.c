// SPDX-License-Identifier: GPL-2.0-only
/*
 * xtable - functions of scripts as matches and targets of iptables
 *
 *	iptables -A INPUT -m lua --function blocked -j DROP
 *	iptables -A INPUT -j LUA --function verdict
 *
 * Rules and scripts come and go apart from each other: replacing one rule of a
 * table makes all others anew, so a rule must not depend on a running script.
 * Between them stands a slot, a name in a namespace of its own for matches and
 * targets of each network namespace: the script is run there as well. A rule
 * holds its slot; a script's function fills it, and leaves it when its runtime
 * stops. A match in an empty slot does not match, a target in one goes on with
 * the next rule.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bottom_half.h>
#include <linux/ip.h>
#include <linux/jump_label.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/netfilter.h>
#include <linux/netfilter/x_tables.h>
#include <linux/nsproxy.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>

#include "lunatik_skb.h"
#include "xt_lua.h"

enum xt_lua_kind {
	XT_LUA_MATCH,
	XT_LUA_TARGET,
};

struct xt_lua_function;

/* Kept by each rule that names it and by the function that fills it. */
struct xt_lua_slot {
	struct kref kref;		/* put under slots_mutex */
	struct list_head node;		/* in slots, guarded by slots_mutex */
	enum xt_lua_kind kind;
	u64 net;			/* cookie, which no other namespace ever gets */
	char name[XT_LUA_NAME_MAX];
	struct xt_lua_function __rcu *function;	/* set under slots_mutex */
	struct rcu_head rcu;
};

static LIST_HEAD(slots);
static DEFINE_MUTEX(slots_mutex);

struct xt_lua_function {
	struct lunatik_hook hook;
	struct lunatik_packet packet;	/* guarded by the runtime's lock */
	struct xt_lua_slot *slot;	/* held while it fills it, slots_mutex */
	int callback;			/* reference, fixed; so are the others */
	int checkentry;
	int destroy;
	u8 family;			/* NFPROTO_UNSPEC: any */
	u8 proto;			/* 0: any */
	unsigned int hooks;		/* mask */
};

static void slot_free(struct kref *kref)
{
	struct xt_lua_slot *slot = container_of(kref, struct xt_lua_slot, kref);

	lockdep_assert_held(&slots_mutex);
	list_del(&slot->node);
	kfree_rcu(slot, rcu);
}

static void slot_put(struct xt_lua_slot *slot)
{
	mutex_lock(&slots_mutex);
	kref_put(&slot->kref, slot_free);
	mutex_unlock(&slots_mutex);
}

/* The slot of a name, with a reference; NULL when out of memory. */
static struct xt_lua_slot *slot_get(enum xt_lua_kind kind, const struct net *net,
				    const char *name)
{
	struct xt_lua_slot *slot;

	lockdep_assert_held(&slots_mutex);
	list_for_each_entry(slot, &slots, node) {
		if (slot->kind == kind && slot->net == net->net_cookie &&
		    !strcmp(slot->name, name)) {
			kref_get(&slot->kref);
			return slot;
		}
	}
	slot = lunatik_fault() ? NULL : kzalloc(sizeof(*slot), GFP_KERNEL);
	if (!slot)
		return NULL;
	kref_init(&slot->kref);
	slot->kind = kind;
	slot->net = net->net_cookie;
	strscpy(slot->name, name, sizeof(slot->name));
	list_add(&slot->node, &slots);
	return slot;
}

/* ---- packets ------------------------------------------------------------- */

struct xt_lua_call {
	struct xt_lua_function *function;
	const struct xt_action_param *par;
	const struct xt_lua_info *info;
	struct lunatik_lending lending;
	bool hotdrop;
};

static void call_pushpar(lua_State *L, const struct xt_lua_call *call)
{
	const struct xt_action_param *par = call->par;

	lua_createtable(L, 0, 4);
	lua_pushboolean(L, false);
	lua_setfield(L, -2, "hotdrop");
	lua_pushinteger(L, par->thoff);
	lua_setfield(L, -2, "thoff");
	lua_pushinteger(L, par->fragoff);
	lua_setfield(L, -2, "fragoff");
	lua_pushinteger(L, xt_hooknum(par));
	lua_setfield(L, -2, "hooknum");
}

/* Leaves par and the result on the stack. */
static void call_function(lua_State *L, struct xt_lua_call *call)
{
	call_pushpar(L, call);
	lunatik_pushref(L, call->function->callback);
	lunatik_packet_lend(L, &call->function->packet, &call->lending);
	lua_pushvalue(L, -3);
	/* By its length: else Lua remembers it by where the rule happens to lie. */
	lua_pushlstring(L, call->info->argument, strlen(call->info->argument));
	lua_call(L, 3, 1);
}

static int match_call(lua_State *L, void *arg)
{
	struct xt_lua_call *call = arg;
	int matched;

	call_function(L, call);
	matched = lua_toboolean(L, -1);
	lua_getfield(L, -2, "hotdrop");
	call->hotdrop = lua_toboolean(L, -1);
	return matched;
}

/* What a rule may say; it goes on with the next one when the script says nil. */
static int target_call(lua_State *L, void *arg)
{
	lua_Integer verdict;

	call_function(L, arg);
	if (lua_isnil(L, -1))
		return INT_MAX;
	verdict = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : -1;
	if (verdict != NF_DROP && verdict != NF_ACCEPT)
		luaL_error(L, "target returned no verdict (ACCEPT, DROP or nil)");
	return verdict;
}

static void call_done(void *arg)
{
	struct xt_lua_call *call = arg;

	lunatik_packet_return(&call->function->packet);
}

/* Does the function want packets of this kind? */
static bool function_wants(const struct xt_lua_function *function, const struct sk_buff *skb,
			   const struct xt_action_param *par)
{
	unsigned int offset = 0;
	u8 family = xt_family(par);

	if (function->family != NFPROTO_UNSPEC && function->family != family)
		return false;
	if (!(function->hooks & BIT(xt_hooknum(par))))
		return false;
	if (!function->proto)
		return true;
	if (family == NFPROTO_IPV4)
		return ip_hdr(skb)->protocol == function->proto;
	if (family == NFPROTO_IPV6)
		return ipv6_find_hdr(skb, &offset, -1, NULL, NULL) == function->proto;
	return false;
}

/*
 * What a rule sends may come to the table that the rule is in, while that is
 * still being gone through: a match, and a target without a verdict, go on
 * with it. A table remembers its ways back twice for each CPU, the second time
 * for what is sent meanwhile, if told so: by a key, as long as there are such
 * rules, and by the mark that TEE sets as well. There is no third time.
 *
 * Where bottom halves are on, no CPU is seen with the mark.
 */
static bool rule_duplicates(void)
{
#ifdef LUNATIK_TASK_DUPLICATES
	return current->in_nf_duplicate;
#else
	return raw_cpu_read(nf_skb_duplicated);
#endif
}

static void rule_duplicate(bool duplicate)
{
#ifdef LUNATIK_TASK_DUPLICATES
	current->in_nf_duplicate = duplicate;
#else
	__this_cpu_write(nf_skb_duplicated, duplicate);
#endif
}

static void rule_send(struct lunatik_lending *lending, bool dropped)
{
	/* So it is where sending is muted. */
	if (likely(lunatik_lending_idle(lending)))
		return;
	local_bh_disable();
	rule_duplicate(true);
	lunatik_lending_send(lending, dropped);
	rule_duplicate(false);
	local_bh_enable();
}

/*
 * The function of a rule's slot, in a call; a negative errno if there is none,
 * or for whatever reason that it does not answer.
 */
static int rule_run(struct sk_buff *skb, const struct xt_action_param *par,
		    const struct xt_lua_info *info, bool readonly, lunatik_handler handler,
		    struct xt_lua_call *call)
{
	struct xt_lua_slot *slot = info->slot;
	struct xt_lua_function *function;
	int ret = -ENOENT;

	if (lunatik_packet_sending())
		return -EDEADLK;
	/* Hooks run under RCU: the function is freed after a grace period. */
	function = rcu_dereference(slot->function);
	if (!function || !function_wants(function, skb, par))
		return ret;
	call->function = function;
	call->par = par;
	call->info = info;
	lunatik_lending_init(&call->lending, skb, par->state);
	call->lending.readonly = readonly;
	call->lending.mute = rule_duplicates();
	ret = lunatik_run_finally(&function->hook, handler, call_done, call);
	rule_send(&call->lending, call->hotdrop || (!readonly && ret == NF_DROP));
	return ret;
}

/*
 * iptables holds pointers into the packet across matches: so it is read only.
 * Marks are not in its bytes, and matches of the kernel's own set them as well.
 */
static bool match_packet(const struct sk_buff *skb, struct xt_action_param *par)
{
	const struct xt_lua_info *info = par->matchinfo;
	struct xt_lua_call call = {};
	int ret = rule_run((struct sk_buff *)skb, par, info, true, match_call, &call);

	if (ret < 0)
		return false;
	if (call.hotdrop)
		par->hotdrop = true;
	return ret ^ !!(info->flags & XT_LUA_INVERT);
}

static unsigned int target_packet(struct sk_buff *skb, const struct xt_action_param *par)
{
	struct xt_lua_call call = {};
	int ret = rule_run(skb, par, par->targinfo, false, target_call, &call);

	return ret < 0 || ret == INT_MAX ? XT_CONTINUE : ret;
}

/* ---- rules --------------------------------------------------------------- */

struct rule_check {
	int ref;
	const char *argument;
};

static int check_call(lua_State *L, void *arg)
{
	struct rule_check *check = arg;

	if (check->ref == LUA_NOREF)
		return true;
	lunatik_pushref(L, check->ref);
	lua_pushstring(L, check->argument);
	lua_call(L, 1, 1);
	/* A function without a result has no objection. */
	return lua_isnil(L, -1) || lua_toboolean(L, -1);
}

/* Ask the function that fills a slot, if one does. Process context. */
static int function_check(struct xt_lua_slot *slot, const char *argument, bool made)
{
	struct rule_check check = { .argument = argument };
	struct xt_lua_function *function;
	int ret;

	mutex_lock(&slots_mutex);
	function = rcu_dereference_protected(slot->function, lockdep_is_held(&slots_mutex));
	if (function)
		lunatik_hook_get(&function->hook);
	mutex_unlock(&slots_mutex);
	if (!function)
		return true;
	check.ref = made ? function->checkentry : function->destroy;
	ret = check.ref == LUA_NOREF ? true :
	      lunatik_run(function->hook.runtime, check_call, &check);
	lunatik_hook_put(&function->hook);
	return ret;
}

/* Who can't be asked just now has no objection, as who is not there has none. */
static bool unasked(int err)
{
	return err == -ESHUTDOWN || err == -EAGAIN || err == -EBUSY || err == -EINTR ||
	       err == -EDEADLK || err == -EREMOTE;
}

static int rule_make(enum xt_lua_kind kind, const struct net *net, struct xt_lua_info *info)
{
	struct xt_lua_slot *slot;
	int ret;

	if (!*info->function ||
	    strnlen(info->function, sizeof(info->function)) == sizeof(info->function) ||
	    strnlen(info->argument, sizeof(info->argument)) == sizeof(info->argument) ||
	    info->flags & ~(kind == XT_LUA_MATCH ? XT_LUA_INVERT : 0))
		return -EINVAL;

	mutex_lock(&slots_mutex);
	slot = slot_get(kind, net, info->function);
	mutex_unlock(&slots_mutex);
	if (!slot)
		return -ENOMEM;
	ret = function_check(slot, info->argument, true);
	if (ret <= 0 && !unasked(ret)) {
		slot_put(slot);
		return ret < 0 ? ret : -EINVAL;
	}
	info->slot = slot;
	static_key_slow_inc(&xt_tee_enabled);
	return 0;
}

static void rule_end(const struct xt_lua_info *info)
{
	static_key_slow_dec(&xt_tee_enabled);
	function_check(info->slot, info->argument, false);
	slot_put(info->slot);
}

static int match_check(const struct xt_mtchk_param *par)
{
	return rule_make(XT_LUA_MATCH, par->net, par->matchinfo);
}

static void match_destroy(const struct xt_mtdtor_param *par)
{
	rule_end(par->matchinfo);
}

static int target_check(const struct xt_tgchk_param *par)
{
	return rule_make(XT_LUA_TARGET, par->net, par->targinfo);
}

static void target_destroy(const struct xt_tgdtor_param *par)
{
	rule_end(par->targinfo);
}

#define XT_LUA_MATCH_OF(pf)				\
{							\
	.name		= "lua",			\
	.family		= pf,				\
	.match		= match_packet,			\
	.checkentry	= match_check,			\
	.destroy	= match_destroy,		\
	.matchsize	= sizeof(struct xt_lua_info),	\
	.usersize	= offsetof(struct xt_lua_info, slot),	\
	.me		= THIS_MODULE,			\
}

#define XT_LUA_TARGET_OF(pf)				\
{							\
	.name		= "LUA",			\
	.family		= pf,				\
	.target		= target_packet,		\
	.checkentry	= target_check,			\
	.destroy	= target_destroy,		\
	.targetsize	= sizeof(struct xt_lua_info),	\
	.usersize	= offsetof(struct xt_lua_info, slot),	\
	.me		= THIS_MODULE,			\
}

static struct xt_match xt_lua_matches[] __read_mostly = {
	XT_LUA_MATCH_OF(NFPROTO_IPV4),
	XT_LUA_MATCH_OF(NFPROTO_IPV6),
};

static struct xt_target xt_lua_targets[] __read_mostly = {
	XT_LUA_TARGET_OF(NFPROTO_IPV4),
	XT_LUA_TARGET_OF(NFPROTO_IPV6),
};

/* ---- scripts ------------------------------------------------------------- */

static void function_stop(struct lunatik_hook *base)
{
	struct xt_lua_function *function = container_of(base, struct xt_lua_function, hook);
	struct xt_lua_slot *slot = function->slot;

	mutex_lock(&slots_mutex);
	RCU_INIT_POINTER(slot->function, NULL);
	kref_put(&slot->kref, slot_free);
	mutex_unlock(&slots_mutex);
	synchronize_rcu();
}

static void function_free(struct lunatik_hook *base)
{
	lunatik_free(container_of(base, struct xt_lua_function, hook));
}

static const struct lunatik_hook_ops function_ops = {
	.name = "xtable",
	.stop = function_stop,
	.free = function_free,
	.owner = THIS_MODULE,
};

static int function_fill(struct xt_lua_function *function, enum xt_lua_kind kind,
			 const char *name)
{
	struct xt_lua_slot *slot;
	int ret = 0;

	mutex_lock(&slots_mutex);
	slot = slot_get(kind, current->nsproxy->net_ns, name);
	if (!slot) {
		ret = -ENOMEM;
	} else if (rcu_access_pointer(slot->function)) {
		kref_put(&slot->kref, slot_free);
		ret = -EEXIST;
	} else {
		function->slot = slot;
		rcu_assign_pointer(slot->function, function);
	}
	mutex_unlock(&slots_mutex);
	return ret;
}

struct function_offer {
	struct xt_lua_function checked;	/* what is taken so far */
	enum xt_lua_kind kind;
	const char *field;
	const char *name;
};

static void offer_take(lua_State *L, void *arg)
{
	struct function_offer *offer = arg;
	struct xt_lua_function *checked = &offer->checked;
	struct xt_lua_function *function;
	int ret;

	checked->callback = lunatik_fieldref(L, 1, offer->field, false);
	checked->checkentry = lunatik_fieldref(L, 1, "checkentry", true);
	checked->destroy = lunatik_fieldref(L, 1, "destroy", true);
	lunatik_packet_new(L, &checked->packet);

	/* Nothing may raise an error from here until the core owns it. */
	function = lunatik_alloc(L, sizeof(*function));
	*function = *checked;
	lunatik_hook_add(L, &function->hook, &function_ops);
	ret = function_fill(function, offer->kind, offer->name);
	if (ret) {
		lunatik_hook_abort(&function->hook);
		lunatik_throw(L, ret);
	}
}

static void offer_drop(lua_State *L, void *arg)
{
	struct function_offer *offer = arg;

	lunatik_unref(L, offer->checked.callback);
	lunatik_unref(L, offer->checked.checkentry);
	lunatik_unref(L, offer->checked.destroy);
	lunatik_packet_drop(L, &offer->checked.packet);
}

static int function_offer(lua_State *L, enum xt_lua_kind kind, const char *field)
{
	struct function_offer offer = {
		.checked.callback = LUA_NOREF,
		.checked.checkentry = LUA_NOREF,
		.checked.destroy = LUA_NOREF,
		.kind = kind,
		.field = field,
	};
	size_t length;

	lunatik_checksleep(L, "xtable");
	luaL_checktype(L, 1, LUA_TTABLE);
	offer.name = lunatik_fieldstring(L, 1, "name", &length);
	if (!length || length >= XT_LUA_NAME_MAX || strlen(offer.name) != length)
		return luaL_error(L, "field 'name' wants 1 to %d characters", XT_LUA_NAME_MAX - 1);
	lunatik_optfieldrange(L, 1, "revision", 0, 0, U8_MAX);
	offer.checked.family = lunatik_optfieldrange(L, 1, "family", NFPROTO_UNSPEC, 0,
						     NFPROTO_NUMPROTO - 1);
	offer.checked.proto = lunatik_optfieldrange(L, 1, "proto", 0, 0, U8_MAX);
	offer.checked.hooks = lunatik_optfieldrange(L, 1, "hooks", 0, 0, U32_MAX);
	if (!offer.checked.hooks)
		offer.checked.hooks = U32_MAX;
	lunatik_attempt(L, offer_take, offer_drop, &offer);
	return 0;
}

/* match{name =, match = function(skb, par, argument) -> boolean, ...} */
static int xtable_match(lua_State *L)
{
	return function_offer(L, XT_LUA_MATCH, "match");
}

/* target{name =, target = function(skb, par, argument) -> verdict, ...} */
static int xtable_target(lua_State *L)
{
	return function_offer(L, XT_LUA_TARGET, "target");
}

static const luaL_Reg xtable_functions[] = {
	{ "match", xtable_match },
	{ "target", xtable_target },
	{ NULL, NULL }
};

static const struct lunatik_library xtable_library = {
	.name = "xtable",
	.contexts = LUNATIK_SOFTIRQ,
	.functions = xtable_functions,
};

LUNATIK_LIBRARY(xtable, xtable_library);

static int __init lunatik_xtable_init(void)
{
	int ret = xt_register_matches(xt_lua_matches, ARRAY_SIZE(xt_lua_matches));

	if (ret)
		return ret;
	ret = xt_register_targets(xt_lua_targets, ARRAY_SIZE(xt_lua_targets));
	if (ret)
		xt_unregister_matches(xt_lua_matches, ARRAY_SIZE(xt_lua_matches));
	return ret;
}

static void __exit lunatik_xtable_exit(void)
{
	xt_unregister_targets(xt_lua_targets, ARRAY_SIZE(xt_lua_targets));
	xt_unregister_matches(xt_lua_matches, ARRAY_SIZE(xt_lua_matches));
}

module_init(lunatik_xtable_init);
module_exit(lunatik_xtable_exit);

/* What iptables has the kernel load for a rule. */
MODULE_ALIAS("ipt_lua");
MODULE_ALIAS("ip6t_lua");
MODULE_ALIAS("ipt_LUA");
MODULE_ALIAS("ip6t_LUA");
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: iptables matches and targets");

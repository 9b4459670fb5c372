// SPDX-License-Identifier: GPL-2.0-only
/*
 * netfilter - hooks in the packet path, called back for each packet
 *
 * A hook is registered in the network namespace of the task that runs the
 * script, and leaves it when the runtime stops, when the namespace goes, or
 * when the device that it is bound to goes, whichever is first.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_arp.h>
#include <linux/netfilter_bridge.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6.h>
#include <linux/nsproxy.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <net/net_namespace.h>
#include <net/netfilter/nf_conntrack.h>

#include "lunatik_skb.h"

/* How long register() waits for RTNL, which its own caller might hold. */
#define RTNL_PATIENCE_MS	1000

struct nf_lua_hook {
	struct lunatik_hook hook;
	struct nf_hook_ops ops;
	struct lunatik_packet packet;	/* guarded by the runtime's lock */
	struct net *net;		/* NULL when out; guarded by hooks_mutex */
	struct list_head node;		/* in hooks, guarded by hooks_mutex */
	int callback;			/* reference, fixed */
	bool marked;			/* only packets with this mark; fixed */
	bool tracked;			/* wants connections tracked; fixed */
	u32 mark;
	unsigned int fallback;		/* NF_ACCEPT or NF_DROP; fixed */
};

static LIST_HEAD(hooks);
/* Guards hooks and which of them are in. Taken under RTNL; never takes it. */
static DEFINE_MUTEX(hooks_mutex);

struct verdict_request {
	struct nf_lua_hook *hook;
	struct lunatik_lending lending;
	unsigned int verdict;
};

/* What nf_hook_slow() does not know leaks the packet, so it never gets it. */
static bool verdict_known(lua_Integer verdict)
{
	switch (verdict & NF_VERDICT_MASK) {
	case NF_DROP:
	case NF_ACCEPT:
		return !(verdict & ~(lua_Integer)NF_VERDICT_MASK);
	case NF_QUEUE:
		return !(verdict & ~(lua_Integer)(NF_VERDICT_QMASK | NF_VERDICT_MASK));
	default:
		return false;
	}
}

/* Only these find back from a queue; nf_reinject() warns about others and drops them. */
static bool queue_possible(const struct nf_hook_state *state)
{
	return state->pf == NFPROTO_IPV4 || state->pf == NFPROTO_IPV6 ||
	       state->pf == NFPROTO_BRIDGE;
}

static int verdict_ask(lua_State *L, void *arg)
{
	struct verdict_request *request = arg;
	struct nf_lua_hook *hook = request->hook;
	lua_Integer verdict;

	lunatik_pushref(L, hook->callback);
	lunatik_packet_lend(L, &hook->packet, &request->lending);
	lua_call(L, 1, 2);

	if (!lua_isinteger(L, -2) || !verdict_known(lua_tointeger(L, -2)))
		luaL_error(L, "netfilter hook returned no verdict (ACCEPT, DROP or QUEUE)");
	verdict = lua_tointeger(L, -2);
	if ((verdict & NF_VERDICT_MASK) == NF_QUEUE && !queue_possible(request->lending.state))
		luaL_error(L, "netfilter hook returned QUEUE where there are no queues");
	if (!lua_isnil(L, -1))
		request->lending.skb->mark = lunatik_checkrange(L, -1, 0, U32_MAX);
	request->verdict = verdict;
	return 0;
}

static void verdict_done(void *arg)
{
	struct verdict_request *request = arg;

	lunatik_packet_return(&request->hook->packet);
}

static unsigned int nf_lua_hook(void *priv, struct sk_buff *skb,
				const struct nf_hook_state *state)
{
	struct nf_lua_hook *hook = priv;
	struct verdict_request request = { .hook = hook };
	unsigned int verdict;
	int ret;

	if ((hook->marked && skb->mark != hook->mark) || lunatik_packet_sending())
		return NF_ACCEPT;
	lunatik_lending_init(&request.lending, skb, state);
	ret = lunatik_run_finally(&hook->hook, verdict_ask, verdict_done, &request);
	if (ret >= 0)
		verdict = request.verdict;
	else if (ret == -EREMOTE || ret == -EDEADLK)
		verdict = NF_ACCEPT;	/* another CPU's, or the script's own packet */
	else
		verdict = hook->fallback;
	lunatik_lending_send(&request.lending, verdict == NF_DROP);
	return verdict;
}

static void hook_leave(struct nf_lua_hook *hook)
{
	lockdep_assert_held(&hooks_mutex);

	if (!hook->net)
		return;
	nf_unregister_net_hook(hook->net, &hook->ops);
	if (hook->tracked)
		nf_ct_netns_put(hook->net, NFPROTO_INET);
	list_del(&hook->node);
	hook->net = NULL;
}

static void hook_stop(struct lunatik_hook *base)
{
	struct nf_lua_hook *hook = container_of(base, struct nf_lua_hook, hook);

	mutex_lock(&hooks_mutex);
	hook_leave(hook);
	mutex_unlock(&hooks_mutex);
	/* Unregistering does not wait for packets that are in the hook. */
	synchronize_net();
}

static void hook_free(struct lunatik_hook *base)
{
	lunatik_free(container_of(base, struct nf_lua_hook, hook));
}

static const struct lunatik_hook_ops hook_ops = {
	.name = "netfilter",
	.stop = hook_stop,
	.free = hook_free,
	.owner = THIS_MODULE,
};

static int hook_enter(struct nf_lua_hook *hook, struct net *net)
{
	int ret;

	mutex_lock(&hooks_mutex);
	if (hook->tracked) {
		ret = nf_ct_netns_get(net, NFPROTO_INET);
		if (ret)
			goto out;
	}
	ret = nf_register_net_hook(net, &hook->ops);
	if (!ret) {
		hook->net = net;
		list_add(&hook->node, &hooks);
	} else if (hook->tracked) {
		nf_ct_netns_put(net, NFPROTO_INET);
	}
out:
	mutex_unlock(&hooks_mutex);
	return ret;
}

/*
 * A script that was started from a callback under RTNL must not wait for it,
 * and nothing tells who holds it: so wait for a bounded time.
 */
static int rtnl_lock_patiently(void)
{
	unsigned long end = jiffies + msecs_to_jiffies(RTNL_PATIENCE_MS);

	while (!rtnl_trylock()) {
		if (time_after(jiffies, end))
			return -EBUSY;
		if (msleep_interruptible(1))
			return -EINTR;
	}
	return 0;
}

/* Under RTNL, so that the device neither goes nor moves between the two. */
static int hook_enter_device(struct nf_lua_hook *hook, struct net *net, const char *name)
{
	int ret = rtnl_lock_patiently();

	if (ret)
		return ret;
	hook->ops.dev = __dev_get_by_name(net, name);
	ret = hook->ops.dev ? hook_enter(hook, net) : -ENODEV;
	rtnl_unlock();
	return ret;
}

static bool hook_wants_device(const struct nf_hook_ops *ops)
{
	return ops->pf == NFPROTO_NETDEV ||
	       (ops->pf == NFPROTO_INET && ops->hooknum == NF_INET_INGRESS);
}

static unsigned int hook_fallback(lua_State *L, int table)
{
	static const char *const names[] = { "open", "closed", NULL };
	static const unsigned int verdicts[] = { NF_ACCEPT, NF_DROP };

	return verdicts[lunatik_fieldoption(L, table, "fallback", 0, names)];
}

/* The last position of a family: the kernel WARNs about any other. */
static int hook_last(lua_State *L, u8 pf)
{
	switch (pf) {
	case NFPROTO_INET:
		return NF_INET_INGRESS;
	case NFPROTO_IPV4:
	case NFPROTO_IPV6:
		return NF_INET_POST_ROUTING;
	case NFPROTO_ARP:
		return NF_ARP_FORWARD;
	case NFPROTO_BRIDGE:
		return NF_BR_POST_ROUTING;
	case NFPROTO_NETDEV:
		return NF_NETDEV_EGRESS;
	default:
		return luaL_error(L, "bad field 'pf' (no family with hooks)");
	}
}

static void hook_read(lua_State *L, int table, struct nf_lua_hook *hook)
{
	hook->ops.pf = lunatik_fieldrange(L, table, "pf", 0, NFPROTO_NUMPROTO - 1);
	hook->ops.hooknum = lunatik_fieldrange(L, table, "hooknum", 0,
					       hook_last(L, hook->ops.pf));
	hook->ops.priority = lunatik_optfieldrange(L, table, "priority", 0, INT_MIN, INT_MAX);
	hook->ops.hook = nf_lua_hook;
	hook->fallback = hook_fallback(L, table);
	lua_getfield(L, table, "conntrack");
	hook->tracked = lua_toboolean(L, -1);
	lua_pop(L, 1);
	if (lua_getfield(L, table, "mark") != LUA_TNIL) {
		hook->marked = true;
		hook->mark = lunatik_fieldrange(L, table, "mark", 0, U32_MAX);
	}
	lua_pop(L, 1);
}

struct registration {
	struct nf_lua_hook checked;	/* what is taken so far */
	const char *device;		/* on the stack; NULL: none */
};

static void registration_take(lua_State *L, void *arg)
{
	struct registration *registration = arg;
	struct nf_lua_hook *checked = &registration->checked;
	struct net *net = current->nsproxy->net_ns;
	struct nf_lua_hook *hook;
	int ret;

	lunatik_packet_new(L, &checked->packet);
	checked->callback = lunatik_fieldref(L, 1, "hook", false);

	/* Nothing may raise an error from here until the core owns the hook. */
	hook = lunatik_alloc(L, sizeof(*hook));
	*hook = *checked;
	hook->ops.priv = hook;
	INIT_LIST_HEAD(&hook->node);
	lunatik_hook_add(L, &hook->hook, &hook_ops);

	if (registration->device)
		ret = hook_enter_device(hook, net, registration->device);
	else
		ret = hook_enter(hook, net);
	if (ret) {
		/* An inet hook may have been in for IPv4, but not for IPv6. */
		synchronize_net();
		lunatik_hook_abort(&hook->hook);
		lunatik_throw(L, ret);
	}
}

static void registration_drop(lua_State *L, void *arg)
{
	struct registration *registration = arg;

	lunatik_packet_drop(L, &registration->checked.packet);
	lunatik_unref(L, registration->checked.callback);
}

/*
 * netfilter.register{hook =, pf =, hooknum =, priority =, mark =, dev =, fallback =,
 * conntrack =}
 */
static int netfilter_register(lua_State *L)
{
	struct registration registration = { .checked.callback = LUA_NOREF };
	struct nf_lua_hook *checked = &registration.checked;

	lunatik_checksleep(L, "netfilter.register");
	luaL_checktype(L, 1, LUA_TTABLE);
	hook_read(L, 1, checked);
	registration.device = lunatik_optfieldstring(L, 1, "dev", NULL);
	if (hook_wants_device(&checked->ops) != !!registration.device)
		luaL_error(L, registration.device ?
			   "field 'dev' is for netdev hooks and inet ingress only" :
			   "field 'dev' (an interface's name) is missing");
	/* Looking for it wants RTNL, and that may be what they all wait for. */
	if (registration.device)
		lunatik_checkwait(L, "netfilter.register");
	lunatik_attempt(L, registration_take, registration_drop, &registration);
	return 0;
}

static const luaL_Reg netfilter_functions[] = {
	{ "register", netfilter_register },
	{ NULL, NULL }
};

static const struct lunatik_library netfilter_library = {
	.name = "netfilter",
	.contexts = LUNATIK_SOFTIRQ,
	.functions = netfilter_functions,
};

LUNATIK_LIBRARY(netfilter, netfilter_library);

/* ---- linux.nf ----------------------------------------------------------- */

#define NF_CONSTANT(prefix, name)	{ #name, prefix##name }

static const struct lunatik_constant nf_action[] = {
	NF_CONSTANT(NF_, DROP), NF_CONSTANT(NF_, ACCEPT), NF_CONSTANT(NF_, STOLEN),
	NF_CONSTANT(NF_, QUEUE), NF_CONSTANT(NF_, REPEAT), NF_CONSTANT(NF_, STOP),
	{ NULL }
};

static const struct lunatik_constant nf_proto[] = {
	NF_CONSTANT(NFPROTO_, UNSPEC), NF_CONSTANT(NFPROTO_, INET), NF_CONSTANT(NFPROTO_, IPV4),
	NF_CONSTANT(NFPROTO_, ARP), NF_CONSTANT(NFPROTO_, NETDEV), NF_CONSTANT(NFPROTO_, BRIDGE),
	NF_CONSTANT(NFPROTO_, IPV6),
	{ NULL }
};

static const struct lunatik_constant nf_inet[] = {
	NF_CONSTANT(NF_INET_, PRE_ROUTING), NF_CONSTANT(NF_INET_, LOCAL_IN),
	NF_CONSTANT(NF_INET_, FORWARD), NF_CONSTANT(NF_INET_, LOCAL_OUT),
	NF_CONSTANT(NF_INET_, POST_ROUTING), NF_CONSTANT(NF_INET_, INGRESS),
	{ NULL }
};

static const struct lunatik_constant nf_netdev[] = {
	NF_CONSTANT(NF_NETDEV_, INGRESS), NF_CONSTANT(NF_NETDEV_, EGRESS),
	{ NULL }
};

static const struct lunatik_constant nf_arp[] = {
	NF_CONSTANT(NF_ARP_, IN), NF_CONSTANT(NF_ARP_, OUT), NF_CONSTANT(NF_ARP_, FORWARD),
	{ NULL }
};

static const struct lunatik_constant nf_br[] = {
	NF_CONSTANT(NF_BR_, PRE_ROUTING), NF_CONSTANT(NF_BR_, LOCAL_IN),
	NF_CONSTANT(NF_BR_, FORWARD), NF_CONSTANT(NF_BR_, LOCAL_OUT),
	NF_CONSTANT(NF_BR_, POST_ROUTING), NF_CONSTANT(NF_BR_, BROUTING),
	{ NULL }
};

static const struct lunatik_constant nf_br_pri[] = {
	NF_CONSTANT(NF_BR_PRI_, FIRST), NF_CONSTANT(NF_BR_PRI_, NAT_DST_BRIDGED),
	NF_CONSTANT(NF_BR_PRI_, FILTER_BRIDGED), NF_CONSTANT(NF_BR_PRI_, BRNF),
	NF_CONSTANT(NF_BR_PRI_, NAT_DST_OTHER), NF_CONSTANT(NF_BR_PRI_, FILTER_OTHER),
	NF_CONSTANT(NF_BR_PRI_, NAT_SRC), NF_CONSTANT(NF_BR_PRI_, LAST),
	{ NULL }
};

static const struct lunatik_constant nf_ip_pri[] = {
	NF_CONSTANT(NF_IP_PRI_, FIRST), NF_CONSTANT(NF_IP_PRI_, RAW_BEFORE_DEFRAG),
	NF_CONSTANT(NF_IP_PRI_, CONNTRACK_DEFRAG), NF_CONSTANT(NF_IP_PRI_, RAW),
	NF_CONSTANT(NF_IP_PRI_, SELINUX_FIRST), NF_CONSTANT(NF_IP_PRI_, CONNTRACK),
	NF_CONSTANT(NF_IP_PRI_, MANGLE), NF_CONSTANT(NF_IP_PRI_, NAT_DST),
	NF_CONSTANT(NF_IP_PRI_, FILTER), NF_CONSTANT(NF_IP_PRI_, SECURITY),
	NF_CONSTANT(NF_IP_PRI_, NAT_SRC), NF_CONSTANT(NF_IP_PRI_, SELINUX_LAST),
	NF_CONSTANT(NF_IP_PRI_, CONNTRACK_HELPER), NF_CONSTANT(NF_IP_PRI_, CONNTRACK_CONFIRM),
	NF_CONSTANT(NF_IP_PRI_, LAST),
	{ NULL }
};

static const struct lunatik_namespace nf_namespaces[] = {
	{ "action", nf_action },
	{ "proto", nf_proto },
	{ "inet", nf_inet },
	{ "netdev", nf_netdev },
	{ "arp", nf_arp },
	{ "br", nf_br },
	{ "br.pri", nf_br_pri },
	{ "ip.pri", nf_ip_pri },
	{ NULL, NULL }
};

/* linux.nf.ct comes from the module of the constants. */
static void nf_open(lua_State *L)
{
	lua_getglobal(L, "require");
	lua_pushliteral(L, "linux.nf.ct");
	lua_call(L, 1, 1);
	lua_setfield(L, -2, "ct");
}

static const struct lunatik_library linux_nf_library = {
	.name = "linux.nf",
	.contexts = LUNATIK_ANY,
	.namespaces = nf_namespaces,
	.open = nf_open,
};

LUNATIK_LIBRARY(linux_nf, linux_nf_library);

/* ---- namespaces and devices that go ------------------------------------- */

static void __net_exit netfilter_net_exit(struct net *net)
{
	struct nf_lua_hook *hook, *next;

	mutex_lock(&hooks_mutex);
	list_for_each_entry_safe(hook, next, &hooks, node)
		if (hook->net == net)
			hook_leave(hook);
	mutex_unlock(&hooks_mutex);
}

static struct pernet_operations netfilter_net_ops = {
	.exit = netfilter_net_exit,
};

/* Also sent, with the old namespace, when a device moves to another one. */
static int netfilter_netdev_event(struct notifier_block *block, unsigned long event, void *info)
{
	struct net_device *dev = netdev_notifier_info_to_dev(info);
	struct nf_lua_hook *hook, *next;

	if (event != NETDEV_UNREGISTER)
		return NOTIFY_DONE;
	mutex_lock(&hooks_mutex);
	list_for_each_entry_safe(hook, next, &hooks, node)
		if (hook->ops.dev == dev)
			hook_leave(hook);
	mutex_unlock(&hooks_mutex);
	return NOTIFY_DONE;
}

static struct notifier_block netfilter_netdev_notifier = {
	.notifier_call = netfilter_netdev_event,
};

static int __init lunatik_netfilter_init(void)
{
	int ret = register_pernet_subsys(&netfilter_net_ops);

	if (ret)
		return ret;
	ret = register_netdevice_notifier(&netfilter_netdev_notifier);
	if (ret)
		unregister_pernet_subsys(&netfilter_net_ops);
	return ret;
}

static void __exit lunatik_netfilter_exit(void)
{
	unregister_netdevice_notifier(&netfilter_netdev_notifier);
	unregister_pernet_subsys(&netfilter_net_ops);
}

module_init(lunatik_netfilter_init);
module_exit(lunatik_netfilter_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: netfilter hooks");

# SPDX-License-Identifier: GPL-2.0-only
# A script that looks at every packet and lets it pass, in every position of IP,
# bridges and ARP, and where lo takes packets in, in the first namespace and in
# each that a program makes by `ip netns add` or `unshare -n`; what iptables calls
# scripts by is loaded, too:
#
#	lab kselftest net/netfilter --compare --before "$(cat tests/kselftest/hooks.sh)"
set -e

# A packet that its script had no time for met no hook: all of them together have a
# limit of their own, and each alone may use that.
modprobe lunatik
echo 100 >/sys/module/lunatik/parameters/interrupt_share

cat >/lib/modules/lua/look.lua <<'END'
local netfilter, nf = require("netfilter"), require("linux.nf")
require("xtable")
local ACCEPT <const> = nf.action.ACCEPT
local function look(skb)
	local view = skb:data("net")
	local _ = #view > 0 and view:getuint8(0)
	return ACCEPT
end
local function register(family, places, names)
	for name in names:gmatch("%S+") do
		netfilter.register{hook = look, pf = nf.proto[family], hooknum = places[name]}
	end
end
local ways = "PRE_ROUTING LOCAL_IN FORWARD LOCAL_OUT POST_ROUTING"
register("INET", nf.inet, ways)
register("BRIDGE", nf.br, ways)
register("ARP", nf.arp, "IN OUT FORWARD")
netfilter.register{
	hook = look, pf = nf.proto.NETDEV, hooknum = nf.netdev.INGRESS, dev = "lo",
}
END
lunatik run look softirq

# A name that comes again has a runtime already, whose hooks went with the first.
mkdir -p /usr/local/sbin
cat >/usr/local/sbin/ip <<'END'
#!/bin/sh
/usr/sbin/ip "$@"
status=$?
if [ "$status$1$2" = 0netnsadd ]; then
	[ ! -e "/lib/modules/lua/look_$3.lua" ] || lunatik stop "look_$3" >/dev/null 2>&1
	cp /lib/modules/lua/look.lua "/lib/modules/lua/look_$3.lua"
	/usr/sbin/ip netns exec "$3" lunatik run "look_$3" softirq >/dev/null 2>/run/why ||
		echo "no hooks in $3: $(cat /run/why)" >>/run/without
fi
exit $status
END
chmod +x /usr/local/sbin/ip

# Of other options only what stands before the program by itself is understood.
cat >/usr/local/sbin/unshare <<'END'
#!/bin/sh
options= net=
for word; do
	case $word in
	-n | --net) net=1 ;;
	-*) ;;
	*) break ;;
	esac
	options="$options $word"
done
[ "$net" ] || exec /usr/bin/unshare "$@"
for word in $options; do
	shift
done
exec /usr/bin/unshare $options /usr/local/sbin/with-hooks "$@"
END

# The namespace of whoever runs it gets hooks before the program is begun.
cat >/usr/local/sbin/with-hooks <<'END'
#!/bin/sh
name=look_unshared_$$
cp /lib/modules/lua/look.lua "/lib/modules/lua/$name.lua"
lunatik run "$name" softirq >/dev/null 2>/run/why ||
	echo "no hooks for $*: $(cat /run/why)" >>/run/without
exec "$@"
END
chmod +x /usr/local/sbin/unshare /usr/local/sbin/with-hooks

# A program that met no hook says nothing about them, nor does one whose packets
# passed them unseen because scripts had used up their share.
cat >/run/after <<'END'
#!/bin/sh
if [ -e /run/without ]; then
	cat /run/without
	exit 1
fi
lunatik list | grep '^look[[:space:]].*running' || {
	echo "no hooks: $(lunatik list)"
	exit 1
}
# Of all of them: in a namespace that is gone they are still listed.
lunatik -e - <<'LUA'
local entries, throttled = 0, 0
for _, runtime in ipairs(require("lunatik").status()) do
	if runtime.name:find("^look") then
		entries = entries + runtime.entries
		throttled = throttled + runtime.throttled
	end
end
print(("looked at %d packets, throttled at %d"):format(entries, throttled))
assert(throttled <= (entries + throttled) // 10, "hooks were throttled at more than a tenth")
LUA
END
chmod +x /run/after

# SPDX-License-Identifier: GPL-2.0-only
# A script that looks at every packet, in every position of every namespace that
# a program makes, and lets it pass:
#
#	lab kselftest net/netfilter --compare --before "$(cat tests/kselftest/hooks.sh)"
set -e

cat >/lib/modules/lua/look.lua <<'END'
local netfilter, nf = require("netfilter"), require("linux.nf")
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
END
lunatik run look softirq

mkdir -p /usr/local/sbin
cat >/usr/local/sbin/ip <<'END'
#!/bin/sh
/usr/sbin/ip "$@"
status=$?
if [ "$status$1$2" = 0netnsadd ]; then
	cp /lib/modules/lua/look.lua "/lib/modules/lua/look_$3.lua"
	/usr/sbin/ip netns exec "$3" lunatik run "look_$3" softirq >/dev/null ||
		echo "# no hooks in $3"
fi
exit $status
END
chmod +x /usr/local/sbin/ip

# SPDX-License-Identifier: GPL-2.0-only
"""What all end-to-end tests have in common.

The lab imports tests by file, so their neighbours are on no path.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import LabError

sys.path.extend(str(path) for path in sorted(Path(__file__).parent.iterdir()) if path.is_dir())

#: The processes, caps and switches as they are when the machine is new. Here and
#: below mostly the shell's own words: starting programs is what takes time.
REMEMBER = """
[ -e /run/processes ] || echo /proc/[0-9]* >/run/processes
[ -e /run/parameters ] || [ ! -e /sys/module/lunatik ] || {
	mkdir /run/parameters
	cp /sys/module/lunatik/parameters/* /run/parameters/
}"""

#: Processes, scripts, caps, namespaces, devices, pins, rules and log lines of one
#: test are none of the next's.
TIDY = """
read known </run/processes
for process in /proc/[0-9]*; do
	case " $known /proc/$$ " in
	*" $process "*) ;;
	*) kill -KILL ${process#/proc/} ;;
	esac
done
if [ -e /run/parameters ]; then
	[ -e /sys/module/lunatik ] || lunatik load
	# First: whoever was ended in the midst may have left faults to come.
	for file in /run/parameters/*; do
		read old <$file
		read now </sys/module/lunatik/parameters/${file##*/}
		[ "$old" = "$now" ] || echo "$old" >/sys/module/lunatik/parameters/${file##*/}
	done
	(
		exec 3<>/dev/lunatik
		echo 'require("lunatik.runner").shutdown()' >&3
		read answer <&3
	)
fi
for name in /run/netns/*; do
	[ ! -e $name ] || ip netns delete ${name##*/}
done
for link in /sys/devices/virtual/net/*; do
	[ ${link##*/} = lo ] || [ ! -e $link ] || ip link delete ${link##*/}
done
for pin in /sys/fs/bpf/*; do
	[ ! -e $pin ] || rm -r $pin
done
nft flush ruleset
while read table; do iptables-legacy -t $table -F; done </proc/net/ip_tables_names
while read table; do ip6tables-legacy -t $table -F; done </proc/net/ip6_tables_names
dmesg -C
"""


@pytest.fixture(autouse=True)
def tidied(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where tests share a machine, each leaves it as a new one, but for what sanitizers know."""
    machine = request.getfixturevalue("machine") if "machine" in request.fixturenames else None
    if machine is None or machine.name != "shared":
        yield
        return
    machine.execute(REMEMBER)
    yield
    # Whether it still lives is asked by the lab.
    with contextlib.suppress(LabError):
        machine.execute(f"{{ {TIDY} }} 2>/dev/null")

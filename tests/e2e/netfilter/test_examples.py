# SPDX-License-Identifier: GPL-2.0-only
"""Every example does what its page says, to real clients and servers."""

from __future__ import annotations

import ipaddress

import pytest
from frames import bring, replay
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, PadN
from scapy.packet import Packet, Raw
from wiring import LAID, REFUSALS, ROUTED, flow, packed, refusals, tallied, tally, wire

from lab.vm.machine import Machine

pytestmark = [pytest.mark.limit(120), pytest.mark.machine(prepare=LAID)]

RESOLVER = (
    "ip netns exec b dnsmasq --port=53 --no-resolv --no-hosts --pid-file=/tmp/dns.pid "
    "--address=/example/10.9.9.9 --address=/example/fd09::9"
)
DRILL = "ip netns exec a drill"


@pytest.fixture
def node(machine: Machine) -> Machine:
    """A router between the namespaces a and b."""
    return wire(machine, ROUTED)


def client(machine: Machine, *words: object) -> str:
    """Run one of the clients of clients.py; what it printed."""
    return machine.succeed(f"python3 /tmp/clients.py {' '.join(map(str, words))}").strip()


def serve(machine: Machine, namespace: str, address: str, port: int) -> None:
    """A TCP server that accepts and closes."""
    family = "-6" if ":" in address else "-4"
    machine.succeed(
        f"ip netns exec {namespace} nc {family} -lk {address} {port} </dev/null >/dev/null 2>&1 &"
    )
    machine.wait_until_succeeds(f"ip netns exec {namespace} ss -Hltn | grep -q ':{port} '")


def hidden(inner: Packet, address: str) -> list[Packet]:
    """A packet behind more headers than anybody counts, and beginnings of it in a fragment:
    not all headers, all but a part of what they are for."""
    head = IPv6(src="fd01::99", dst=address)
    many: Packet = head
    for _ in range(33):
        many /= IPv6ExtHdrDestOpt()
    # conntrack puts the outer one together, which is whole; the other is left for the end.
    outer = IPv6ExtHdrFragment(id=1, offset=0, m=0, nh=44)
    long = bytes(IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))]) / inner)
    kind = {TCP: 6, UDP: 17}[type(inner)]
    cut = IPv6ExtHdrFragment(id=2, offset=0, m=1, nh=60) / Raw(long[:8])
    part = IPv6ExtHdrFragment(id=3, offset=0, m=1, nh=kind) / Raw(bytes(inner)[:24])
    return [many / inner, head / outer / cut, head / outer / part]


HIDDEN = {
    "dns_block": (UDP(sport=1024, dport=53) / DNS(qd=DNSQR(qname="free.example")), "fd02::2"),
    "dns_rewrite": (UDP(sport=53, dport=1024) / DNS(qr=1), "fd02::2"),
    "sni_block": (TCP(sport=1024, dport=443, flags="A") / Raw(bytes(64)), "fd02::2"),
    "tcp_reject": (TCP(sport=1024, dport=8080, flags="A") / Raw(bytes(64)), "fd02::2"),
    "port_knock": (TCP(sport=1024, dport=2222, flags="S") / Raw(bytes(64)), "fd01::1"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_nobody_can_say_is_dropped(node: Machine, name: str) -> None:
    inner, address = HIDDEN[name]
    tally(node, "input" if address == "fd01::1" else "forward", passed="ip6 saddr fd01::99")
    # Whoever has nothing to hide is told apart from all others.
    others = UDP(sport=1024, dport=1024) / Raw(bytes(64))
    for packet in hidden(inner, address):
        before = tallied(node, "passed")
        replay(node, packet)
        assert tallied(node, "passed") == before + 1
        node.succeed(f"lunatik run examples/{name} softirq")
        replay(node, packet)
        assert tallied(node, "passed") == before + 1
        replay(node, IPv6(src="fd01::99", dst=address) / others)
        assert tallied(node, "passed") == before + 2
        node.succeed(f"lunatik stop examples/{name}")


@pytest.mark.parametrize("name", ["dns_block", "sni_block", "tcp_reject"])
def test_filters_let_nothing_pass_when_they_fail(node: Machine, name: str) -> None:
    fails = 'local function fail() error("worn out") end return {tcp = fail, udp = fail}'
    node.copy_to(fails.encode(), "/lib/modules/lua/packet.lua")
    assert flow(node, "a", "b", "10.2.0.2", 9999) == ["arrived"]
    node.succeed(f"lunatik run examples/{name} softirq")
    assert flow(node, "a", "b", "10.2.0.2", 9999) == ["lost"]


def test_drop_port(node: Machine) -> None:
    tally(node, "input", came="udp dport 9999", others="udp dport 9998")
    command = "echo lab | nc -u -w1 10.1.0.1 9999"
    node.succeed(f"ip netns exec a sh -c '{command}'")
    assert tallied(node, "came") == 1
    node.succeed("lunatik run examples/drop_port softirq")
    node.succeed(f"ip netns exec a sh -c '{command}'")
    node.succeed(f"ip netns exec a sh -c '{command.replace('9999', '9998')}'")
    assert tallied(node, "came") == 1
    assert tallied(node, "others") == 1


def at_once(machine: Machine, way: str, messages: list[bytes]) -> tuple[list[bytes], int]:
    """Send messages of one length in one packet; those that came, and how many came back."""
    (size,) = {len(message) for message in messages}
    machine.copy_to(b"".join(messages), "/tmp/messages")
    *came, back = client(machine, "gso", "10.2.0.2", way, size, "/tmp/messages").split()
    return [bytes.fromhex(message) for message in came], int(back)


def test_dns_block_reads_each_of_many_questions(node: Machine) -> None:
    node.succeed("lunatik run examples/dns_block softirq")
    free, blocked = (
        bytes(DNS(id=7, qd=DNSQR(qname=name))) for name in ("freedom.example", "blocked.example")
    )
    assert at_once(node, "questions", [free] * 5) == ([free] * 5, 0)
    assert at_once(node, "questions", [free, free, blocked, free]) == ([], 1)


def test_dns_rewrite_reads_each_of_many_answers(node: Machine) -> None:
    node.succeed("lunatik run examples/dns_rewrite softirq")

    def answer(number: int, address: str) -> bytes:
        name = "any.example"
        record = DNSRR(rrname=name, rdata=address)
        return bytes(DNS(id=number, qr=1, qd=DNSQR(qname=name), an=record))

    came, _ = at_once(node, "answers", [answer(number, "10.9.9.9") for number in range(5)])
    assert came == [answer(number, "192.0.2.80") for number in range(5)]


def test_dns_rewrite_leaves_wrong_sums_wrong(node: Machine) -> None:
    """Of what it does not change."""
    node.succeed("lunatik run examples/dns_rewrite softirq")
    tally(node, "forward", wrong="udp checksum 0x1234", every="udp sport 53")
    head = IP(src="10.1.0.2", dst="10.2.0.2") / UDP(sport=53, dport=1024, chksum=0x1234)
    torn = bytes(DNS(qr=1, qd=DNSQR(qname="any.example"), ancount=3))
    replay(node, head / DNS(qr=1), head / Raw(torn))
    assert tallied(node, "every") == 2
    assert tallied(node, "wrong") == 2


def test_dns_block(node: Machine) -> None:
    node.succeed(RESOLVER)
    for address in ("10.2.0.2", "fd02::2"):
        assert "10.9.9.9" in node.succeed(f"{DRILL} @{address} www.blocked.example")
    node.succeed("lunatik run examples/dns_block softirq")
    for address in ("10.2.0.2", "fd02::2"):
        answer = node.succeed(f"{DRILL} @{address} www.BLOCKED.example")
        assert "NXDOMAIN" in answer
        assert "10.9.9.9" not in answer
    assert "10.9.9.9" in node.succeed(f"{DRILL} @10.2.0.2 unblocked.example")


@pytest.mark.parametrize("version", [4, 6])
def test_dns_block_answers_no_answers(node: Machine, version: int) -> None:
    node.succeed("lunatik run examples/dns_block softirq")
    tally(node, "forward", passed="udp dport 53")
    tally(node, "input", namespace="a", answers="udp sport 53")
    header = IP(src="10.1.0.2", dst="10.2.0.2")
    if version == 6:
        header = IPv6(src="fd01::2", dst="fd02::2")
    name = DNSQR(qname="www.blocked.example")
    # From one server's port to another's.
    bring(node, [bytes(header / UDP(sport=53, dport=53) / DNS(qr=qr, qd=name)) for qr in (1, 0)])
    node.succeed("python3 /tmp/replay.py /tmp/frames a va")
    assert tallied(node, "passed") == 1, "the answer"
    assert tallied(node, "answers", namespace="a") == 1, "to the question"


def test_dns_rewrite(node: Machine) -> None:
    node.succeed(RESOLVER, "lunatik run examples/dns_rewrite softirq")
    for address in ("10.2.0.2", "fd02::2"):
        assert "192.0.2.80" in node.succeed(f"{DRILL} @{address} any.example A")
        assert "2001:db8::50" in node.succeed(f"{DRILL} @{address} any.example AAAA")
    node.succeed("lunatik stop examples/dns_rewrite")
    assert "10.9.9.9" in node.succeed(f"{DRILL} @10.2.0.2 any.example A")


def addresses(four: bytes, six: bytes) -> bytes:
    """A DNS answer that does not fit one packet: a hundred A and AAAA records."""
    head = bytes(2) + b"\x80\0" + b"".join(n.to_bytes(2, "big") for n in (1, 100, 0, 0))
    question = b"\3any\7example\0" + b"\0\1\0\1"
    records = [
        b"\xc0\x0c" + kind + b"\0\1" + bytes(4) + len(value).to_bytes(2, "big") + value
        for kind, value in ((b"\0\1", four), (b"\0\x1c", six))
    ]
    return head + question + b"".join(records * 50)


@pytest.mark.parametrize("far", ["10.2.0.2", "fd02::2"])
def test_dns_rewrite_of_an_answer_in_pieces(node: Machine, far: str) -> None:
    node.succeed("lunatik run examples/dns_rewrite softirq")
    node.copy_to(addresses(b"\x0a\x09\x09\x09", bytes(15) + b"\x09"), "/tmp/answer")
    came = bytes.fromhex(client(node, "answer", "a", "b", far, "/tmp/answer"))
    assert len(came) > 1500
    assert came == addresses(
        ipaddress.ip_address("192.0.2.80").packed, ipaddress.ip_address("2001:db8::50").packed
    )


@pytest.mark.parametrize("far", ["10.2.0.2", "[fd02::2]"])
@pytest.mark.parametrize("most", [1500, 300])
def test_sni_block(node: Machine, far: str, most: int) -> None:
    node.succeed(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=lab "
        "-keyout /tmp/key -out /tmp/cert 2>/dev/null",
        # The ClientHello has about 500 bytes. Nobody may put its pieces together before the hook.
        "ip netns exec a ethtool -K va tso off gso off; ethtool -K ra gro off",
    )
    if most < 1500:
        # As large as the server wants them: a device's MTU of 300 is not one for IPv6.
        node.succeed(
            f"ip -n b route change default via 10.2.0.1 advmss {most - 40}",
            f"ip -n b -6 route change default via fd02::1 advmss {most - 60}",
        )
    segments = "tcp dport 443 meta length"
    tally(node, "prerouting", pieces=f"{segments} 280-300", joined=f"{segments} > {most}")

    def curl(name: str) -> int:
        # A server each: this one serves one after the other, and waits long.
        node.succeed(
            "ip netns exec b openssl s_server -accept 443 -www -key /tmp/key -cert /tmp/cert "
            ">/dev/null 2>&1 & echo $! >/tmp/server"
        )
        node.wait_until_succeeds("ip netns exec b ss -Hltn | grep -q ':443 '")
        status = node.execute(
            f"ip netns exec a curl -sk -m 20 -o /dev/null --resolve {name}:443:{far} "
            f"https://{name}/"
        ).status
        node.succeed("kill $(cat /tmp/server)")
        node.wait_until_succeeds("! ip netns exec b ss -Hltn | grep -q ':443 '")
        return status

    node.succeed("lunatik run examples/sni_block softirq")
    assert curl("www.blocked.example") in (35, 56), "reset in the handshake"
    assert tallied(node, "joined") == 0
    assert tallied(node, "pieces") > 1 or most == 1500, "it came in pieces"
    assert curl("www.other.example") == 0
    node.succeed("lunatik stop examples/sni_block")
    assert curl("www.blocked.example") == 0


def hello(name: bytes, *, extensions: int = 0, record: int = 1 << 14) -> bytes:
    """A ClientHello: so many empty extensions, the server's name, cut into records."""
    entry = b"\0" + len(name).to_bytes(2, "big") + name
    entry = len(entry).to_bytes(2, "big") + entry
    listed = b"\xff\x01\0\0" * extensions + b"\0\0" + len(entry).to_bytes(2, "big") + entry
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0"
    body += len(listed).to_bytes(2, "big") + listed
    message = b"\1" + len(body).to_bytes(3, "big") + body
    parts = [message[at : at + record] for at in range(0, len(message), record)]
    return b"".join(b"\x16\3\1" + len(part).to_bytes(2, "big") + part for part in parts)


def listen(machine: Machine) -> None:
    """Somebody at b's port 443, who says something to whatever comes."""
    machine.succeed("ip netns exec b python3 -m http.server 443 --bind 10.2.0.2 >/dev/null 2>&1 &")
    machine.wait_until_succeeds("ip netns exec b ss -Hltn | grep -q ':443 '")


HELLOS = {
    "blocked by its whole name": hello(b"www.blocked.example."),
    "longer than anybody's": hello(b"free.example", extensions=4200),
    "behind an alert": b"\x15\3\1\0\2\1\x5a" + hello(b"free.example"),
    "blocked": hello(b"www.blocked.example"),
    "blocked in crumbs": hello(b"www.blocked.example", record=1),
    "a long name": hello(b"a." * 650 + b"a"),
    "many extensions": hello(b"free.example", extensions=3000),
    "empty records": b"\x16\3\1\0\0" * 3000 + hello(b"free.example"),
}


@pytest.mark.limit(120)
def test_sni_block_outlives_who_wants_its_budget(node: Machine) -> None:
    # A thread for each: who was reset leaves a connection behind that waits.
    node.succeed("lunatik run examples/sni_block softirq")
    listen(node)
    for what, words in (HELLOS | {"free": hello(b"free.example")}).items():
        node.copy_to(words, "/tmp/hello")
        told = client(node, "say", "a", "10.2.0.2", 443, "/tmp/hello")
        assert ("reset" in told) == (what in HELLOS), what
        assert "budget" not in node.succeed("lunatik list"), what


def test_sni_block_goes_by_the_first_syn(node: Machine) -> None:
    node.succeed("lunatik run examples/sni_block softirq")
    listen(node)
    tally(node, "forward", begun="tcp dport 443 tcp flags & (syn | ack) == syn")
    for number, (name, told) in enumerate(
        ((b"www.blocked.example", "reset"), (b"free.example", "end")), start=1
    ):
        node.copy_to(hello(name), "/tmp/hello")
        assert client(node, "say_after_syn", "a", "10.2.0.2", 443, "/tmp/hello") == told
        assert tallied(node, "begun") == number, "the other one went nowhere"


def test_sni_block_refuses_whom_it_has_forgotten(node: Machine) -> None:
    node.succeed("lunatik run examples/sni_block softirq")
    listen(node)
    node.copy_to(hello(b"www.blocked.example"), "/tmp/hello")
    # To nobody, who need not answer.
    bring(
        node,
        [
            bytes(IP(src="10.1.0.2", dst="10.2.0.9") / TCP(sport=10_000 + n, dport=443, flags="S"))
            for n in range(500)
        ],
    )
    crowd = "'python3 /tmp/replay.py /tmp/frames a va'"
    for before, told in (("true", "reset"), (crowd, "reset")):
        said = client(node, "say_late", "a", "10.2.0.2", 443, "/tmp/hello", before)
        assert said == told, before
    node.copy_to(hello(b"free.example"), "/tmp/hello")
    for before, told in (("true", "end"), (crowd, "reset")):
        said = client(node, "say_late", "a", "10.2.0.2", 443, "/tmp/hello", before)
        assert said == told, before


def test_sni_block_refuses_who_says_it_again(node: Machine) -> None:
    """Who does not hear the reset goes on."""
    node.succeed("lunatik run examples/sni_block softirq")
    listen(node)
    tally(node, "prerouting", said="tcp dport 443 tcp flags & psh == psh")
    tally(node, "forward", passed="tcp dport 443 tcp flags & psh == psh")
    node.succeed(
        "ip netns exec a nft 'add table inet t; add chain inet t i { type filter hook input "
        "priority 0; }; add rule inet t i tcp flags & rst == rst drop'"
    )
    node.copy_to(hello(b"www.blocked.example"), "/tmp/hello")
    told = client(node, "say", "a", "10.2.0.2", 443, "/tmp/hello")
    assert told == "silence"
    assert tallied(node, "said") > 3
    assert tallied(node, "passed") == 0


def test_sni_block_refuses_urgent_bytes(node: Machine) -> None:
    """A server takes them out, and reads a name that nobody else has read."""
    node.succeed("lunatik run examples/sni_block softirq")
    listen(node)
    node.copy_to(hello(b"www.blocked.example"), "/tmp/hello")
    words = ("say_urgently", "a", "10.2.0.2", 443, "/tmp/hello", "cked")
    assert client(node, *words) == "reset"


def test_sni_block_holds_so_much_and_no_more(node: Machine) -> None:
    node.succeed("echo 2621440 >/sys/module/lunatik/parameters/memory")
    node.succeed("lunatik run examples/sni_block softirq")
    node.copy_to(hello(b"free.example", extensions=3900)[:15000], "/tmp/hello")
    node.succeed("python3 /tmp/clients.py crowd a b 10.2.0.2 300 /tmp/hello")
    assert "not enough memory" not in node.succeed("dmesg")
    listen(node)
    node.copy_to(hello(b"free.example"), "/tmp/hello")
    assert client(node, "say", "a", "10.2.0.2", 443, "/tmp/hello") == "end"


def test_sni_block_reads_what_came_with_the_syn(node: Machine) -> None:
    # Without cookies, and for all who listen (ip-sysctl.rst).
    node.succeed(
        "ip netns exec a sysctl -qw net.ipv4.tcp_fastopen=5",
        "ip netns exec b sysctl -qw net.ipv4.tcp_fastopen=1538",
    )
    listen(node)
    early = "tcp dport 443 tcp flags & syn == syn meta length > 80"
    tally(node, "prerouting", sent=early)
    tally(node, "forward", passed=early)

    def told(name: bytes) -> str:
        node.copy_to(hello(name), "/tmp/hello")
        return client(node, "say_at_once", "a", "10.2.0.2", 443, "/tmp/hello")

    assert told(b"www.blocked.example") == "end"
    assert tallied(node, "passed") == 1
    node.succeed("lunatik run examples/sni_block softirq")
    assert told(b"www.blocked.example") == "reset"
    assert told(b"free.example") == "end"
    assert tallied(node, "sent") > 1
    assert tallied(node, "passed") == 1


def test_dns_filters_outlive_who_wants_their_budget(node: Machine) -> None:
    node.succeed("lunatik run examples/dns_block softirq; lunatik run examples/dns_rewrite softirq")
    labels = "bytes(12) + b'\\1a' * 4000 + bytes(5)"
    # Of as many questions as may come at once, each as long as a name may be.
    many = "(bytes(12) + b'\\1a' * 126 + bytes(3)) * 15"
    records = "bytes(2) + b'\\x80' + bytes(3) + b'\\xff\\xff' + bytes(32000)"
    send = 'ip netns exec a python3 -c "import socket; s = socket.socket(2, 2)'
    node.succeed(
        f"{send}; s.sendto({labels}, ('10.2.0.2', 53))\"",
        f"{send}; s.setsockopt(17, 103, 267); s.sendto({many}, ('10.2.0.2', 53))\"",
        f"{send}; s.bind(('', 53)); s.sendto({records}, ('10.2.0.2', 5353))\"",
    )
    assert "budget" not in node.succeed("lunatik list")


def test_of_headers_without_end_nobody_can_say(node: Machine) -> None:
    parse = """
        local view = require("data").new(40 + {headers} * 8 + 20)
        view:setuint8(0, 0x60)
        view:setuint8(6, 60)
        for i = 1, {headers} do
            view:setuint8(32 + i * 8, i == {headers} and 6 or 60)
        end
        return tostring(require("packet").parse(view))
    """
    assert node.lua(parse.format(headers=32)) == "6"
    assert node.lua(parse.format(headers=33)) == "false"


def test_tcp_reject(node: Machine) -> None:
    for address in ("10.2.0.2", "fd02::2"):
        serve(node, "b", address, 8080)
        assert client(node, "connect", "a", address, 8080) == "open"
    node.succeed("lunatik run examples/tcp_reject softirq")
    tally(node, "input", namespace="a", **REFUSALS)
    for number, address in enumerate(("10.2.0.2", "fd02::2")):
        assert client(node, "connect", "a", address, 8080) == "ConnectionRefusedError"
        assert refusals(node, namespace="a") == (1 + number, number), "by a reset"
        assert client(node, "ask", "a", address, 8080, "lab") == "ConnectionRefusedError"
        assert refusals(node, namespace="a") == (1 + number, 1 + number), "by ICMP"
    node.succeed("ip netns exec b ss -Hltn | grep -q ':8080 '")


def test_tcp_reject_puts_fragments_together(node: Machine) -> None:
    """The port may stand in one of them and the flags in the next."""
    syn = IP(src="10.1.0.2", dst="10.2.0.2", id=7) / TCP(sport=4000, dport=8080, flags="S")
    tally(node, "input", namespace="b", came="tcp dport 8080")
    replay(node, *fragment(syn, fragsize=8))
    assert tallied(node, "came", namespace="b") == 1
    node.succeed("lunatik run examples/tcp_reject softirq")
    tally(node, "input", namespace="a", **REFUSALS)
    replay(node, *fragment(syn, fragsize=8))
    assert refusals(node, namespace="a") == (1, 0)
    assert tallied(node, "came", namespace="b") == 1


@pytest.mark.parametrize("near", ["10.1.0.1", "fd01::1"])
def test_port_knock(node: Machine, near: str) -> None:
    node.succeed(f"nc -lk {near} 2222 </dev/null >/dev/null 2>&1 &")
    node.wait_until_succeeds("ss -Hltn | grep -q ':2222 '")
    node.succeed("lunatik run examples/port_knock softirq")
    assert client(node, "connect", "a", near, 2222) == "ETIMEDOUT"
    flow(node, "a", "-", near, 7001, 7003, 7002)
    assert client(node, "connect", "a", near, 2222) == "ETIMEDOUT", "wrong order"
    flow(node, "a", "-", near, 7001, 7002, 7003)
    assert client(node, "connect", "a", near, 2222) == "open"


def test_port_knock_puts_fragments_together(node: Machine) -> None:
    """The port may stand in one of them and the flags in the next."""
    head = IPv6(src="fd01::2", dst="fd01::1")
    options = [("MSS", 1440), ("SAckOK", b""), ("Timestamp", (1, 0)), ("WScale", 7), ("NOP", None)]
    syn = TCP(sport=4000, dport=2222, flags="S", options=options)
    whole = bytes(IPv6(bytes(head / syn)).payload)
    assert len(whole) == 40

    def knocking() -> int:
        for number in (1, 2):
            parts = (whole[:24], whole[24:])
            replay(
                node,
                *(
                    head / IPv6ExtHdrFragment(id=number, offset=3 * at, m=1 - at, nh=6) / Raw(part)
                    for at, part in enumerate(parts)
                ),
            )
        return tallied(node, "came")

    node.succeed("lunatik run examples/port_knock softirq")
    tally(node, "input", came="tcp dport 2222 tcp flags & syn == syn")
    assert knocking() == 0
    flow(node, "a", "-", "fd01::1", 7001, 7002, 7003)
    assert knocking() == 2


@pytest.mark.parametrize("far", ["10.2.0.2", "fd02::2"])
def test_rate_limit_counts_each_of_many_at_once(node: Machine, far: str) -> None:
    node.succeed("lunatik run examples/rate_limit softirq")
    assert client(node, "train", "a", "b", far, 30) == ""
    assert len(client(node, "train", "a", "b", far, 8).split()) == 8


@pytest.mark.parametrize(("near", "far"), [("10.1.0.2", "10.2.0.2"), ("fd01::2", "fd02::2")])
def test_rate_limit(node: Machine, near: str, far: str) -> None:
    node.succeed("lunatik run examples/rate_limit softirq")
    tally(node, "input", namespace="b", came="udp dport 9000-9100")
    sent = int(client(node, "flood", "a", far, 2))
    passed = tallied(node, "came", namespace="b")
    # Two seconds touch three of the clock's; a slow machine may take four.
    assert sent > 200
    assert 20 <= passed <= 100
    value = node.lua(f"return require('lunatik')._ENV.rates['{packed(near)}'] & 0xfffff")
    assert int(value) <= 20


def test_rate_limit_counts_fragments(node: Machine) -> None:
    """Those behind the first have no port, and a source all the same."""
    node.succeed("lunatik run examples/rate_limit softirq")
    parts = [
        *(
            IP(src="10.1.0.2", dst="10.2.0.2", id=1 + n, frag=9) / Raw(bytes(64))
            for n in range(300)
        ),
        *(
            IPv6(src="fd01::2", dst="fd02::2")
            / IPv6ExtHdrFragment(id=1 + n, offset=9, nh=17)
            / Raw(bytes(64))
            for n in range(300)
        ),
    ]
    tally(node, "postrouting", four="ip saddr 10.1.0.2", six="ip6 saddr fd01::2")
    replay(node, *parts)
    for family in ("four", "six"):
        assert 20 <= tallied(node, family) <= 100


def test_rate_limit_outlives_forged_sources(node: Machine) -> None:
    # Each is on the runtime's account: of a megabyte, so many are not to be had.
    node.succeed("echo 1048576 >/sys/module/lunatik/parameters/memory")
    node.succeed("lunatik run examples/rate_limit softirq")
    forged = [
        bytes(IP(src=f"11.{number >> 8}.{number & 255}.1", dst="10.2.0.2") / UDP(dport=9999))
        for number in range(12_000)
    ]
    bring(node, forged)
    tally(node, "prerouting", met="ip saddr 11.0.0.0/8")
    node.succeed("python3 /tmp/replay.py /tmp/frames a va", timeout=100)
    assert tallied(node, "met") == len(forged)
    each = "require('rcu').map(require('lunatik')._ENV.rates, function() n = n + 1 end)"
    assert int(node.lua(f"local n = 0 {each} return n")) == 1000
    assert "not enough memory" not in node.succeed("dmesg")
    # It may have used up its share of the CPU, for a while.
    node.wait_until_succeeds("python3 /tmp/flow.py a b 10.2.0.2 9999 | grep arrived")


def test_quarantine(node: Machine) -> None:
    node.succeed("lunatik run examples/quarantine_watch", "lunatik run examples/quarantine softirq")
    ways = (("b", "10.2.0.2"), ("-", "10.1.0.1"), ("b", "fd02::2"), ("-", "fd01::1"))
    # New somewhere else, by a name that there is here too, and by one that there is not.
    node.succeed("ip netns add c; ip -n c link add ra type dummy; ip -n c link add rc type dummy")
    for receiver, address in ways:
        assert flow(node, "a", receiver, address, 9999) == ["arrived"]
    node.succeed(
        "ip link delete ra",
        "ip link add ra type veth peer name va netns a",
        "ip address add 10.1.0.1/24 dev ra; ip address add fd01::1/64 dev ra nodad",
        "ip link set ra up; ip -n a address add 10.1.0.2/24 dev va",
        "ip -n a address add fd01::2/64 dev va nodad; ip -n a link set va up",
        "ip -n a route add default via 10.1.0.1; ip -n a route add ::/0 via fd01::1",
    )
    for receiver, address in ways:
        assert flow(node, "a", receiver, address, 9999) == ["lost"]
    index = node.succeed("cat /sys/class/net/ra/ifindex").strip()
    entry = f"require('lunatik')._ENV.quarantine['{index}']"
    assert "lladdr" not in node.succeed("ip -n a neigh show 10.1.0.1"), "not by ARP either"
    node.lua(f"{entry} = nil")
    # Whom nobody has answered.
    node.succeed("ip -n a neigh flush dev va")
    for receiver, address in ways:
        assert flow(node, "a", receiver, address, 9999) == ["arrived"]
    node.lua(f"{entry} = true")
    node.succeed("ip link delete ra")
    assert node.lua(f"return {entry}").strip() == "nil", "its number may come again"


def test_conntrack_count(node: Machine) -> None:
    node.succeed(
        "nft 'add table inet t; add chain inet t post { type nat hook postrouting priority 100; }; "
        "add rule inet t post oifname rb masquerade'",
        "lunatik run examples/conntrack_count softirq",
    )

    def counted(address: str) -> str:
        return node.lua(f"return require('lunatik')._ENV.bytes['{packed(address)}']").strip()

    for near, translated, far, header in (
        ("10.1.0.2", "10.2.0.1", "10.2.0.2", 20),
        ("fd01::2", "fd02::1", "fd02::2", 40),
    ):
        assert flow(node, "a", "b", far, 9999, 9998) == ["arrived", "arrived"]
        datagrams = 2 * (header + 8 + 3)
        assert counted(near) == str(datagrams)
        assert counted(translated) == "nil"
        node.succeed(f"ip netns exec a ping -c 1 -s 100 {far}")
        assert counted(near) == str(datagrams + 2 * (header + 108)), "both directions"


def test_conntrack_count_outlives_forged_sources(node: Machine) -> None:
    node.succeed("lunatik run examples/conntrack_count softirq")
    forged = [
        bytes(IP(src=f"11.{number >> 8}.{number & 255}.1", dst="10.2.0.2") / UDP(dport=9999))
        for number in range(1200)
    ]
    bring(node, forged)
    node.succeed("python3 /tmp/replay.py /tmp/frames a va", timeout=100)
    node.wait_until_succeeds("python3 /tmp/flow.py a b 10.2.0.2 9998 | grep arrived")
    counted = node.lua(f"return require('lunatik')._ENV.bytes['{packed('10.1.0.2')}']")
    assert int(counted) >= 31
    each = "require('rcu').map(require('lunatik')._ENV.bytes, function() n = n + 1 end)"
    assert int(node.lua(f"local n = 0 {each} return n")) == 1000

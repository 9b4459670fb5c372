# SPDX-License-Identifier: GPL-2.0-only
"""What a bad wire becomes in tc's words."""

from __future__ import annotations

from lab.net.bridge import commands
from lab.net.impairment import QUEUE, Impairment


def impairment(**faults: object) -> Impairment:
    """A validated impairment."""
    return Impairment.model_validate(faults)


def test_good_wire_has_no_qdisc() -> None:
    assert impairment().netem() == []
    assert "tc qdisc del dev eth1 root" in commands(impairment(), toward=1)[1]


def test_all_faults_in_netems_order() -> None:
    wanted = impairment(delay="10ms", jitter="2ms", loss="1%", duplicate="2%", corrupt="0.5%",
                        reorder="25%", rate="1mbit")  # fmt: skip
    assert wanted.netem() == [
        "limit", str(QUEUE), "delay", "10ms", "2ms", "loss", "1%", "duplicate", "2%",
        "corrupt", "0.5%", "reorder", "25%", "rate", "1mbit",
    ]  # fmt: skip


def test_faults_apply_where_frames_leave_and_mtu_where_they_come_in() -> None:
    lines = commands(impairment(delay="10ms", mtu=600), toward=1)
    assert lines[1].startswith("tc qdisc replace dev eth1 root netem")
    assert lines[-1].startswith("tc filter add dev eth0 ingress")
    assert "gt 600" in lines[-1]

# SPDX-License-Identifier: GPL-2.0-only
"""KTAP as the kernel's runners print it."""

import pytest

from lab.results.ktap import differences, leaves, parse

RUNNER = """\
TAP version 13
1..1
# timeout set to 1800
# selftests: net/netfilter: nft_nat.sh
# PASS: netns routing/connectivity: ns0 can reach ns1
ok 1 selftests: net/netfilter: nft_nat.sh
"""

NESTED = """\
TAP version 13
1..2
# selftests: net/netfilter: conntrack_dump_flush
# TAP version 13
# 1..3
# # Starting 3 tests from 1 test cases.
# ok 1 conntrack_dump_flush.test_dump_by_zone
# not ok 2 conntrack_dump_flush.test_flush_by_zone
# ok 3 conntrack_dump_flush.test_default # SKIP no zones
# # Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0
not ok 1 selftests: net/netfilter: conntrack_dump_flush # exit=1
ok 2 selftests: net/netfilter: ipvs.sh # SKIP
"""

KUNIT = """\
[    1.000000] KTAP version 1
[    1.000001] 1..1
[    1.000002]     KTAP version 1
[    1.000003]     # Subtest: list-kunit-test
[    1.000004]     # module: list_test
[    1.000005]     1..2
[    1.000006]     ok 1 list_test_list_init
[    1.000007]     ok 2 list_test_list_add
[    1.000008] # list-kunit-test: pass:2 fail:0 skip:0 total:2
[    1.000009] ok 1 list-kunit-test
"""


def test_a_program_that_passed() -> None:
    ktap = parse(RUNNER)
    assert ktap.status == "passed"
    assert [test.name for test in ktap.tests] == ["selftests: net/netfilter: nft_nat.sh"]
    assert "PASS: netns routing/connectivity: ns0 can reach ns1" in ktap.tests[0].lines


def test_parts_of_a_program_are_found() -> None:
    ktap = parse(NESTED)
    assert ktap.status == "failed"
    assert not ktap.wrong
    first, second = ktap.tests
    assert [part.status for part in first.parts] == ["passed", "failed", "skipped"]
    assert first.why == "exit=1"
    assert first.parts[2].why == "SKIP no zones"
    assert second.status == "skipped"
    names = [name for name, _ in leaves(ktap.tests)]
    assert names[1].endswith("conntrack_dump_flush: conntrack_dump_flush.test_flush_by_zone")


def test_kunit_indents_and_stamps() -> None:
    ktap = parse(KUNIT)
    assert ktap.status == "passed"
    assert [part.name for part in ktap.tests[0].parts] == [
        "list_test_list_init",
        "list_test_list_add",
    ]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("1..1\nnot ok 1 a # TODO later\n", "passed"),
        ("1..1\nnot ok 1 a # XFAIL known\n", "passed"),
        ("1..1\nnot ok 1 a # SKIP no such device\n", "skipped"),
        ("1..1\nok 1 - a\n", "passed"),
        ("1..1\nnot ok 1 a # TIMEOUT 45 seconds\n", "failed"),
        ("1..0 # SKIP not root\n", "skipped"),
        ("1..2\nok 1 a # SKIP\nok 2 b\n", "passed"),
    ],
)
def test_directives(text: str, status: str) -> None:
    ktap = parse(text)
    assert not ktap.wrong
    assert ktap.status == status


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "no result"),
        ("1..2\nok 1 a\n", "2 results planned, 1 came"),
        ("1..2\nok 1 a\nok 3 b\n", "result 3"),
        ("1..1\n# 1..2\n# ok 1 x\n", "ends within a test"),
        ("1..1\n# 1..2\n# ok 1 x\nok 1 a\n", "2 results planned, 1 came"),
        ("1..1\n# 1..1\n# not ok 1 x\nok 1 a\n", "says ok, and a part of it failed"),
    ],
)
def test_a_broken_stream_has_not_passed(text: str, wrong: str) -> None:
    ktap = parse(text)
    assert any(wrong in said for said in ktap.wrong)
    assert ktap.status == "failed"


def test_two_runs_differ_in_what_one_of_them_says() -> None:
    assert differences(parse(NESTED), parse(NESTED)) == []
    other = (
        NESTED.replace("# not ok 2", "# ok 2").replace("# ok 3", "# # gone").replace("..3", "..2")
    )
    path = "selftests: net/netfilter: conntrack_dump_flush: conntrack_dump_flush"
    assert differences(parse(NESTED), parse(other)) == [
        f"{path}.test_flush_by_zone: failed, passed",
        f"{path}.test_default: skipped, absent",
    ]
    torn = NESTED.replace("ok 2 selftests", "# selftests")
    assert differences(parse(NESTED), parse(torn)) == [
        "selftests: net/netfilter: ipvs.sh: skipped, absent",
        "only one of them: 2 results planned, 1 came",
    ]

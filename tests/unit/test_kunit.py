# SPDX-License-Identifier: GPL-2.0-only
"""lab kunit: which modules are tests, and what their log says."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.kernel.artifact import Kernel
from lab.kernel.kunit import FRAGMENT, suite_modules
from lab.kernel.recipe import make_recipe
from lab.manifest import read
from lab.results.ktap import complaints, leaves, parse, reasons
from lab.store import Store

# As the log of a kernel has it: stamps, and what others print meanwhile.
LOG = """\
[   12.100001] KTAP version 1
[   12.100002] 1..2
[   12.100003]     KTAP version 1
[   12.100004]     # Subtest: example
[   12.100005]     # module: kunit_example_test
[   12.100006]     1..4
[   12.100007]     # example: initializing suite
[   12.100008]     # example_simple_test: initializing
[   12.100009]     ok 1 example_simple_test
[   12.100010]     # example_skip_test: You should not see a line below.
[   12.100011]     ok 2 example_skip_test # SKIP this test should be skipped
[   12.100012] eth0: link becomes ready
[   12.100013]         KTAP version 1
[   12.100014]         # Subtest: example_params_test
[   12.100015]     # example_params_test: EXPECTATION FAILED at lib/kunit/kunit-example-test.c:215
[   12.100016]     Expected param->value % param->value == 0, but
[   12.100017]         ok 1 example value 3
[   12.100018]         not ok 2 example value 2
[   12.100019]         ok 3 example value 0 # SKIP unsupported param value
[   12.100020]     # example_params_test: pass:1 fail:1 skip:1 total:3
[   12.100021]     not ok 3 example_params_test
[   12.100022]     # example_slow_test.speed: slow
[   12.100023]     ok 4 example_slow_test
[   12.100024]     # example: exiting suite
[   12.100025] # example: pass:2 fail:1 skip:1 total:4
[   12.100026] # Totals: pass:3 fail:1 skip:2 total:6
[   12.100027] not ok 1 example
[   12.100028]     KTAP version 1
[   12.100029]     # Subtest: example_init
[   12.100030]     # module: kunit_example_test
[   12.100031]     1..1
[   12.100032]     # example_init_test: initializing
[   12.100033]     ok 1 example_init_test
[   12.100034] ok 2 example_init
"""

SKIPPED = """\
[    3.000001] KTAP version 1
[    3.000002] 1..1
[    3.000003]     KTAP version 1
[    3.000004]     # Subtest: overflow
[    3.000005]     # module: overflow_kunit
[    3.000006]     1..2
[    3.000007]     ok 1 shift_sane_test # SKIP 32 bits only
[    3.000008]     ok 2 shift_nonsense_test # SKIP 32 bits only
[    3.000009] # overflow: pass:0 fail:0 skip:2 total:2
[    3.000010] ok 1 overflow # SKIP 32 bits only
"""

# 6.1 does not say how many suites a module has.
OLD = """\
[    3.000001]     KTAP version 1
[    3.000002]     # Subtest: list-kunit-test
[    3.000003]     1..2
[    3.000004]     ok 1 list_test_list_init
[    3.000005]     ok 2 list_test_list_add
[    3.000006] # list-kunit-test: pass:2 fail:0 skip:0 total:2
[    3.000007] # Totals: pass:2 fail:0 skip:0 total:2
[    3.000008] ok 1 list-kunit-test
[    3.000009]     KTAP version 1
[    3.000010]     # Subtest: hlist
[    3.000011]     1..1
[    3.000012]     not ok 1 hlist_test_init
[    3.000013] # hlist: pass:0 fail:1 skip:0 total:1
[    3.000014] not ok 2 hlist
"""


def test_a_log_with_a_failure_says_which_it_was() -> None:
    ktap = parse(LOG)
    assert ktap.status == "failed"
    assert complaints(ktap) == [
        "example: example_params_test: example value 2: not ok",
    ]
    statuses = {name: test.status for name, test in leaves(ktap.tests)}
    assert statuses["example: example_skip_test"] == "skipped"
    assert statuses["example: example_params_test: example value 0"] == "skipped"
    assert statuses["example_init: example_init_test"] == "passed"


def test_what_was_expected_stands_with_the_test() -> None:
    failed = next(test for _, test in leaves(parse(LOG).tests) if test.status == "failed")
    suite = parse(LOG).tests[0]
    said = [*failed.lines, *suite.lines, *(line for part in suite.parts for line in part.lines)]
    assert any("EXPECTATION FAILED" in line for line in said)


def test_a_suite_that_skips_itself_is_skipped_with_its_reason() -> None:
    ktap = parse(SKIPPED)
    assert ktap.status == "skipped"
    assert reasons(ktap) == ["SKIP 32 bits only"]


def test_a_log_of_an_old_kernel() -> None:
    ktap = parse(OLD)
    assert [test.name for test in ktap.tests] == ["list-kunit-test", "hlist"]
    assert complaints(ktap) == ["hlist: hlist_test_init: not ok"]


def test_a_log_that_ends_within_a_suite_has_failed() -> None:
    cut = LOG[: LOG.index("[   12.100021]")]
    assert parse(cut).status == "failed"
    assert any("ends within" in said for said in complaints(parse(cut)))


def test_nothing_at_all_has_failed() -> None:
    assert complaints(parse("[    1.000000] lkdtm: loaded\n")) == ["there is no result in it"]


# Modules


def kernel(tmp_path: Path, **modules: bytes) -> Kernel:
    made = Kernel(name="6.12", version="6.12.1", flavour="default", key="k", path=tmp_path)
    for name, content in modules.items():
        file = made.modules / "kernel/lib" / f"{name.replace('__', '-')}.ko"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return made


SUITES = b"\x7fELF .text\0.kunit_test_suites\0.data\0"


def test_modules_are_tests_by_what_is_in_them(tmp_path: Path) -> None:
    found = kernel(
        tmp_path,
        list__test=SUITES,
        early=b"\0.kunit_init_test_suites\0",
        kunit_helpers=b"\x7fELF .text\0kunit_alloc_device\0",
    )
    assert suite_modules(found) == ("early", "list_test")


@pytest.mark.parametrize("pattern", ["list-t*", "list_test", "*st_t*"])
def test_a_glob_knows_modules_as_modprobe_does(tmp_path: Path, pattern: str) -> None:
    found = kernel(tmp_path, list__test=SUITES, hash__test=SUITES, blist_a=SUITES)
    assert suite_modules(found, pattern) == ("list_test",)


def test_a_kernel_without_any(tmp_path: Path) -> None:
    assert suite_modules(kernel(tmp_path)) == ()


def test_kunit_is_laid_on_any_flavour_and_has_a_working_directory_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab.kernel import recipe as recipes
    from lab.sources.tree import SourceId

    source = SourceId(name="6.12", version="6.12.1", key="s")
    monkeypatch.setattr(recipes, "identify", lambda *_, **__: source)
    monkeypatch.setattr(recipes, "_least", lambda *_, **__: {})
    for flavour in ("default", "debug"):
        plain, kunit = (
            make_recipe(read(), "6.12", store=Store(tmp_path), flavour=flavour, extra=extra)
            for extra in ((), (FRAGMENT,))
        )
        assert kunit.hot_name == f"{plain.hot_name}-kunit"
        assert kunit.fragments[:-1] == plain.fragments
        assert kunit.fragments[-1].name == "kunit.config"

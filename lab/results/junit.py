# SPDX-License-Identifier: GPL-2.0-only
"""junit.xml: a suite for each cell; the kernel's failures have a type of their own."""

from __future__ import annotations

import re
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Properties, Property, Skipped, TestCase, TestSuite

from lab.results.record import CellResult, RunResult, TestResult, Untested

#: Characters that XML 1.0 cannot hold; consoles are full of them.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(run: RunResult, path: Path) -> None:
    """Write the run's junit.xml."""
    xml = JUnitXml(run.run)
    for cell in run.cells:
        xml.add_testsuite(_suite(cell))
    for one in run.untested:
        xml.add_testsuite(_untested(one))
    xml.update_statistics()  # type: ignore[no-untyped-call]
    xml.write(str(path), pretty=True)


def _suite(cell: CellResult) -> TestSuite:
    suite = TestSuite(cell.name)
    properties = Properties()  # type: ignore[no-untyped-call]
    for name, value in (
        ("kernel", cell.kernel.version),
        ("flavour", cell.kernel.flavour),
        ("provider", cell.provider),
        ("accel", cell.accel),
    ):
        properties.add_property(Property(name, value))
    suite.append(properties)  # type: ignore[no-untyped-call]
    for test in cell.tests:
        suite.add_testcase(_case(test))
    if cell.message:
        case = TestCase("the cell itself", classname=cell.name)
        case.result = [Error(_clean(cell.message), "infra")]
        suite.add_testcase(case)
    return suite


def _untested(one: Untested) -> TestSuite:
    suite, case = TestSuite(one.name), TestCase("what goes before its tests", classname=one.name)
    # Who wrote the kernel is asked for the one, who runs the lab for the other.
    ours = one.exit in {1, 2}
    message = _clean(one.message)
    case.result = [Failure(message, "failed") if ours else Error(message, "infra")]
    suite.add_testcase(case)
    return suite


def _case(test: TestResult) -> TestCase:
    path, _, name = test.id.partition("::")
    case = TestCase(name or path, classname=path.removesuffix(".py").replace("/", "."),
                    time=test.duration)  # fmt: skip
    message, detail = _clean(test.message), _clean(test.detail)
    match test.status:
        case "failed":
            case.result = [_with_text(Failure(message, "failed"), detail)]
        case "kernel":
            reports = "\n\n".join(s.text for s in test.splats if s.severity != "note")
            case.result = [_with_text(Failure(message, "kernel"), _clean(reports) or detail)]
        case "infra":
            case.result = [_with_text(Error(message, "infra"), detail)]
        case "skipped":
            case.result = [Skipped(message)]
    return case


def _with_text(result: Failure | Error, text: str) -> Failure | Error:
    result.text = text
    return result


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)

# SPDX-License-Identifier: GPL-2.0-only
"""The mutation runner, on a checkout of two files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import process
from lab.manifest import ROOT
from lab.process import Finished
from lab.testing import mutate

KILLED = """\
Adds wrongly.

Killed-by: tests/test_add.py::test_add
--- a/add.py
+++ b/add.py
@@ -1,2 +1,2 @@
 def add(a, b):
-    return a + b
+    return a - b
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "add.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "tests" / "mutations").mkdir(parents=True)
    (tmp_path / "tests" / "test_add.py").write_text(
        "from add import add\n\ndef test_add():\n    assert add(2, 2) == 4\n\n"
        "def test_zero():\n    assert add(0, 0) == 0\n\n"
        "def test_broken():\n    assert 0\n"
    )
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def mutation(checkout: Path, text: str) -> None:
    (checkout / "tests" / "mutations" / "wrong.patch").write_text(text)


def test_killed(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mutation(checkout, KILLED)
    assert mutate.main([], checkout) == 0
    assert "1 mutations, 0 survived" in capsys.readouterr().out
    assert "a + b" in (checkout / "add.py").read_text()


def test_survivor_fails(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mutation(checkout, KILLED.replace("::test_add", "::test_zero"))
    assert mutate.main(["wrong"], checkout) == 1
    assert "wrong survives tests/test_add.py::test_zero" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Killed-by", "Killer", "names no test"),
        ("a + b", "a * b", "does not apply"),
        ("::test_add", "::test_broken", "does not pass without the mutation"),
        ("::test_add", "::test_nowhere", "does not pass without the mutation"),
    ],
)
def test_bad_mutation(
    checkout: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str
) -> None:
    mutation(checkout, KILLED.replace(old, new))
    assert mutate.main([], checkout) == 2
    assert words in capsys.readouterr().err


def test_flavour_is_for_tests_with_a_kernel(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mutation(checkout, KILLED.replace("Killed-by", "Flavour: debug\nKilled-by"))
    assert mutate.main([], checkout) == 2
    assert "has no kernel" in capsys.readouterr().err


def test_flavour_reaches_the_lab(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = KILLED.replace("tests/test_add.py", "tests/e2e/test_add.py")
    mutation(checkout, text.replace("Killed-by", "Flavour: debug\nKilled-by"))
    calls = []

    def run(argv: list[str], **_: object) -> Finished:
        if argv[0] == sys.executable:
            calls.append(argv[3:])
            return Finished(argv=(), status=len(calls) - 2, stdout="", stderr="", seconds=0)
        return process.run(argv, **_)  # type: ignore[arg-type]

    monkeypatch.setattr(mutate, "run", run)
    results = [
        SimpleNamespace(id="tests/e2e/test_add.py::test_add[1]", status=status, call=0.1)
        for status in ("passed", "failed")
    ]
    monkeypatch.setattr(mutate, "load_run", lambda _: SimpleNamespace(tests=[results.pop(0)]))
    assert mutate.main([], checkout) == 0
    test = ["test", "--flavour", "debug", "--no-shared", "tests/e2e/test_add.py::test_add"]
    assert calls == [["kernel", "build", "--flavour", "debug"], test, test]


def test_all_pass_in_one_run_before_any_mutation(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    e2e = KILLED.replace("tests/test_add.py", "tests/e2e/test_add.py")
    mutation(checkout, e2e)
    (checkout / "tests" / "mutations" / "other.patch").write_text(e2e.replace("_add\n", "_two\n"))
    calls = []

    def run(argv: list[str], **_: object) -> Finished:
        if argv[0] == sys.executable:
            calls.append(argv[3:])
            return Finished(argv=(), status=1, stdout="", stderr="", seconds=0)
        return process.run(argv, **_)  # type: ignore[arg-type]

    monkeypatch.setattr(mutate, "run", run)
    # What is not in the report has not passed.
    good = SimpleNamespace(id="tests/e2e/test_add.py::test_two", status="passed", call=0.1)
    monkeypatch.setattr(mutate, "load_run", lambda _: SimpleNamespace(tests=[good]))
    assert mutate.main([], checkout) == 2
    assert "::test_add does not pass" in capsys.readouterr().err
    names = [f"tests/e2e/test_add.py::test_{name}" for name in ("two", "add")]
    assert calls == [["test", *names]]


def test_what_fails_before_the_test_began_is_no_kill(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    test = checkout / "tests" / "test_add.py"
    test.write_text(
        "import pytest\nfrom add import add\n\n@pytest.fixture\ndef machine():\n"
        "    assert add(1, 1) == 2\n\ndef test_add(machine):\n    pass\n"
    )
    mutation(checkout, KILLED)
    assert mutate.main([], checkout) == 1
    assert "wrong survives" in capsys.readouterr().out

    killer = mutate.Killer("tests/e2e/test_add.py::test_add")
    ended = Finished(argv=(), status=1, stdout="", stderr="", seconds=0)
    monkeypatch.setattr(mutate, "run", lambda *_, **__: ended)
    for status, call, killed in (
        ("kernel", 0.0, False),
        ("kernel", 0.1, True),
        ("failed", 0.1, True),
        ("passed", 0.1, False),
    ):
        result = SimpleNamespace(status=status, call=call)
        monkeypatch.setattr(
            mutate, "load_run", lambda _, result=result: SimpleNamespace(tests=[result])
        )
        assert mutate.fails(checkout, killer) == killed


def test_no_mutations_is_an_error(checkout: Path) -> None:
    assert mutate.main([], checkout) == 2


def test_unknown_name(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mutation(checkout, KILLED)
    assert mutate.main(["rong"], checkout) == 2
    assert "no mutation `rong`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "patch", sorted((ROOT / "tests" / "mutations").glob("*.patch")), ids=lambda file: file.stem
)
def test_each_of_the_projects_own_applies(patch: Path) -> None:
    """Running them takes long; that one has to be refreshed is seen at once."""
    words = ["patch", "-p1", "--fuzz=0", "--dry-run", "--silent", f"--input={patch}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout

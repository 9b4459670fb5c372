# SPDX-License-Identifier: GPL-2.0-only
"""Cells: files that run alone, planned from kernels, flavours and shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import manifest
from lab.errors import HostError, UserError
from lab.image.build import Image
from lab.kernel.artifact import Kernel
from lab.kernel.recipe import KernelRecipe
from lab.manifest import FlavourSpec
from lab.store import Store
from lab.testing import stages
from lab.testing.cell import Cell, load_cell
from lab.testing.planning import Built, Way, plan
from lab.testing.rig import root_of
from lab.testing.stages import concerned, select, share_of, turn, usual_tests
from lab.testing.times import Place, Times
from lab.testing.words import Words, making_tests, sort_words

WORDS = Words(options=("-x",), tests=("tests/e2e",))


def built(name: str, flavour: str) -> Built:
    nowhere = Path("/nowhere")
    return Built(
        kernel=Kernel(name=name, version=f"{name}.1", flavour=flavour, key="k", path=nowhere),
        modules=None,
        image=Image(name="debian", key="i", root=nowhere, packages=nowhere),
        flavour=FlavourSpec(
            fragments=("boot",), memory=1024, patience=4, shared="debug" in flavour
        ),
    )


def names(*stages: Built, way: Way) -> list[str]:
    return [cell.name for cell in plan(stages, way, run="r", times=Times())]


def test_one_cell_for_each_kernel_and_flavour() -> None:
    way = Way(words=WORDS, shared=False)
    stages = [built(k, f) for k in ("6.1", "6.12") for f in ("default", "debug")]
    assert names(*stages, way=way) == [
        "6.1-default-1", "6.1-debug-1", "6.12-default-1", "6.12-debug-1",
    ]  # fmt: skip


def test_a_cell_knows_its_kernels_name_and_compiler() -> None:
    way = Way(words=WORDS, shared=False)
    gcc, clang = built("6.12", "default"), replace(built("6.12", "default"), llvm=True)
    assert names(gcc, clang, way=way) == ["6.12-default-1", "6.12-default-llvm-1"]
    assert [cell.kernel_name for cell in plan([gcc], way, run="r", times=Times())] == ["6.12"]


def test_shards_and_the_shared_machine_of_debug() -> None:
    way = Way(words=WORDS, shards=2, workers=2)
    known = {Place(kernel="6.12", flavour="debug"): {"t": 1.5}}
    cells = plan([built("6.12", "debug")], way, run="r", times=Times(known))
    assert [cell.name for cell in cells] == ["6.12-debug-1", "6.12-debug-2", "6.12-debug-shared"]
    assert [(cell.shard, cell.shards) for cell in cells] == [(1, 2), (2, 2), (1, 1)]
    # History is in one machine, so in one process.
    assert [(cell.shared, cell.workers) for cell in cells] == [(False, 2), (False, 2), (True, 0)]
    assert cells[0].patience == 4
    assert cells[0].memory == 1024
    assert cells[0].times == {"t": 1.5}


def test_a_flavour_has_tests_of_its_own_where_nobody_names_any() -> None:
    stage = replace(built("6.12", "race"), tests=("tests/e2e/smoke",))
    unnamed = Words(options=(), tests=())
    for words, expected in ((unnamed, ("tests/e2e/smoke",)), (WORDS, ("tests/e2e",))):
        (cell,) = plan([stage], Way(words=words), run="r", times=Times())
        assert cell.tests == expected


def test_peers_are_all_that_stand_so_far() -> None:
    old, new = built("6.1", "default"), built("6.12", "default")
    (cell,) = plan([new], Way(words=WORDS), run="r", times=Times(), before=[old])
    assert cell.name == "6.12-default-1"
    assert [peer.name for peer in cell.peers] == ["6.1", "6.12"]


def test_suites_of_a_flavour_become_paths_each_once(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "flavours:\n  race: {fragments: [boot], suites: [smoke, shared]}\n"
        "suites: {shared: [tests/e2e/xdp, tests/e2e/smoke]}\n"
    )
    lab = manifest.read(file)
    assert usual_tests(lab, "race") == ("tests/e2e/smoke", "tests/e2e/xdp")
    assert usual_tests(lab, "default") == ("tests/e2e",)


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ((), ("tests/e2e/runtime", "tests/e2e/xdp/test_life.py")),
        (("tests/e2e",), ("tests/e2e/runtime", "tests/e2e/xdp/test_life.py")),
        (("tests/e2e/xdp",), ("tests/e2e/xdp/test_life.py",)),
        (("tests/e2e/xdp/test_life.py::test_x[1]",), ("tests/e2e/xdp/test_life.py::test_x[1]",)),
        (("tests/e2e/runtime/test_stop.py", "tests/e2e/lab"), ("tests/e2e/runtime/test_stop.py",)),
        (("tests/e2e/lab", "tests/e2e/run"), ()),
    ],
)
def test_a_flavour_of_all_runs_what_it_is_for(
    tmp_path: Path, tests: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "flavours:\n  race: {fragments: [boot], suites: [shared]}\n"
        "suites: {shared: [tests/e2e/runtime, tests/e2e/xdp/test_life.py]}\n"
    )
    lab = manifest.read(file)
    assert share_of(lab, "race", tests) == expected
    assert share_of(lab, "default", tests) == (tests or ("tests/e2e",))
    there = ("default", "race") if expected else ("default",)
    assert concerned(lab, ("default", "race"), tests)[0] == there
    if not expected:
        with pytest.raises(UserError, match="no flavour's suites hold any of tests/e2e/lab"):
            concerned(lab, ("race",), tests)


def test_kernels_are_chosen_once_each(tmp_path: Path) -> None:
    lab = manifest.read(root=manifest.ROOT)
    own = tmp_path / "linux"
    own.mkdir()
    every = tuple(lab.kernels)
    assert select(lab, ["6.12", "6.12"], flavour="default")[0] == ("6.12",)
    assert select(lab, ["all", "6.12", f"{own}"], flavour="default")[0] == (*every, f"{own}")


def test_kernels_of_one_name_are_refused(tmp_path: Path) -> None:
    lab = manifest.read(root=manifest.ROOT)
    for name in ("a/linux", "b/linux", "c/6.12"):
        (tmp_path / name).mkdir(parents=True)
    for pair in ([f"{tmp_path}/a/linux", f"{tmp_path}/b/linux/"], ["6.12", f"{tmp_path}/c/6.12"]):
        with pytest.raises(UserError, match="both called"):
            select(lab, pair, flavour="default")


def test_cells_of_one_name_are_refused(tmp_path: Path) -> None:
    spec = "source: {path: linux}"
    (tmp_path / "lab.yaml").write_text(
        'default_kernel: "6.12"\ndefault_image: i\n'
        f'kernels:\n  "6.12":\n    {spec}\n  "6.12-debug":\n    {spec}\n'
        "flavours:\n  x: {fragments: []}\n  debug-x: {fragments: []}\n"
        "images:\n  i: {recipe: i.yaml}\n"
    )
    lab = manifest.read(tmp_path / "lab.yaml", root=tmp_path)
    words = "kernel `6.12-debug`, flavour `x` would both be the cell `6.12-debug-x`"
    with pytest.raises(UserError, match=f"kernel `6.12`, flavour `debug-x` and {words}"):
        select(lab, ["all"], flavour="all")
    assert select(lab, ["all"], flavour="x")[1] == ("x",)
    assert select(lab, ["6.12"], flavour="all")[1] == ("x", "debug-x")
    trees = [tmp_path / "my tree", tmp_path / "my-tree"]
    for tree in trees:
        tree.mkdir()
    with pytest.raises(UserError, match="would both be the cell `my-tree-x`"):
        select(lab, [str(tree) for tree in trees], flavour="x")


@pytest.mark.parametrize("value", ["1e20", "Infinity", "NaN", "-1"])
def test_a_cell_has_no_endless_patience(tmp_path: Path, value: str) -> None:
    file = tmp_path / "cell.json"
    Cell(run="r", name="x-1", kernel="k", image="i", flavour="x", patience=7).save(file)
    file.write_text(file.read_text().replace("7.0", value))
    with pytest.raises(UserError, match="not a cell: patience"):
        load_cell(file)


def test_a_users_tree_makes_a_name_that_is_a_directory() -> None:
    found = names(built("my tree/../x", "default"), way=Way(words=WORDS))
    assert found == ["my-tree-..-x-default-1"]


def test_a_cell_survives_its_file(tmp_path: Path) -> None:
    cell = Cell(run="r", name="6.12-default-1", kernel="k", image="i", flavour="default")
    cell.save(tmp_path / "deep" / "cell.json")
    assert load_cell(tmp_path / "deep" / "cell.json") == cell


def test_nothing_in_a_cell_points_at_the_planner() -> None:
    cell = plan([built("6.12", "default")], Way(words=WORDS), run="r", times=Times())[0]
    assert str(Path.cwd()) not in cell.model_dump_json()
    assert "/nowhere" not in cell.model_dump_json()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not a cell"),
        ("{}", "run"),
        ('{"run":"r","name":"../x","kernel":"k","image":"i","flavour":"d"}', "name"),
        ('{"run":"r","name":"x","kernel":"k","image":"i","flavour":"d","typo":1}', "typo"),
        ('{"run":"r","name":"x","kernel":"k","image":"i","flavour":"d","workers":-1}', "workers"),
    ],
)
def test_what_is_no_cell(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "cell.json"
    file.write_text(text)
    with pytest.raises(UserError, match=why) as caught:
        load_cell(file)
    assert caught.value.file == file


def test_a_file_that_is_no_text_is_no_cell(tmp_path: Path) -> None:
    (tmp_path / "cell.json").write_bytes(b"\x7fELF\xff")
    with pytest.raises(UserError, match="not a cell"):
        load_cell(tmp_path / "cell.json")


def test_a_cell_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_cell(tmp_path / "none.json")


def test_what_is_shared_is_no_matter_of_names() -> None:
    way = Way(words=WORDS)
    assert names(built("6.12", "debug-mine"), way=way)[-1] == "6.12-debug-mine-shared"
    assert names(built("6.12", "race"), way=way) == ["6.12-race-1"]


def test_words_are_told_apart(tmp_path: Path) -> None:
    test = tmp_path / "root" / "tests" / "test_a.py"
    test.parent.mkdir(parents=True)
    test.touch()
    words = sort_words(
        ["-x", "-k", "tests", "tests/test_a.py::test_b[1]", "--tb", "short", "--lf"],
        here=tmp_path / "root",
        root=tmp_path / "root",
    )
    assert words.options == ("-x", "-k", "tests", "--tb", "short", "--lf")
    assert words.tests == ("tests/test_a.py::test_b[1]",)


@pytest.mark.parametrize("option", ["--junit-xml", "--log-file", "--dist", "-p"])
def test_the_value_of_an_option_is_no_test(tmp_path: Path, option: str) -> None:
    words = sort_words([option, "value"], here=tmp_path, root=tmp_path)
    assert words == Words(options=(option, "value"), tests=())


def test_a_bundle_keeps_the_options_that_make_its_test() -> None:
    made = ("--kselftest-before", "", "--kselftest-compare", "--kselftest", "key")
    assert making_tests(("-k", "--kunit", "-x", *made)) == made
    assert making_tests(("-q", "--kunit", "list*", "--durations", "3")) == ("--kunit", "list*")
    assert making_tests(("-v",)) == ()


def test_paths_are_relative_to_where_they_were_typed(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "tests").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "mine.py").touch()
    inside = sort_words(["tests"], here=elsewhere, root=root)
    outside = sort_words(["mine.py", "../root/tests"], here=elsewhere, root=root)
    assert inside.tests == ("tests",)
    assert outside.tests == (str(elsewhere / "mine.py"), "tests")


def test_a_path_that_is_nowhere_is_a_typo(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no test `tests/typo\.py`"):
        sort_words(["tests/typo.py"], here=tmp_path, root=tmp_path)


def test_an_empty_word_is_not_every_test_there_is(tmp_path: Path) -> None:
    for word in ("", "::test_a"):
        with pytest.raises(UserError, match="no test ``"):
            sort_words([word], here=tmp_path, root=tmp_path)


def test_root_of_tests_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "root"
    one, two = tmp_path / "mine" / "a" / "test_a.py", tmp_path / "mine" / "b" / "test_b.py"
    for file in (root / "x.py", one, two):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert root_of(("x.py::test",), root) == root
    assert root_of((f"{one}::test",), root) == one.parent
    assert root_of((str(one), str(two)), root) == tmp_path / "mine"


def fetched(unreachable: set[str], asked: list[str]) -> Callable[..., KernelRecipe]:
    """Plays make_recipe where some suites do not answer; remembers what was asked for."""

    def make(_: object, name: str, *, flavour: str, **__: object) -> KernelRecipe:
        asked.append(name)
        if name in unreachable:
            raise HostError(f"the suite of {name} cannot be reached")
        recipe: KernelRecipe = SimpleNamespace(
            source=SimpleNamespace(name=name), flavour=flavour, llvm=False
        )  # type: ignore[assignment]
        return recipe

    return make


def test_an_unreachable_suite_takes_no_other_kernel_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(stages, "make_recipe", fetched({"6.1"}, asked))
    wanted = stages.Wanted(kernels=("6.1", "6.12", "7.3"), flavours=("default", "debug"))
    found, untested = stages.prepare_each(manifest.read(), wanted, Store(tmp_path))
    assert [stage.name for stage in found] == [
        "6.12-default", "6.12-debug", "7.3-default", "7.3-debug",
    ]  # fmt: skip
    assert [(one.name, one.exit) for one in untested] == [("6.1-default", 3), ("6.1-debug", 3)]
    assert asked.count("6.1") == 1, "it is waited for once"


def test_where_no_source_can_be_had_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "make_recipe", fetched({"6.1", "6.12"}, []))
    wanted = stages.Wanted(kernels=("6.1", "6.12"), flavours=("default",))
    with pytest.raises(HostError, match=r"suite of 6\.1 cannot"):
        stages.prepare_each(manifest.read(), wanted, Store(tmp_path))


def test_everybody_has_their_turn() -> None:
    kernels, flavours = ("6.1", "6.12", "7.3"), ("default", "debug")
    turns = [turn(kernels, flavours, number, usual="6.12") for number in range(10)]
    assert turns[:5] == turns[5:]
    pairs = {((kernel,), (flavour,)) for kernel in kernels for flavour in flavours}
    # What is run without a word is run anyway.
    assert set(turns) == pairs - {(("6.12",), ("default",))}


def test_the_usual_has_its_turn_where_it_is_all_that_was_chosen() -> None:
    assert turn(("6.12",), ("default",), 3, usual="6.12") == (("6.12",), ("default",))

"""The bench of mutants puts each where it belongs, and asks the tests that run it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from mutants import asked, source, table
from mutants.asked import Known, Numbers

TEXT = """\
MOST = 3


def first(x, least=1):
    if x > MOST:
        return max(
            x,
            least,
        )
    return sum(y for y in range(x))


class Held:
    @staticmethod
    def second(x):
        def inner():
            return x
        return inner() + 1
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "valgap").mkdir()
    (tmp_path / "valgap" / "m.py").write_text(TEXT)
    monkeypatch.setattr(source, "SOURCE", tmp_path)
    source.tree.cache_clear()
    return "valgap/m.py"


def made(file: str, line: int, text: str) -> source.Row:
    """A mutant of one line."""
    return {
        "file": file, "function": "f", "operator": "o", "occurrence": 0,
        "line": line, "first": line - 1, "last": line, "lines": [text],
    }  # fmt: skip


def loaded(file: str) -> dict[str, object]:
    """The names of the module."""
    names: dict[str, object] = {}
    exec(compile(TEXT, str(source.SOURCE / file), "exec"), names)
    return names


@pytest.mark.parametrize(
    ("line", "lines"), [(1, [1]), (4, [4]), (5, [5]), (7, [6, 7, 8, 9]), (10, [10]), (15, [15]), (17, [17]), (18, [18])]
)
def test_a_statement_is_the_innermost_and_of_a_block_its_head(file: str, line: int, lines: list[int]) -> None:
    assert list(source.span(file, line)) == lines


@pytest.mark.parametrize(("line", "name"), [(1, None), (4, "first"), (10, "first"), (13, None), (14, "second"), (17, "second")])
def test_the_function_of_a_line_is_the_outermost(file: str, line: int, name: str | None) -> None:
    node = source.outermost(file, line)
    assert (node and node.name) == name


@pytest.mark.parametrize(
    ("line", "text", "asked_for", "before", "after"),
    [
        (10, "    return -1\n", lambda n: n["first"](3), 3, -1),
        (17, "            return -x\n", lambda n: n["Held"].second(3), 4, -2),
    ],
)
def test_a_mutant_takes_the_place_of_a_function_that_is_held(
    file: str, line: int, text: str, asked_for: object, before: int, after: int
) -> None:
    names = loaded(file)
    assert asked_for(names) == before  # type: ignore[operator]
    held = source.functions_in_memory(source.SOURCE)
    assert source.in_place(made(file, line, text), source.SOURCE / file, held)
    assert asked_for(names) == after  # type: ignore[operator]


@pytest.mark.parametrize(("line", "text"), [(1, "MOST = 4\n"), (4, "def first(x, least=2):\n"), (14, "    @classmethod\n")])
def test_what_is_done_as_a_module_is_imported_is_not_put_into_functions(file: str, line: int, text: str) -> None:
    names = loaded(file)
    assert not source.in_place(made(file, line, text), source.SOURCE / file, source.functions_in_memory(source.SOURCE))
    assert names["MOST"] == 3


def test_a_mark_changes_with_the_function_and_no_other(file: str) -> None:
    mutant = made(file, 10, "    return -1\n")
    mark = source.mark_of(mutant)
    path = source.SOURCE / file
    path.write_text(TEXT.replace("inner() + 1", "inner() + 2"))
    source.tree.cache_clear()
    assert source.mark_of(mutant) == mark
    path.write_text(TEXT.replace("x > MOST", "x >= MOST"))
    source.tree.cache_clear()
    assert source.mark_of(mutant) != mark


def test_tests_that_run_the_statement_are_asked_the_quickest_first(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    for name, text in (
        ("x", "import torch\n"),
        ("m", ""),
        ("y", "from valgap import other\n"),
        ("z", "from valgap import other, m\n"),
    ):
        (tmp_path / "tests" / f"test_{name}.py").write_text(text)
    numbers = Numbers({"valgap/a.py": 30, file: 18})
    start = numbers.start[file]

    def test(
        name: str, seconds: float, lines: list[int], outcome: str = "passed", of: str = "tests/test_x.py", shares: bool = False
    ) -> Known:
        return Known(name, of, outcome, seconds, frozenset(start + line for line in lines), shares)

    tests = [
        test("slow", asked.MOST_S + 1, [6]),
        test("failing", 0.1, [6], outcome="failed"),
        test("other line", 0.1, [10]),
        test("later", 2.1, [8]),
        test("own", 5.0, [6], of="tests/test_m.py"),
        test("importing", 4.8, [6], of="tests/test_z.py"),
        test("second of its file", 1.0, [6], of="tests/test_y.py", shares=True),
        test("sharing", 0.9, [6], of="tests/test_y.py", shares=True),
        test("beside it", 0.1, [1], of="tests/test_y.py", shares=True),
    ]
    assert [t.name for t in asked.chosen(made(file, 7, ""), tests, numbers)] == [
        "sharing", "importing", "own", "second of its file", "later", "beside it",
    ]  # fmt: skip
    assert [t.name for t in asked.chosen(made(file, 1, ""), tests[:4], numbers)] == ["other line", "later"]
    elsewhere = [test("of the file before", 0.1, [-1])]
    assert asked.chosen(made(file, 1, ""), elsewhere, numbers) == []


def test_times_of_the_tests_of_a_mutant_are_bounded() -> None:
    tests = [Known(str(n), "", "passed", 4.0, frozenset(), False) for n in range(4)]
    assert len(asked.within(tests, 10.0)) == 2 and len(asked.within(tests, 1.0)) == 1


def test_an_equivalent_mutant_is_one_that_was_said_to_be_of_this_very_code() -> None:
    row = {"name": "m.py:f:number:0", "mark": "1", "came": "survived"}
    assert table.came(row, {}) == "survived"
    assert table.came(row, {("m.py:f:number:0", "1"): {"said": "equivalent"}}) == "equivalent"
    assert table.came(row, {("m.py:f:number:0", "2"): {"said": "equivalent"}}) == "survived"
    assert table.came({**row, "came": "killed"}, {("m.py:f:number:0", "1"): {"said": "equivalent"}}) == "killed"

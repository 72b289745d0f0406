"""The counted loops around a moment, found in the source and looked up without running anything."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import valgap
from valgap.record.reader import read_record
from valgap.seams.attaching.loops import Loops

PROGRAM = """
import argparse

LIMITS = {"epochs": 4}


class Bar:
    def __init__(self, iterable):
        self.iterable = iterable

    def __iter__(self):
        return iter(self.iterable)


class Trainer:
    most = 6

    def __init__(self, epochs):
        self.epochs = epochs
        self.asked = 0

    @property
    def costly(self):
        self.asked += 1
        return 3

    def fit(self, look):
        for _ in range(self.epochs):
            self.one(look)

    def one(self, look):
        look()

    def by_class(self, look):
        for _ in range(self.most):
            look()

    def by_property(self, look):
        for _ in range(self.costly):
            look()
        return self.asked


def plain(look, args):
    for epoch in range(1, args.epochs + 1):
        for batch in [7]:
            look()


def bar(look, args):
    for epoch in Bar(range(LIMITS["epochs"])):
        look()


def kept_bar(look, args):
    epochs = Bar(range(2, 8, 2))
    for epoch in epochs:
        look()


def keeps(look, args):
    kept = locals()
    for epoch in range(2):
        look()
    return kept


def folds(look, args):
    for fold in range(2):
        epoch = 0
        while epoch < 5:
            for step in range(3):
                look()
            epoch += 5
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("loops") / "looping.py"
    file.write_text(PROGRAM)
    spec = importlib.util.spec_from_file_location("looping", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seen(run: Callable[[Callable[[], None]], Any]) -> tuple[list[list[tuple[int, int]]], Any]:
    loops, found = Loops(), []

    def look() -> None:
        found.append(loops.turns())

    return found, run(look)


ARGUMENTS = argparse.Namespace(epochs=3)


@pytest.mark.parametrize(("name", "turns"), [("plain", 3), ("bar", 4), ("kept_bar", 3)])
def test_the_turn_of_a_loop_over_epochs(program: Any, name: str, turns: int) -> None:
    found, _ = seen(lambda look: getattr(program, name)(look, ARGUMENTS))
    assert found == [[(i, turns)] for i in range(turns)]


def test_a_loop_of_an_outer_function_counts(program: Any) -> None:
    assert seen(program.Trainer(2).fit)[0] == [[(0, 2)], [(1, 2)]]
    assert seen(program.Trainer(2).by_class)[0] == [[(i, 6)] for i in range(6)]


def test_no_code_of_the_program_is_run(program: Any) -> None:
    found, asked = seen(program.Trainer(2).by_property)
    assert found == [[], [], []] and asked == 1


def test_inner_loops_come_first(program: Any) -> None:
    found, _ = seen(lambda look: program.folds(look, None))
    assert found[0] == [(0, 3), (0, 2)] and found[-1] == [(2, 3), (1, 2)]


def test_variables_that_a_function_has_kept_stay_as_they_were(program: Any) -> None:
    found, kept = seen(lambda look: program.keeps(look, None))
    assert found == [[], []] and "epoch" not in kept


def test_a_pass_knows_its_turn(tmp_path: Path) -> None:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.randn(8, 3, 8, 8), torch.arange(8) % 2)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    with valgap.watch(out=tmp_path / "r", closing=0):
        for epoch in range(5):
            model.eval()
            for images, _ in DataLoader(data, 4):
                model(images)
            if epoch == 1:
                break
    assert [p.loops for p in read_record(tmp_path / "r").passes] == [((0, 5),), ((1, 5),)]


LONG_END = """
def unread(look):
    look()
    return "range"


def ends_on_several_lines(look, n):
    for epoch in range(n):
        unread(look)
    return dict(
        a=1,
        # what comes now does nothing
    )
"""


def test_only_functions_with_loops_are_read_and_those_to_their_end(tmp_path: Path) -> None:
    file = tmp_path / "long_end.py"
    file.write_text(LONG_END)
    loops, space = Loops(), {"__name__": "long_end"}
    exec(compile(LONG_END, str(file), "exec"), space)
    found: list[Any] = []
    space["ends_on_several_lines"](lambda: found.append(loops.turns()), 3)  # type: ignore[operator]
    assert [[t for t in turns if t[1] == 3] for turns in found] == [[(0, 3)], [(1, 3)], [(2, 3)]]
    assert "unread" not in {code.co_name for code in loops._of_code}

"""Logs of other programs, in the forms in which those write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from valgap.errors import RecordError
from valgap.record.foreign import is_log, meaning, read_log

DATA = Path(__file__).with_name("data")

LIGHTNING = """epoch,step,train_loss,val_acc,val_loss
0,7,1.2,,
0,7,,0.5,1.1
1,15,0.9,,
1,15,,0.6,1.0
"""
KERAS = "epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1.2,0.4,1.3\n1,0.7,0.9,0.5,1.2\n"
SEMICOLON = "Epoch;Train Loss;Train Acc (%);Val Loss;Val Acc (%)\n1;1.2;50;1.3;40\n2;0.9;70;1.2;50\n"
STATE = {
    "log_history": [
        {"epoch": 1.0, "learning_rate": 5e-5, "loss": 1.2, "step": 10},
        {"epoch": 1.0, "eval_accuracy": 0.4, "eval_loss": 1.3, "eval_runtime": 2.0, "step": 10},
        {"epoch": 2.0, "learning_rate": 1e-5, "loss": 0.9, "step": 20},
        {"epoch": 2.0, "eval_accuracy": 0.5, "eval_loss": 1.2, "step": 20},
    ]
}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("metrics.csv", LIGHTNING, {"train_loss": [1.2, 0.9], "val_accuracy": [0.5, 0.6], "val_loss": [1.1, 1.0]}),
        ("history.csv", KERAS, {"train_accuracy": [0.5, 0.7], "train_loss": [1.2, 0.9], "val_accuracy": [0.4, 0.5]}),
        ("log.csv", SEMICOLON, {"train_accuracy": [50, 70], "val_accuracy": [40, 50], "val_loss": [1.3, 1.2]}),
        (
            "trainer_state.json",
            json.dumps(STATE),
            {"train_loss": [1.2, 0.9], "val_accuracy": [0.4, 0.5], "learning_rate": [5e-5, 1e-5]},
        ),
        (
            "log.jsonl",
            '{"epoch": 0, "train": {"loss": 1.2}, "val": {"acc": 0.4}}\n\n'
            '{"epoch": 1, "train": {"loss": 0.9}, "val": {"acc": 0.5}}\n',
            {"train_loss": [1.2, 0.9], "val_accuracy": [0.4, 0.5]},
        ),
    ],
)
def test_forms(name: str, text: str, expected: dict[str, list[float]], tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    log = read_log(tmp_path / name)
    for key, values in expected.items():
        assert list(log.curves[key].values) == pytest.approx(values)
    assert is_log(tmp_path / name)


def test_events_as_tensorboardx_wrote_them() -> None:
    log = read_log(DATA / "tensorboardx.tfevents")
    assert log.kind == "TensorBoard events"
    assert log.curves["val_accuracy"].values == pytest.approx([0.5, 0.62, 0.64, 0.63])
    assert log.curves["train_loss"].values == pytest.approx([0.9, 0.6, 0.3, 0.1])
    assert log.curves["val_loss"].at == (0, 1, 2, 3)


def test_events_as_tensorboard_wrote_them() -> None:
    log = read_log(DATA / "tensorboard.tfevents")
    assert log.curves["train_loss"].values == pytest.approx([1.0, 0.8, 0.9, 1.3])
    assert log.curves["train_accuracy"].values == pytest.approx([0.5, 0.62, 0.64, 0.63])


def test_a_file_that_is_still_being_written(tmp_path: Path) -> None:
    data = (DATA / "tensorboardx.tfevents").read_bytes()
    cut = tmp_path / "events.out.tfevents.1"
    cut.write_bytes(data[:2500])
    assert 0 < len(read_log(cut).curves) <= 4
    assert read_log(tmp_path).path == str(cut)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("val_loss", "val_loss"), ("Loss/train", "train_loss"), ("validAcc", "val_accuracy"), ("eval_top1", "val_accuracy"),
        ("epoch_val_accuracy", "val_accuracy"), ("test/acc", "val_accuracy"), ("lr-SGD", "learning_rate"),
        ("learning_rate", "learning_rate"),
        ("top5_acc", None), ("best_val_acc", None),  ("accumulated", None), ("grad_norm", None), ("evaluation_time", None),
        ("final/val_accuracy", None),
    ],
)  # fmt: skip
def test_names(name: str, expected: str | None) -> None:
    assert meaning(name) == expected


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "a,b\n1,2\n", "no column"),
        ("a.jsonl", '{"loss": 1}\nnot json\n', "line 2"),
        ("a.png", "x", "no log"),
        ("trainer_state.json", "[", "not as its name says"),
        ("x.tfevents", "garbage that is long enough to look like a record", "no column"),
    ],
)
def test_what_is_no_log_says_so(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RecordError, match=words):
        read_log(tmp_path / name)


def test_run_directories_are_no_logs(tmp_path: Path) -> None:
    assert not is_log(tmp_path)
    (tmp_path / "events.jsonl").write_text("")
    (tmp_path / "metrics.csv").write_text(KERAS)
    assert not is_log(tmp_path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"epoch,loss\n0,\xff\n"),
        ("a.csv", b'epoch,loss\n0,"' + b"x" * 200_000),
        ("a.json", b"[" * 100_000),
        ("a.jsonl", b"[" * 100_000),
        ("a.json", b"1.5"),
        ("a.json", b'{"log_history": 1}'),
        ("a.json", b'[{"loss": 1' + b"0" * 400 + b"}]"),
        ("a.json", b'[{"loss": Infinity}, {"epoch": 0, "loss": -Infinity}, {"epoch": 0, "loss": Infinity}]'),
        ("trainer_state.json", b"[]"),
        ("a.tfevents.1", b"\x09" + bytes(11) + b"\x2a\x07\x0a\x05\x15\0\0\0" + bytes(9)),
    ],
)
def test_a_damaged_log_is_said(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecordError, match=r"not as its name says|is no JSON|holds no column"):
        read_log(tmp_path / name)

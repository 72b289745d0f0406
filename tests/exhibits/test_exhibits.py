"""Curves, classes, calibration and pictures against numbers made by hand, and against hostile files."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.checks.cases import healthy
from tests.reference.pictures_seen import run_on
from tests.report.pages import HOSTILE, diagnosis, finding, record
from valgap.exhibits.answer import two_sentences
from valgap.exhibits.curves import accuracy_curves, data_size_curve
from valgap.exhibits.galleries import Album, drawing_rule, mistakes, pair_of, seen_galleries, stage_galleries
from valgap.exhibits.per_class import answer_probabilities, calibration, class_results, confusion
from valgap.seams.looking.inputs import miniatures, quantized
from valgap.seams.looking.tables import score
from valgap.types import Check, Clear, Diagnosis, Judged, LearningCurve, RunRecord, SampleTable, SeenInputs, StageLine


def table(logits: torch.Tensor, target: torch.Tensor) -> SampleTable:
    columns = score(logits, target, len(target), "")
    ids = np.arange(len(target), dtype=np.int32)
    return SampleTable(**columns, sample=ids, batch=ids, fingerprint=ids.astype(np.float32))


def with_last(samples: SampleTable) -> RunRecord:
    run = healthy().run
    return replace(run, passes=(*run.passes[:-1], replace(run.passes[-1], samples=samples)))


def test_probability_of_the_answer_is_recovered_from_loss_and_margin() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(50, 4) * 5, torch.randint(0, 4, (50,))
    expected = logits.softmax(1).amax(1).numpy()
    np.testing.assert_allclose(answer_probabilities(table(logits, target)), expected, rtol=1e-4)


def test_confusion_recall_and_calibration_by_hand() -> None:
    sure = torch.tensor([[9.0, 0, 0, 0], [9.0, 0, 0, 0], [0, 9.0, 0, 0], [0, 0, 9.0, 0]])
    run = with_last(table(sure, torch.tensor([0, 1, 1, 2])))
    counts = confusion(run)
    assert counts is not None and counts.classes == ("ant", "bee", "cat")
    assert counts.counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    worst = class_results(run)[0]
    assert (worst.name, worst.recall.value, worst.recall.n, worst.answers) == ("bee", 0.5, 2, 1)
    sound = calibration(run)
    assert sound is not None and len(sound.bins) == 1
    p = float(sure.softmax(1).max())
    assert sound.error == pytest.approx(p - 0.75, abs=1e-4)


def test_many_classes_show_the_most_confused() -> None:
    torch.manual_seed(0)
    target = torch.arange(40).repeat(2)
    logits = torch.nn.functional.one_hot(target, 40).float() * 9
    logits[0], logits[1] = logits[5], logits[6]  # classes 0, 1, 5 and 6 are confused
    shown = confusion(with_last(table(logits, target)))
    assert shown is not None and shown.left_out == 20 and len(shown.classes) == 20
    assert int(shown.counts.sum() - np.trace(shown.counts)) == 2


def test_curves_have_a_point_for_each_pass() -> None:
    train, rescored, val = accuracy_curves(healthy().run)
    assert train.x == val.x == (1.0, 2.0, 3.0) and rescored.x == (3.0,)
    assert all(low < y < high for low, y, high in zip(val.low, val.y, val.high, strict=True))


def test_what_the_network_saw_is_drawn_by_trainings_rule() -> None:
    run = healthy().run
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    grey = torch.full((10, 3, 80, 90), 0.5)
    normalised = (grey - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    normalised[:, :, :40] += 0.5
    small = miniatures(normalised)
    assert small.shape == (8, 3, 64, 64)
    seen = SeenInputs(0, **quantized(small))
    np.testing.assert_allclose(seen.values, small.numpy(), atol=0.005)
    rule = drawing_rule(run, seen)
    np.testing.assert_allclose(rule[0], mean)
    drawn = seen.values * rule[1][:, None, None] + rule[0][:, None, None]
    np.testing.assert_allclose(drawn[:, :, 40:], 0.5, atol=0.005)
    shown = seen_galleries(replace(run, seen=(seen, SeenInputs(1, **quantized(small)))))
    assert [len(g.rows) for g in shown] == [8, 8]
    assert shown[0].title.startswith("In training") and shown[1].title.startswith("In validation")


def test_the_answer_is_two_sentences(tmp_path: Path) -> None:
    run = record(tmp_path)
    assert two_sentences(diagnosis(run)).count(". ") == 1
    told = two_sentences(diagnosis(run, ("MOD302", finding())))
    value = run.last_validation.samples.accuracy if run.last_validation else 0.0
    assert "confirm the cause" in told and f"{100 * value + 12.4:.1f} %" in told


def huge_png(file: Path, side: int) -> None:
    """A sound header of an image that would take gigabytes to decode."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_hostile_files_are_told_and_never_drawn(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html><script>alert(1)</script>")
    (tmp_path / "drawing.jpg").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    (tmp_path / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage")
    huge_png(tmp_path / "huge.png", 30_000)
    Image.new("RGB", (300, 200)).save(tmp_path / "sound.png")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder.jpg").mkdir()
    album = Album(replace(healthy().run, header={"cwd": str(tmp_path)}))
    odd = {name: album.picture(name) for name in ("page.jpg", "drawing.jpg", "script.png", "huge.png", "loop", "folder.jpg")}
    assert not any(p.source for p in odd.values())
    assert album.picture("sound.png").source
    assert "30000 x 30000" in odd["huge.png"].problem or "too many pixels" in odd["huge.png"].problem
    assert "no readable image" in odd["drawing.jpg"].problem and odd["loop"].problem
    for name in (HOSTILE, "a\0b", "x" * 300, "y" * 5000, "../" * 40 + "etc/passwd", "/dev/zero", "dataset3[17]", ""):
        assert album.picture(name).problem, name


def test_pairs_and_mistakes(tmp_path: Path) -> None:
    run = record(tmp_path)
    names = frozenset({"a", "b", "a = b", "c = d", "e"})
    assert pair_of("a = b", names) == ("a = b",)
    assert pair_of("c = d = e", names) == ("c = d", "e")
    assert pair_of("x = y", names) == ("x = y",)
    shown = mistakes(run, Album(run))
    assert shown is not None and shown.rows[0][0].source.startswith("data:image/webp")
    assert shown.total == int((~run.passes[-1].samples.correct).sum())


def test_the_curve_over_data_size_is_shown_where_a_check_asked_for_it(tmp_path: Path) -> None:
    class Looked:
        learning_curve = LearningCurve(np.array([50, 100]), np.array([[0.5, 0.7], [0.8, 0.9]]), True)

    run = record(tmp_path)
    one = replace(diagnosis(run), images=Looked())  # type: ignore[arg-type]
    assert data_size_curve(one) == (), "nobody asked: it is not measured for the page's sake"
    asked = Judged(Check("DAT107", "too_few_images", lambda case: Clear(""), "", "files"), Clear("enough"))
    (curve,) = data_size_curve(replace(one, judged=(asked,)))
    assert (curve.x, curve.y) == ((50.0, 100.0), pytest.approx((0.6, 0.85))) and curve.low[1] == 0.8


def test_a_stage_of_reading_shows_files_beside_what_was_seen(tmp_path: Path) -> None:
    run, images = run_on(tmp_path, val=lambda values, place: 1 - values, each=2)
    name = run.sample_names[-1]
    line = StageLine("read_val", None, None, "at fault", 0.9, False, (), "", pictures=((name, images.rows.paths[-1]),))
    bare = Diagnosis(run, (), None, None, None, stages=(line, replace(line, stage="draw", pictures=())))
    galleries = stage_galleries(bare, Album(run))
    assert list(galleries) == ["read_val"]
    file, seen = galleries["read_val"].rows[0]
    assert file.source and seen.source and file.source != seen.source and seen.title == name

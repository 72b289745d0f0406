"""Which image files a program opens, and what that tells of images that it keeps in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

import valgap
from tests.reference.pictures_seen import KINDS, drawn
from valgap.features import rows_of_run
from valgap.record.reader import read_record
from valgap.seams.hosting.images_opened import ImagesOpened

EACH = 6


class InMemory(Dataset[tuple[torch.Tensor, int]]):
    """Reads all files when it is made, some of which it leaves out; nothing says later which they were."""

    def __init__(self, root: Path, left_out: str = "") -> None:
        self.items = []
        for label, kind in enumerate(KINDS):
            for path in sorted((root / kind).iterdir()):
                if path.name != left_out:
                    picture = Image.open(path).convert("RGB").resize((24, 24))
                    self.items.append((torch.from_numpy(np.asarray(picture, np.float32) / 255).permute(2, 0, 1), label))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return self.items[place]


@pytest.mark.parametrize("left_out", ["", "2.png"])
def test_the_files_of_images_in_memory_are_known_by_the_order_in_which_they_were_opened(tmp_path: Path, left_out: str) -> None:
    for number, split in enumerate(("train", "val")):
        for k, kind in enumerate(KINDS):
            (tmp_path / split / kind).mkdir(parents=True)
            for i in range(EACH):
                drawn(kind, 1000 * k + i + 500 * number).save(tmp_path / split / kind / f"{i}.png")
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, len(KINDS)))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with valgap.watch(out=tmp_path / "r", closing=0):
        train, val = (DataLoader(InMemory(tmp_path / s, left_out), 8, shuffle=s == "train") for s in ("train", "val"))
        for x, y in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            for x, y in val:
                nn.functional.cross_entropy(model(x), y)
    rows = rows_of_run(read_record(tmp_path / "r"))
    assert rows is not None
    count = len(KINDS) * (EACH - bool(left_out))
    assert [int(rows.is_val.sum()), int((~rows.is_val).sum())] == [count, count]
    assert all(Path(p).parent.name == KINDS[label] for p, label in zip(rows.paths, rows.labels, strict=True))
    assert not left_out or not any(p.endswith(left_out) for p in rows.paths)


def test_files_and_folders_are_told_once_and_only_while_it_listens(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    opened = ImagesOpened()
    opened.start()
    for name in ("b.png", "notes.txt", "a.JPG", "b.png"):
        (tmp_path / name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / "plot.png").write_bytes(b"")  # written, not read
    opened.stop()
    (tmp_path / "later.png").write_bytes(b"")
    facts = opened.facts()
    assert [Path(p).name for p in facts["opened"]] == ["b.png", "a.JPG"]
    assert str(tmp_path) in facts["listed"]

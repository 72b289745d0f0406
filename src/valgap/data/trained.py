"""The images of a `valgap train` run, from the folder that it was given."""

from __future__ import annotations

import json
from pathlib import Path

from valgap.data.folder import load_folder
from valgap.errors import DataError
from valgap.types import TRAINED, RunRecord

SETTINGS = "settings.json"  # what was asked, beside the record
# (name as the record has it, path, label, whether validation)
TrainingImage = tuple[str, str, str, bool]


def images_of_training(run: RunRecord) -> list[TrainingImage]:
    """The images that were trained and validated on; empty for another program, or where the folder is no longer there.

    The record of a training that learned from stored features names no training image: its settings name its folder.
    """
    if run.header.get("script") != TRAINED:
        return []
    place = next((p for p in (Path(run.path), Path(run.path).parent) if (p / SETTINGS).is_file()), None)
    if place is None:
        return []
    try:
        settings = json.loads((place / SETTINGS).read_text(encoding="utf-8"))
        table = load_folder(Path(str(settings["data"])), int(settings.get("seed", 0)))
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return []
    base, known = Path(str(run.header.get("cwd", "."))), frozenset(run.sample_names)
    found: list[TrainingImage] = []
    for path, label, is_val in zip(table.paths, table.labels.tolist(), table.is_val.tolist(), strict=True):
        name = str(path)
        if name not in known and path.is_relative_to(base):
            name = str(path.relative_to(base))
        found.append((name, str(path), table.classes[label], is_val))
    return found

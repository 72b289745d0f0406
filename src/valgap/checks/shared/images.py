"""What several checks of images share: which images, how they are named, rankings and treatments. No check."""

from __future__ import annotations

import numpy as np

from valgap.types import Case, CaseImages, FloatArray, ImageRows, IntArray, Intervention, LabelErrors, Ranked, Untreatable

MAX_RANKED = 5_000
# An image that the pretrained network surely calls another kind of thing has a wrong label this often: of the 12 training images
# of hymenoptera_256 with a score of .3 or more, about 5 show no ant and no bee (judged by eye). Being below one half, no image
# becomes a suspect by this alone.
OTHER_KIND_RIGHT = 0.4


def needed(images: CaseImages | None, part: str) -> str:
    """What is missing, for NotApplicable: the image files, or what the measured part itself says."""
    if images is None:
        return "the image files of this run"
    return images.missing.get(part, f"{part.replace('_', ' ')} of the images")


def class_name(rows: ImageRows, label: int) -> str | None:
    """The name of a class index, None for -1."""
    return rows.classes[label] if 0 <= label < len(rows.classes) else None


def label_suspicion(images: CaseImages, errors: LabelErrors) -> FloatArray:
    """(N,) how probable it is that each label is wrong, by probes or by the network's own words; nan where nobody can say."""
    kinds = images.other_kinds
    elsewhere = OTHER_KIND_RIGHT * np.nan_to_num(kinds.score) if kinds is not None else np.zeros(len(errors.wrong))
    return np.where(np.isfinite(errors.wrong), np.maximum(errors.wrong, elsewhere), np.nan)


def label_ranking(images: CaseImages, errors: LabelErrors, places: IntArray) -> tuple[Ranked, ...]:
    """Images by the probability that their label is wrong, most suspect first: another class, or something else altogether."""
    rows, kinds = images.rows, images.other_kinds
    suspicion = label_suspicion(images, errors)
    found = []
    for i in ranked_places(suspicion, places):
        given, likely = (class_name(rows, int(c[i])) for c in (rows.labels, errors.likely))
        seen = kinds.name[i] if kinds is not None and suspicion[i] > errors.wrong[i] else None
        found.append(Ranked(rows.names[i], float(suspicion[i]), given, None if seen and likely == given else likely, seen))
    return tuple(found)


def label_suspects(images: CaseImages, errors: LabelErrors, places: IntArray, least: float) -> tuple[tuple[str, ...], int]:
    """(names whose label is wrong with a probability of ``least`` or more, most suspect first; how many labels were judged)."""
    suspicion = label_suspicion(images, errors)
    suspected = places[suspicion[places] >= least]
    order = ranked_places(suspicion, suspected, len(suspected))
    return tuple(images.rows.names[i] for i in order), int(np.isfinite(suspicion[places]).sum())


def score_ranking(images: CaseImages, scores: FloatArray, places: IntArray) -> tuple[Ranked, ...]:
    """Images by a score (N,), highest first, with their labels."""
    rows = images.rows
    return tuple(
        Ranked(rows.names[i], float(scores[i]), class_name(rows, int(rows.labels[i]))) for i in ranked_places(scores, places)
    )


def ranked_places(scores: FloatArray, places: IntArray, most: int = MAX_RANKED) -> list[int]:
    """The places with a finite score, highest first, ties by place; at most ``most``."""
    known = places[np.isfinite(scores[places])]
    order = np.argsort(-np.asarray(scores)[known], kind="stable")
    return [int(i) for i in known[order][:most]]


def train_positions(case: Case, names: tuple[str, ...] | list[str]) -> list[int]:
    """The positions of these samples in the training data set of the record."""
    last = case.run.last_train
    dataset = case.run.datasets.get(last.dataset) if last is not None else None
    if dataset is None or dataset.sample is None:
        return []
    wanted = set(names)
    known = case.run.sample_names
    return [i for i, s in enumerate(dataset.sample.tolist()) if 0 <= s < len(known) and known[s] in wanted]


def drop_from_train(case: Case, names: tuple[str, ...] | list[str]) -> Intervention | Untreatable:
    """These samples are not drawn for training."""
    if not names:
        return Untreatable("which images are at fault is not known")
    positions = train_positions(case, names)
    if not positions:
        return Untreatable("the places of these images in the training data set are not known")
    return Intervention("drop_samples", {"phase": "train", "positions": positions})


def drop_from_validation(names: tuple[str, ...] | list[str]) -> Intervention:
    """These samples do not count in the validation accuracy."""
    return Intervention("score_without", {"names": list(names)})

"""Passes of a run cut short on purpose: validation on training data is known by the sets, not by the few images drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from valgap.record.phases import PassFacts, infer_phases


def facts(sample: range, *, learns: bool, all_of: range | None = None, dataset: int = 0) -> PassFacts:
    return PassFacts(
        backwards=int(learns),
        steps=int(learns),
        dataset=dataset,
        model=0,
        num_batches=4,
        complete=False,
        sample=np.array(sample, np.int32),
        all_of=np.array(all_of, np.int32) if all_of is not None else None,
    )


def test_training_data_scored_beside_validation_is_other_though_none_of_its_images_was_drawn() -> None:
    train = facts(range(32), learns=True, all_of=range(1000))
    scored, validation = facts(range(500, 532), learns=False), facts(range(2000, 2032), learns=False, dataset=1)
    assert infer_phases([train, scored, validation]) == ["train", "other", "validation"]
    unknown = facts(range(32), learns=True)
    assert infer_phases([unknown, scored, validation]) == ["train", "validation", "validation"]


def test_training_data_alone_are_the_validation_all_the_same() -> None:
    train = facts(range(32), learns=True, all_of=range(1000))
    assert infer_phases([train, facts(range(500, 532), learns=False)]) == ["train", "validation"]


def test_features_of_a_program_that_trains_plain_tensors_are_no_validation() -> None:
    wide = replace(facts(range(32), learns=False), outputs=1280, classes=10)
    other = replace(facts(range(100, 132), learns=False, dataset=1), outputs=10, classes=10)
    assert infer_phases([wide, wide], unseen_steps=True) == ["other", "other"]
    assert infer_phases([wide, other], unseen_steps=True) == ["other", "validation"]
    assert infer_phases([wide, wide]) == ["validation", "validation"]

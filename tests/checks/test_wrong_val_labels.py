"""DAT105."""

import numpy as np
import pytest

from tests.checks.cases import found, healthy, quiet
from tests.checks.pictures import case, pictures, relabelled
from valgap.checks.data.wrong_train_labels import CHECK as TRAIN
from valgap.checks.data.wrong_val_labels import CHECK
from valgap.types import Clear, Finding, Intervention, NotApplicable


@pytest.mark.parametrize("share", [0.15, 0.3])
def test_planted_errors_in_val(share: float) -> None:
    sound = pictures(400, 200, apart=5)
    labels = sound.rows.labels.copy()
    bad = 400 + np.random.default_rng(1).permutation(200)[: round(200 * share)]
    labels[bad] = (labels[bad] + 1) % 4
    images = relabelled(sound, labels)
    finding = found(CHECK.detect(case(images)))
    assert finding.severity_points == pytest.approx(100 * share, abs=7)
    assert {r.path for r in finding.ranking[: len(bad) // 2]} <= {images.rows.names[i] for i in bad}
    assert quiet(TRAIN.detect(case(images)))


def test_sound_near_miss_and_missing() -> None:
    assert isinstance(CHECK.detect(case(pictures(400, 200))), Clear)
    # class indices of val in another order: DAT102, not single wrong labels
    images = pictures(400, 200)
    moved = np.where(images.rows.is_val, (images.rows.labels + 1) % 4, images.rows.labels)
    assert isinstance(CHECK.detect(case(relabelled(images, moved))), Clear)
    assert isinstance(CHECK.detect(healthy()), NotApplicable)
    assert isinstance(CHECK.detect(case(pictures(400, 0))), NotApplicable)


def test_treatment_leaves_them_out_of_the_score() -> None:
    assert CHECK.treat is not None
    treatment = CHECK.treat(healthy(), Finding("", 1, 1, (), "", subjects=("a.jpg",)))
    assert treatment == Intervention("score_without", {"names": ["a.jpg"]})


def test_training_labels_that_are_mostly_wrong_judge_nothing() -> None:
    sound = pictures(400, 200, apart=5)
    labels = sound.rows.labels.copy()
    rng = np.random.default_rng(0)
    labels[rng.permutation(400)[:300]] = rng.integers(0, 4, 300)
    images = relabelled(sound, labels)
    outcome = CHECK.detect(case(images))
    assert images.label_errors is not None and images.label_errors.train_rate > 0.4
    assert isinstance(outcome, Clear) and "cannot judge" in outcome.summary

"""MOD306, with the statistics taken from real tensors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.checks.cases import found, healthy, loss_stats, with_phase, without
from valgap.checks.model.squashed_logits import CHECK
from valgap.diagnosis import judge
from valgap.seams.looking.inputs import LossCollector
from valgap.types import Case, Clear, LossStats, NotApplicable

LOGITS = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.arange(32) % 4


def seen(name: str, logits: torch.Tensor) -> LossStats:
    collector = LossCollector()
    collector.add(name, logits, LABELS, {}, 0)
    result = collector.result(1)
    assert result is not None
    return LossStats(**result)


@pytest.mark.parametrize(
    ("name", "logits", "word"),
    [
        ("cross_entropy", LOGITS.softmax(1), "softmax"),
        ("cross_entropy", LOGITS.sigmoid(), "sigmoid"),
        ("cross_entropy", LOGITS.relu(), "ReLU"),
        ("nll_loss", LOGITS.softmax(1), "softmax"),
        ("binary_cross_entropy_with_logits", LOGITS.sigmoid(), "sigmoid"),
    ],
)
def test_squashed(name: str, logits: torch.Tensor, word: str) -> None:
    finding = found(CHECK.detect(with_phase(healthy(), "train", loss=seen(name, logits))))
    assert word in finding.summary


@pytest.mark.parametrize(
    ("given", "outputs", "stage"),
    [
        (LOGITS.sigmoid(), LOGITS.sigmoid(), None),
        (LOGITS.sigmoid(), LOGITS, "loss"),
        (LOGITS.softmax(1), LOGITS, "loss"),
        (LOGITS.softmax(1), LOGITS.softmax(1), "loss"),  # nothing is lost of it: the loss takes it for something else
    ],
)
def test_where_the_squashing_stands(given: torch.Tensor, outputs: torch.Tensor, stage: str | None) -> None:
    """Inside the model, or between it and the loss: by what the model itself gives out."""
    case = with_phase(healthy(), "train", loss=seen("cross_entropy", given))
    closing = case.run.closing
    assert closing is not None
    table = closing.rescores["val_eval"]
    own = torch.nn.functional.cross_entropy(outputs, LABELS, reduction="none").numpy()
    table = replace(table, loss=np.resize(own, len(table)))
    run = replace(case.run, closing=replace(closing, rescores={**closing.rescores, "val_eval": table}))
    assert found(CHECK.detect(Case(run))).stage == stage
    judged = judge(Case(run), [CHECK])[0]
    assert judged.check.stage == (stage or "forward") and CHECK.stage == "forward"


@pytest.mark.parametrize(
    ("name", "logits"),
    [
        ("cross_entropy", LOGITS),
        ("cross_entropy", LOGITS.log_softmax(1)),
        ("nll_loss", LOGITS.log_softmax(1)),
        ("binary_cross_entropy", LOGITS.sigmoid()),
        ("binary_cross_entropy_with_logits", LOGITS),
    ],
)
def test_sound(name: str, logits: torch.Tensor) -> None:
    assert isinstance(CHECK.detect(with_phase(healthy(), "train", loss=seen(name, logits))), Clear)


def test_few_exact_zeros_are_no_relu() -> None:
    stats = replace(loss_stats(), logit_min=0.0, zero_fraction=0.01)
    assert isinstance(CHECK.detect(with_phase(healthy(), "train", loss=stats)), Clear)


def test_missing_parts() -> None:
    assert isinstance(CHECK.detect(without(healthy(), "train")), NotApplicable)
    assert isinstance(CHECK.detect(with_phase(healthy(), "train", loss=None)), NotApplicable)

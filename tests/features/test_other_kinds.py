"""Other kinds of things than the class: which concepts count, how a picture is read, and three real wrong labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from valgap.checks.data.wrong_train_labels import CHECK
from valgap.features import Measurements, rows_of_path
from valgap.features.other_kinds import SeenOfKind, concepts, own_concepts
from valgap.types import Case, Clear

pytestmark = pytest.mark.takes(12)

FLY, BEE, ANT, DAISY, CARDOON, GOLDEN, LABRADOR = 308, 309, 310, 985, 946, 207, 208
HYMENOPTERA = Path(__file__).resolve().parents[3] / "shared" / "data" / "hymenoptera_256"
# data/README.md of the test data: a spider that mimics ants, and two hoverflies.
WRONG = {
    "train/ants/VietnameseAntMimicSpider.jpg",
    "train/bees/342758693_c56b89b6b6.jpg",
    "train/bees/586041248_3032e277a9.jpg",
}


def test_kinds_are_those_of_wordnet() -> None:
    known = concepts()
    assert [known.names[i] for i in (FLY, BEE, ANT, DAISY)] == ["fly", "bee", "ant", "daisy"]
    insects = known.of_kind(BEE)
    assert insects.sum() == 27 and insects[[FLY, BEE, ANT]].all() and not insects[[DAISY, CARDOON, GOLDEN]].any()
    assert known.of_kind(GOLDEN)[LABRADOR] and not known.of_kind(GOLDEN)[BEE]
    assert len(known.names) == len(known.kind) == 1000


def probabilities(rows: list[dict[int, float]]) -> np.ndarray:
    """(n, 1000) with these values and the rest spread thin."""
    out = np.full((len(rows), 1000), 1e-5)
    for place, row in enumerate(rows):
        for concept, value in row.items():
            out[place, concept] = value
    return out


def test_a_class_has_a_concept_of_its_own_and_others_of_its_kind() -> None:
    bees, ants = {BEE: 0.7, DAISY: 0.2}, {ANT: 0.6, FLY: 0.05}
    found = own_concepts(probabilities([bees, bees, ants, ants]), np.array([0, 0, 1, 1]))
    assert {c: concept for c, (concept, _) in found.items()} == {0: BEE, 1: ANT}
    for _, others in found.values():
        # neither the own concept nor another class's is another kind; flowers are of no such kind
        assert others[FLY] and not others[[BEE, ANT, DAISY]].any()


@pytest.mark.parametrize(
    ("rows", "labels", "classes"),
    [
        ([{BEE: 0.3}, {ANT: 0.6}], [0, 1], {1}),  # bees are called bees too seldom
        ([{BEE: 0.6}, {BEE: 0.5}], [0, 1], set()),  # two classes of bees: a matter below concepts
        ([{CARDOON: 0.9}, {ANT: 0.6}], [-1, 1], {1}),  # no label
    ],
)
def test_classes_without_a_concept_of_their_own(rows: list[dict[int, float]], labels: list[int], classes: set[int]) -> None:
    assert set(own_concepts(probabilities(rows), np.array(labels))) == classes


def test_what_a_class_is_often_called_is_no_other_kind() -> None:
    found = own_concepts(probabilities([{BEE: 0.6, FLY: 0.15}]), np.array([0]))
    assert not found[0][1][FLY]


class Given(nn.Module):
    """A network whose last map is its input."""

    def __init__(self, classifier: nn.Linear) -> None:
        super().__init__()
        self.classifier = classifier

    def depths(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (images,)


def test_a_picture_is_read_where_things_of_the_kind_are_seen() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 5, 2, 4)
    classifier = nn.Linear(5, 6)
    masks = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0]], dtype=torch.bool)
    with torch.no_grad():
        found = SeenOfKind(Given(classifier), masks)(images).reshape(3, 2, 6).double().numpy()
        called = classifier(images.permute(0, 2, 3, 1)).double().softmax(-1).numpy()
    for image in range(3):
        for kind, mask in enumerate(masks.numpy()):
            weight = called[image][..., mask].sum(-1)
            expected = sum(weight[i, j] * called[image, i, j] for i in range(2) for j in range(4)) / weight.sum()
            assert np.allclose(found[image, kind], expected, atol=1e-6)


@pytest.mark.skipif(not HYMENOPTERA.is_dir(), reason="the shared test data are not here")
def test_what_shows_another_kind_of_thing_is_called_so(tmp_path: Path) -> None:
    """The two hoverflies and the spider among six ants and twelve bees."""
    for label, count in (("ants", 6), ("bees", 12)):
        (tmp_path / "train" / label).mkdir(parents=True)
        sound = [p for p in sorted((HYMENOPTERA / "train" / label).iterdir()) if f"train/{label}/{p.name}" not in WRONG]
        for name in (*(f"train/{label}/{p.name}" for p in sound[:count]), *(w for w in WRONG if f"/{label}/" in w)):
            (tmp_path / name).symlink_to(HYMENOPTERA / name)
    images = Measurements(rows_of_path(tmp_path))
    kinds = images.other_kinds
    assert kinds is not None and np.isfinite(kinds.score).all() and kinds.score.max() <= 1
    first = [images.rows.names[i] for i in np.argsort(-kinds.score)[:5]]
    assert set(first) > WRONG
    assert kinds.name[images.rows.names.index("train/bees/586041248_3032e277a9.jpg")] == "fly"


@pytest.mark.slow
@pytest.mark.skipif(not HYMENOPTERA.is_dir(), reason="the shared test data are not here")
def test_known_wrong_labels_of_hymenoptera_are_among_the_first_ten() -> None:
    images = Measurements(rows_of_path(HYMENOPTERA))
    outcome = CHECK.detect(Case(None, images=images))  # type: ignore[arg-type]
    assert isinstance(outcome, Clear)  # three of 244 are no cause of a gap
    first = outcome.ranking[:10]
    assert {r.path for r in first} >= WRONG
    seen = {r.path: r.seen for r in first}
    assert seen["train/bees/586041248_3032e277a9.jpg"] == "fly"
    assert images.other_kinds is not None and np.nanmax(images.other_kinds.score) <= 1
    assert np.isfinite(images.other_kinds.score).sum() == 100

"""Images that show another kind of thing than their class, in the words of the network's own 1,000 ImageNet concepts.

Probes on features can only find an image that looks like *another class of the set*. A hoverfly among bees, where there is no
class of flies, looks like none; but the pretrained network has a concept for flies. Where a class of the set has a concept of
its own (images labelled "bees" are mostly called a bee), an image of it that is called something else of that kind (a fly: an
insect as well, and no flower on which bees sit) is a suspect. Kinds are WordNet's (docs/generate_kinds.py). The picture is read
off where the network sees a thing of that kind, so that flowers around it do not drown it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from torch import nn

from valgap.engine import extract
from valgap.models.lite0 import PREPROCESSING, Lite0, load_lite0
from valgap.types import FloatArray, ImageRows, IntArray, OtherKinds

Array = npt.NDArray[np.float64]
# A class has a concept of its own where its images are called that with at least this mean probability, and its concepts beside
# it with less than this share of it. Ants .53, bees .60 (next: daisy, .07); T-shirts .48 (jersey); the classes of CIFAR-10 at
# most .19, hats .05: they are of many kinds, and nothing is said of them.
OWN_PROBABILITY, BESIDE_SHARE = 0.4, 0.25
# Looked at closely: those whose features promise most, so large a share, but so few or so many images.
CLOSER_SHARE, CLOSER_FEWEST, CLOSER_MOST = 0.25, 100, 500
NO_WORDS = "classes that the pretrained network has words for"
# Pixels of the closer look: maps of 8 x 8 places.
CLOSER_SIDE = 256


@dataclass(frozen=True)
class Concepts:
    """ImageNet's concepts: K names, and the places of those that are of a concept's kind."""

    names: tuple[str, ...]
    kind: tuple[str | None, ...]  # (K,) such as "insect"; None where it is of no kind that says something
    members: dict[str, list[int]]

    def of_kind(self, concept: int) -> npt.NDArray[np.bool_]:
        """(K,) those of the concept's kind, itself among them; none where it has no kind."""
        return self.of(self.kind[concept] or "")

    def of(self, kind: str) -> npt.NDArray[np.bool_]:
        """(K,) the concepts of a kind; none of one that is not known."""
        found = np.zeros(len(self.names), bool)
        found[self.members.get(kind, [])] = True
        return found


@cache
def concepts() -> Concepts:
    """As written by docs/generate_kinds.py."""
    body = json.loads(Path(__file__).with_name("kinds.json").read_text(encoding="utf-8"))
    return Concepts(tuple(body["names"]), tuple(body["kind"]), body["members"])


def own_concepts(probabilities: FloatArray, labels: IntArray) -> dict[int, tuple[int, npt.NDArray[np.bool_]]]:
    """Of each class that has a concept of its own: (that concept, (K,) the others of its kind).

    Args:
        probabilities: (n, K) of ImageNet's concepts for training images.
        labels: (n,) their classes.
    """
    known = concepts()
    means = {int(c): np.nanmean(probabilities[labels == c], axis=0) for c in np.unique(labels[labels >= 0])}
    main = {c: int(mean.argmax()) for c, mean in means.items()}
    # What any class is often called is no other kind of thing: pants and shorts are both called jeans.
    usual = np.zeros(len(known.names), bool)
    for mean in means.values():
        usual |= mean >= BESIDE_SHARE * OWN_PROBABILITY
    found = {}
    for c, concept in main.items():
        others = known.of_kind(concept) & ~usual
        if means[c][concept] >= OWN_PROBABILITY and list(main.values()).count(concept) == 1 and others.any():
            found[c] = concept, others
    return found


class SeenOfKind(nn.Module):
    """Images (n, 3, H, W) -> (n, G * K): what they are called where something of each of G kinds is seen in them."""

    masks: torch.Tensor

    def __init__(self, network: Lite0, masks: torch.Tensor) -> None:
        """``masks`` (G, K): the concepts of each kind."""
        super().__init__()
        self.network, self.head = network, nn.Identity()
        self.register_buffer("masks", masks.float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities of the concepts at every place of the last map, averaged with the kind's own probability as weight."""
        maps = self.network.depths(images)[0].flatten(2).transpose(1, 2)
        called = self.network.classifier(maps).softmax(-1)  # (n, places, K)
        weight = called @ self.masks.T
        weight = weight / (weight.sum(1, keepdim=True) + 1e-9)
        return self.head((weight.transpose(1, 2) @ called).flatten(1))  # type: ignore[no-any-return]


def other_kinds(views: Sequence[FloatArray], rows: ImageRows, progress: Callable[[int, int], None]) -> OtherKinds | str:
    """How probably each image shows another kind of thing than its class; or why that cannot be said.

    Args:
        views: the backbone's last features (N, D) of each view of the images; nan where a file cannot be read.
        rows: which images.
        progress: told (done, total) of the closer look.
    """
    network = load_lite0()
    called = called_by(network, views)
    readable = np.isfinite(called[:, 0])
    learnt = readable & ~rows.is_val
    own = own_concepts(called[learnt], rows.labels[learnt])
    if not own:
        return NO_WORDS
    judged = np.flatnonzero(readable & np.isin(rows.labels, list(own)))
    others = np.stack([own[int(c)][1] for c in rows.labels[judged]])
    return seen_closer(network, rows, own, judged, (called[judged] * others).max(axis=1), progress)


def called_by(network: Lite0, views: Sequence[FloatArray]) -> FloatArray:
    """(n, K) probabilities of ImageNet's concepts by the last features of each view."""
    weight, bias = (p.detach().numpy() for p in (network.classifier.weight, network.classifier.bias))
    return np.asarray(np.mean([softmax(v @ weight.T + bias, axis=1) for v in views], axis=0))


def seen_closer(
    network: Lite0,
    rows: ImageRows,
    own: dict[int, tuple[int, npt.NDArray[np.bool_]]],
    judged: IntArray,
    promising: FloatArray,
    progress: Callable[[int, int], None],
) -> OtherKinds:
    """The closer look at those of the judged places that promise most, by their scores (n,)."""
    scores, names = np.full(len(rows.names), np.nan), [""] * len(rows.names)
    places = judged[_most_promising(promising)]
    others = np.stack([own[int(c)][1] for c in rows.labels[places]])
    seen = _closer_look(network, [rows.paths[i] for i in places], rows.labels[places], own, progress)
    for i, probabilities in zip(places.tolist(), seen * others, strict=True):
        scores[i] = probabilities.max()
        names[i] = concepts().names[int(probabilities.argmax())]
    return OtherKinds(scores, tuple(names))


def _most_promising(scores: FloatArray) -> IntArray:
    """The places of those that are looked at closely."""
    count = min(CLOSER_MOST, max(CLOSER_FEWEST, round(CLOSER_SHARE * len(scores))))
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _closer_look(
    network: Lite0,
    paths: list[str],
    labels: IntArray,
    own: dict[int, tuple[int, npt.NDArray[np.bool_]]],
    progress: Callable[[int, int], None],
) -> Array:
    """(n, K) what each image is called where a thing of its class's kind is seen; from the image and its mirror image."""
    kinds = sorted({concepts().kind[concept] or "" for concept, _ in own.values()})
    masks = torch.stack([torch.from_numpy(concepts().of(kind)) for kind in kinds])
    eyes = SeenOfKind(network, masks).eval().requires_grad_(False)
    square = replace(PREPROCESSING, size=CLOSER_SIDE, crop_share=1.0)
    twice = [extract(eyes, eyes.head, square, paths, view=view, progress=progress) for view in ("plain", "flipped")]
    of_kind = np.mean(twice, axis=0).reshape(len(paths), len(kinds), -1)
    mine = np.array([kinds.index(concepts().kind[own[int(c)][0]] or "") for c in labels])
    return np.asarray(of_kind[np.arange(len(paths)), mine], np.float64)

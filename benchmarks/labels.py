"""Wrong labels: valgap against cleanlab, on the same features and folds.

    python benchmarks/labels.py DATA            DATA holds cifar10n_mini (real human noise) and clothing_mini (planted noise)
    python benchmarks/labels.py DATA --rates    estimated against true noise rates on all four sets, sound ones included

Both sides get the features of the bundled backbone and the same five folds. cleanlab is given the held-out probabilities of
logistic probes at three penalties, on the embeddings and on all features that valgap judges labels by, and those of valgap's
own probes before the refits; the best of its scores is taken in each row, in hindsight.
"""

from __future__ import annotations

import csv
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from valgap.features import Measurements, rows_of_path
from valgap.features.labels import held_out_probabilities, label_errors
from valgap.features.probes import folds_of, standardised
from valgap.types import HeldOut, LabelErrors

PENALTIES = (1e-4, 1e-3, 1e-2)
RESULTS = Path(__file__).parent / "results"


def logistic_probabilities(features: np.ndarray, labels: np.ndarray, fold: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Penalty -> held-out probabilities (n, C). The features are turned into their n main directions: nothing is lost."""
    left, spread, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
    turned = left * spread
    found = {}
    for penalty in PENALTIES:
        probabilities = np.full((len(labels), classes), 1e-9)
        for number in np.unique(fold):
            inside = fold != number
            model = LogisticRegression(C=penalty, max_iter=200).fit(turned[inside], labels[inside])
            probabilities[np.ix_(~inside, model.classes_)] = model.predict_proba(turned[~inside])
        found[f"C {penalty:g}"] = probabilities
    return found


def cleanlab_scores(labels: np.ndarray, by_name: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name -> suspicion (n,), higher is more suspect, by all of cleanlab's scores of one image."""
    from cleanlab.rank import get_label_quality_scores

    methods = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
    return {
        f"{method}{', ' if name else ''}{name}": -get_label_quality_scores(labels, probabilities, method=method)
        for name, probabilities in by_name.items()
        for method in methods
    }


def row(suspicion: np.ndarray, bad: np.ndarray) -> tuple[float, str]:
    precision, recall, _ = precision_recall_curve(bad, suspicion)
    best_f1 = float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-9)))
    value = average_precision_score(bad, suspicion)
    return value, f"{value:.3f} | {roc_auc_score(bad, suspicion):.3f} | {best_f1:.3f}"


def judged(images: Measurements, labels: np.ndarray) -> tuple[LabelErrors, np.ndarray, np.ndarray]:
    """(what valgap says under these training labels, its folds (N,), all labels (N,))."""
    rows = images.rows
    train = rows.part(False)
    all_labels = rows.labels.copy()
    all_labels[train] = labels
    fold = np.full(len(rows.names), -1)
    fold[train] = folds_of(labels)
    answers = np.zeros(len(rows.names), np.int64)
    held = HeldOut(answers, np.zeros(len(rows.names), bool), fold, 0.0, float("nan"))
    return label_errors(images.views, replace(rows, labels=all_labels), held), fold, all_labels


def compare(name: str, images: Measurements, labels: np.ndarray, bad: np.ndarray) -> list[str]:
    train, classes = images.rows.part(False), len(images.rows.classes)
    _ = images.views  # the time below is the probes' own
    started = time.perf_counter()
    errors, fold, all_labels = judged(images, labels)
    seconds = time.perf_counter() - started
    ours_value, ours = row(errors.wrong[train], bad)
    first = held_out_probabilities(images.views, all_labels, classes, fold, np.array([], np.int64), refits=0)[train]
    every = np.concatenate([standardised(b, train)[train][:, :-1] for v in images.views for b in v], axis=1)
    plain = standardised(images.embeddings, train)[train][:, :-1]
    given = {
        "logistic on the embeddings": logistic_probabilities(plain, labels, fold[train], classes),
        "logistic on all our features": logistic_probabilities(every, labels, fold[train], classes),
        "our probes without refits": {"": first},
    }
    rate = f"{errors.train_rate:.3f} ({100 * (errors.train_rate - bad.mean()):+.1f} points)"
    lines = [f"| {name} | {bad.mean():.3f} | **valgap**, {seconds:.0f} s | {ours} | | {rate} |"]
    for what, probabilities in given.items():
        theirs = cleanlab_scores(labels, probabilities)
        best = max(theirs, key=lambda k: average_precision_score(bad, theirs[k]))
        value, others = row(theirs[best], bad)
        lines.append(f"| | | cleanlab, {what}: {best} | {others} | {ours_value - value:+.3f} | |")
    return lines


def planted(sound: np.ndarray, classes: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels, which of them are wrong): that share moved to any other class."""
    rng = np.random.default_rng(seed)
    bad = rng.random(len(sound)) < share
    return np.where(bad, (sound + rng.integers(1, classes, len(sound))) % classes, sound), bad


def human_labels(data: Path, images: Measurements, levels: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(level, labels, which of them are wrong) of the people who labelled CIFAR-10."""
    with (data / "cifar10n_mini" / "human_labels.csv").open() as stream:
        human = {r["file"]: r for r in csv.DictReader(stream)}
    train = [human[images.rows.names[i]] for i in images.rows.part(False)]
    index = {c: i for i, c in enumerate(images.rows.classes)}
    clean = np.array([index[r["clean"]] for r in train])
    for level in levels:
        labels = np.array([index[r[level]] for r in train])
        yield level, labels, labels != clean


def rates(data: Path) -> None:
    """Print and keep the estimated rates under known ones: what the constants of features/noise.py and DAT104/105 rest on."""
    lines = [
        "| set | planted | wrong | estimate | 90 % interval | off, points | sound val, estimate |",
        "|---|---|---|---|---|---|---|",
    ]
    misses = count = 0
    for name in ("cifar10n_mini", "clothing_mini", "hymenoptera_256", "sign_digits_mini"):
        images = Measurements(rows_of_path(data / name))
        sound, classes = images.rows.labels[images.rows.part(False)], len(images.rows.classes)
        cases = [("none", sound, np.zeros(len(sound), bool))]
        cases += [(f"{s:.0%}, draw {k}", *planted(sound, classes, s, k)) for s in (0.05, 0.1, 0.2, 0.3) for k in range(3)]
        if name == "cifar10n_mini":
            cases = (
                cases[:1] + cases[1::3] + list(human_labels(data, images, ("aggre", "random1", "random2", "random3", "worse")))
            )
        for what, labels, bad in cases:
            errors = judged(images, labels)[0]
            low, high = errors.train_interval
            off = 100 * (errors.train_rate - bad.mean())
            misses, count = misses + (not low <= bad.mean() <= high), count + 1
            estimate = f"{errors.train_rate:.3f} | {low:.3f} .. {high:.3f} | {off:+.1f} | {errors.val_rate:.3f}"
            lines.append(f"| {name} | {what} | {bad.mean():.3f} | {estimate} |")
            print(lines[-1], flush=True)
    text = f"\n{count - misses} of {count} intervals hold the true share.\n"
    (RESULTS / "labels_rates.md").write_text(
        "# Estimated shares of wrong labels\n\n`python benchmarks/labels.py DATA --rates`\n\n" + "\n".join(lines) + "\n" + text
    )
    print(text)


def hymenoptera(data: Path) -> list[str]:
    """The first training images of the ranking of DAT104, and where the three known wrong labels stand in it."""
    from valgap.checks.data.wrong_train_labels import CHECK
    from valgap.types import Case

    outcome = CHECK.detect(Case(None, images=Measurements(rows_of_path(data / "hymenoptera_256"))))  # type: ignore[arg-type]
    places = {Path(r.path).name: n for n, r in enumerate(outcome.ranking, 1)}  # type: ignore[union-attr]
    lines = ["", f"Known wrong labels of hymenoptera_256: ranks {sorted(places[name] for name in KNOWN_WRONG)} of {len(places)}."]
    lines += ["", "| rank | image | given | likely | looks like | score |", "|---|---|---|---|---|---|"]
    for n, r in enumerate(outcome.ranking[:12], 1):  # type: ignore[union-attr]
        known = " (known)" if Path(r.path).name in KNOWN_WRONG else ""
        lines.append(f"| {n} | {r.path}{known} | {r.given} | {r.likely or ''} | {r.seen or ''} | {r.score:.2f} |")
    return lines


def main() -> None:
    warnings.simplefilter("ignore")
    data = Path(sys.argv[1])
    if "--rates" in sys.argv:
        return rates(data)
    lines = [
        "| labels | wrong | who | average precision | AUROC | best F1 | valgap ahead by | estimated rate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    cifar = Measurements(rows_of_path(data / "cifar10n_mini"))
    for level, labels, bad in human_labels(data, cifar, ("worse", "aggre")):
        lines += compare(f"CIFAR-10N {level}, 2,000 images", cifar, labels, bad)
        print("\n".join(lines[-4:]), flush=True)
    clothing = Measurements(rows_of_path(data / "clothing_mini"))
    sound = clothing.rows.labels[clothing.rows.part(False)]
    for share in (0.1, 0.2):
        labels, bad = planted(sound, 10, share, 0)
        lines += compare(f"clothing_mini, {share:.0%} planted, 500 images", clothing, labels, bad)
        print("\n".join(lines[-4:]), flush=True)
    (RESULTS / "labels.md").write_text(
        f"# Wrong labels\n\n`make bench-labels DATA=FOLDER`: {__doc__.split(chr(10))[0]}\n\n"
        + "\n".join(lines)
        + "\n\n"
        + NOTE
        + "\n".join(hymenoptera(data))
        + "\n"
    )


# ../shared/data/README.md, found by people who looked at all images.
KNOWN_WRONG = ("VietnameseAntMimicSpider.jpg", "342758693_c56b89b6b6.jpg", "586041248_3032e277a9.jpg")
# What the table shows, in words; the rows say the rest.
NOTE = """\
The first cleanlab row of each set is what it gives on the features that valgap used to judge labels by: the bar of +.05 average
precision is met there on all four. Given all features that valgap now uses (two views at three depths), cleanlab gains .02 to
.04 itself, and valgap is ahead by .04 to .05: the bar is met on aggre and missed by up to .014 on the other three. The last row
is cleanlab's score on valgap's own probabilities before labels are softened. Its self_confidence on the final ones is valgap's
ranking.

The three known wrong labels of hymenoptera_256, hoverflies among bees and a spider that mimics ants, look like none of the
other class: by the probes alone they rank 40th, 91st and 190th of 244. What the pretrained network calls them (fly,
long-horned beetle, dragonfly: features/other_kinds.py, chosen while looking at these three) brings them to the ranks below.

`labels_rates.md` holds estimated against true rates on all four sets. With two classes and 244 images a rate of 20 % or more is
uncertain by 8 to 13 points, and its interval says so.
"""

if __name__ == "__main__":
    main()

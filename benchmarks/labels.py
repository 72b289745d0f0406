"""Wrong labels: valgap against cleanlab, on the same features and folds.

    python benchmarks/labels.py DATA        DATA holds cifar10n_mini (real human noise) and clothing_mini (planted noise)

Both sides get the features of the bundled backbone and the same five folds. cleanlab is given held-out probabilities of
logistic probes at three penalties; the best of its scores is taken in each row, in hindsight.
"""

from __future__ import annotations

import csv
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from valgap.features import Measurements, rows_of_path
from valgap.features.labels import label_errors
from valgap.features.probes import folds_of, standardised
from valgap.types import HeldOut

PENALTIES = (1e-4, 1e-3, 1e-2)
RESULTS = Path(__file__).parent / "results" / "labels.md"


def cleanlab_scores(features: np.ndarray, labels: np.ndarray, fold: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Name -> suspicion (n,), higher is more suspect."""
    from cleanlab.rank import get_label_quality_scores

    found = {}
    for penalty in PENALTIES:
        probabilities = np.full((len(labels), classes), 1e-9)
        for number in np.unique(fold):
            inside = fold != number
            model = LogisticRegression(C=penalty, max_iter=200).fit(features[inside], labels[inside])
            probabilities[np.ix_(~inside, model.classes_)] = model.predict_proba(features[~inside])
        for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
            found[f"{method}, C {penalty:g}"] = -get_label_quality_scores(labels, probabilities, method=method)
    return found


def row(name: str, suspicion: np.ndarray, bad: np.ndarray) -> tuple[float, str]:
    precision, recall, _ = precision_recall_curve(bad, suspicion)
    best_f1 = float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-9)))
    value = average_precision_score(bad, suspicion)
    return value, f"{name} | {value:.3f} | {roc_auc_score(bad, suspicion):.3f} | {best_f1:.3f}"


def compare(name: str, images: Measurements, labels: np.ndarray, bad: np.ndarray) -> list[str]:
    rows = images.rows
    train = rows.part(False)
    all_labels = rows.labels.copy()
    all_labels[train] = labels
    fold = np.full(len(rows.names), -1)
    fold[train] = folds_of(labels)
    none = np.full((len(rows.names), len(rows.classes)), 1 / len(rows.classes))
    held = HeldOut(none, np.zeros(len(rows.names), bool), fold, 0.0, float("nan"))
    errors = label_errors(images.embeddings, replace(rows, labels=all_labels), held)
    features = standardised(images.embeddings, train)[train][:, :-1]
    theirs = cleanlab_scores(features, labels, fold[train], len(rows.classes))
    best = max(theirs, key=lambda k: average_precision_score(bad, theirs[k]))
    ours_value, ours = row("valgap", errors.wrong[train], bad)
    best_value, others = row(f"cleanlab, best: {best}", theirs[best], bad)
    rate = f"{errors.train_rate:.3f} ({100 * (errors.train_rate - bad.mean()):+.1f} points)"
    return [
        f"| {name} | {bad.mean():.3f} | {ours} | {rate} |",
        f"| | | {others} | |",
        f"| | | difference | {ours_value - best_value:+.3f} | | | |",
    ]


def main() -> None:
    warnings.simplefilter("ignore")
    data = Path(sys.argv[1])
    lines = ["| labels | wrong | who | average precision | AUROC | best F1 | estimated rate |", "|---|---|---|---|---|---|---|"]
    cifar = Measurements(rows_of_path(data / "cifar10n_mini"))
    with (data / "cifar10n_mini" / "human_labels.csv").open() as stream:
        human = {r["file"]: r for r in csv.DictReader(stream)}
    train = [human[cifar.rows.names[i]] for i in cifar.rows.part(False)]
    index = {c: i for i, c in enumerate(cifar.rows.classes)}
    clean = np.array([index[r["clean"]] for r in train])
    for level in ("worse", "aggre"):
        labels = np.array([index[r[level]] for r in train])
        lines += compare(f"CIFAR-10N {level}, 2,000 images", cifar, labels, labels != clean)
        print("\n".join(lines[-3:]), flush=True)
    clothing = Measurements(rows_of_path(data / "clothing_mini"))
    sound = clothing.rows.labels[clothing.rows.part(False)]
    for share in (0.1, 0.2):
        rng = np.random.default_rng(0)
        bad = rng.random(len(sound)) < share
        labels = np.where(bad, (sound + rng.integers(1, 10, len(sound))) % 10, sound)
        lines += compare(f"clothing_mini, {share:.0%} planted, 500 images", clothing, labels, bad)
        print("\n".join(lines[-3:]), flush=True)
    RESULTS.write_text(
        f"# Wrong labels\n\n`make bench-labels DATA=FOLDER`: {__doc__.split(chr(10))[0]}\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()

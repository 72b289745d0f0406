"""Few images of each class: the probe of `valgap train` against other heads on the same frozen features.

python benchmarks/few_shot.py FOLDER_WITH_THE_DATA_SETS [--draws 10]

Of each class 1, 2, 5, 10 or 20 training images are drawn; all of val is answered. EfficientNet-Lite0 at 224 px, features made
once. Every head sees the same images. Loss is of the probabilities as each head states them; the nearest mean and ridge state
none of their own, so that theirs are at the temperature that suits val best, which flatters them. Writes results/few_shot.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegressionCV, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from valgap.data import load_folder
from valgap.engine import extract
from valgap.models import create_model
from valgap.recipe import RECIPE
from valgap.training.probe import fit_probe
from valgap.training.scores import fit_temperature, nll

SETS = ("clothing_mini", "hymenoptera_256", "sign_digits_mini", "cifar10n_mini")
SHOTS = (1, 2, 5, 10, 20)
MOST_VAL = 1_200
TABLE = Path(__file__).resolve().parent / "results" / "few_shot.md"
Array = np.ndarray
Head = Callable[[Array, Array, int, Array], tuple[Array, bool]]  # train, labels, classes, val -> (logits, states its own loss)

INTRODUCTION = """# Few images of each class

`make bench-few-shot DATA=FOLDER`. Heads on the same frozen features (EfficientNet-Lite0, 224 px); mean over draws: accuracy
on all of val in per cent, and loss in nats. (*): at the temperature that suits val best, since that head states none.
The best of each row is bold; `lead`: points by which valgap's probe is ahead of the best other head, with the standard error of
the paired difference.
"""


def ours(train: Array, labels: Array, classes: int, val: Array) -> tuple[Array, bool]:
    """The probe, as sure as it says it is."""
    return fit_probe(train, labels, classes, RECIPE, 0).logits(val), True


def logistic(train: Array, labels: Array, classes: int, val: Array) -> tuple[Array, bool]:
    """What a notebook does: scikit-learn's, standardised, its penalty by cross-validation where there are images for it."""
    folds = min(5, int(np.bincount(labels).min()))
    if folds < 2:
        from sklearn.linear_model import LogisticRegression

        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    else:
        model = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=[1e-4, 1e-3, 1e-2, 1e-1, 1.0], cv=folds, max_iter=300))
    return np.log(np.maximum(model.fit(train, labels).predict_proba(val), 1e-12)), True


def nearest_mean(train: Array, labels: Array, classes: int, val: Array) -> tuple[Array, bool]:
    """Cosine to the mean of each class, all features centred: Snell et al. 2017; Wang et al. 2019, "SimpleShot"."""
    centre = train.mean(0)
    means = np.stack([train[labels == c].mean(0) for c in range(classes)]) - centre
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    asked = val - centre
    return 10 * (asked / np.linalg.norm(asked, axis=1, keepdims=True)) @ means.T, False


def ridge(train: Array, labels: Array, classes: int, val: Array) -> tuple[Array, bool]:
    """Regression to the classes, standardised."""
    found = make_pipeline(StandardScaler(), RidgeClassifier(alpha=train.shape[1])).fit(train, labels).decision_function(val)
    return (np.column_stack([-found, found]) if found.ndim == 1 else found) * 5, False


def discriminant(train: Array, labels: Array, classes: int, val: Array) -> tuple[Array, bool]:
    """Linear discriminant analysis, its covariance shrunk by Ledoit and Wolf, in the space that the images span."""
    if np.bincount(labels).min() < 2:
        return nearest_mean(train, labels, classes, val)
    centre = train.mean(0)
    _, size, directions = np.linalg.svd(train - centre, full_matrices=False)
    turn = directions[size > 1e-6 * size[0]].T
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit((train - centre) @ turn, labels)
    return np.log(np.maximum(model.predict_proba((val - centre) @ turn), 1e-12)), True


HEADS: dict[str, Head] = {
    "valgap's probe": ours,
    "logistic, standardised": logistic,
    "nearest mean": nearest_mean,
    "ridge": ridge,
    "shrunk LDA": discriminant,
}


def features(folder: Path) -> tuple[Array, Array, Array, Array]:
    """(train (N, D), its labels, val (M, D), its labels)."""
    table = load_folder(folder, 0)
    loaded = create_model("efficientnet_lite0", len(table.classes))
    found = []
    for val in (False, True):
        paths, labels = table.part(val=val)
        some = np.sort(np.random.default_rng(0).permutation(len(paths))[: MOST_VAL if val else None])
        rows = extract(loaded.model.eval(), loaded.head, loaded.preprocessing, [paths[i] for i in some])
        found += [np.array(rows), labels[some]]
    return found[0], found[1], found[2], found[3]


def row(name: str, data: tuple[Array, Array, Array, Array], shots: int, draws: int) -> str:
    """A line of the table."""
    train, labels, val, target = data
    classes = int(labels.max()) + 1
    accuracy: dict[str, list[float]] = {head: [] for head in HEADS}
    loss: dict[str, list[float]] = {head: [] for head in HEADS}
    stated = dict.fromkeys(HEADS, True)
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(labels))
        part = np.concatenate([order[labels[order] == c][:shots] for c in range(classes)])
        for head, fit in HEADS.items():
            logits, stated[head] = fit(train[part], labels[part], classes, val)
            accuracy[head].append(100 * float((logits.argmax(1) == target).mean()))
            loss[head].append(nll(logits if stated[head] else logits / fit_temperature(logits, target), target))
    means = {head: (float(np.mean(accuracy[head])), float(np.mean(loss[head]))) for head in HEADS}
    best = max(m[0] for m in means.values()), min(m[1] for m in means.values())
    cells = []
    for head, (right, nats) in means.items():
        shown = f"{right:.1f}" if right < best[0] else f"**{right:.1f}**"
        cells.append(f"{shown} / {f'{nats:.2f}' if nats > best[1] else f'**{nats:.2f}**'}{'' if stated[head] else '*'}")
    first = next(iter(HEADS))
    other = max((h for h in HEADS if h != first), key=lambda h: means[h][0])
    lead = np.array(accuracy[first]) - np.array(accuracy[other])
    error = float(lead.std(ddof=1) / np.sqrt(len(lead))) if len(lead) > 1 else float("nan")
    return f"| {name} | {shots} | {' | '.join(cells)} | {lead.mean():+.1f} +- {error:.1f} |"


def main() -> None:
    """Every set and number of images, and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--draws", type=int, default=10)
    args = parser.parse_args()
    lines = [INTRODUCTION, f"| set | images a class | {' | '.join(HEADS)} | lead |", "|---" * (len(HEADS) + 3) + "|"]
    for name in SETS:
        data = features(args.data / name)
        for shots in SHOTS:
            if np.bincount(data[1]).min() >= shots:
                lines.append(row(name, data, shots, args.draws))
                print(lines[-1], flush=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What the words beside a number say: which metric, of which images, of which kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

TRAIN = {"train", "tr", "training", "trn", "trainset"}
VAL = {
    "val",
    "valid",
    "validation",
    "validate",
    "validating",
    "eval",
    "evaluation",
    "evaluating",
    "evaluate",
    "dev",
    "holdout",
    "heldout",
}
TEST = {"test", "testing", "tst", "testset"}
ACCURACY = {"acc", "accuracy", "accuracies", "accu"}
WITH_K = {"prec", "precision", "top", "hit", "hits", "recall"}  # an accuracy only with a k: "prec@1", "top5"
LOSS = {"loss", "losses", "nll", "xent", "crossentropy", "cost"}
# Words that make another quantity of what stands beside them.
OTHER = {
    "f1", "auc", "auroc", "map", "balanced", "macro", "micro", "weighted", "error", "err", "errors", "gap", "diff",
    "difference", "delta", "improvement", "change", "target", "threshold", "goal", "patience", "chance", "baseline",
    "majority", "random", "std", "weight", "weights", "smoothing", "scale", "ratio", "split", "size", "count", "num",
    "number", "time", "lr", "rate", "iou", "dice", "miou", "macc", "pixel", "source", "noise", "noisy", "adv", "adversarial",
    "robust", "pgd", "fgsm", "corrupted", "kappa", "confidence", "stop", "min", "minimum", "lowest", "median", "var",
    "variance", "ci", "norm", "grad", "decay", "momentum",
}  # fmt: skip
BEST = {"best", "max", "maximum", "highest", "peak", "improved", "improve", "previous", "prev", "record"}
MODEL = {
    "ema",
    "teacher",
    "swa",
    "averaged",
    "shadow",
    "polyak",
    "ensemble",
    "tta",
    "knn",
    "linear",
    "probe",
    "swag",
    "lookahead",
    "head",
    "aux",
    "auxiliary",
}
AVERAGE = {"avg", "average", "mean", "aver"}
RUNNING = {"running", "batch", "step", "iter", "current", "cur", "smoothed"}
CLASS = {"class", "classwise", "perclass", "cls"}
COUNTED = {
    "images", "image", "samples", "sample", "examples", "epochs", "classes", "batches", "steps", "iterations", "files",
    "pictures", "points", "parameters", "params", "workers", "seconds", "minutes", "hours", "ms", "sec", "secs", "s", "times",
    "folds", "runs", "mb", "gb", "kb", "mib", "gib",
}  # fmt: skip
INDEXED = {
    "epoch", "epochs", "ep", "step", "iter", "iteration", "batch", "fold", "class", "stage", "layer", "run", "seed", "trial",
    "rank", "gpu", "device", "round", "label", "head", "level", "task", "crop", "worker", "it", "global_step", "dataloader",
}  # fmt: skip
# Words after "accuracy of" that name no class.
WHOLE = {
    "the", "a", "an", "our", "this", "its", "network", "net", "model", "classifier", "on", "in", "at", "for", "of", "all",
    "overall", "total", "set", "data", "dataset", "split", "is", "was", "are", "with", "and", "over", "after", "using",
    "best", "final", "epoch", "whole", "full", "new", "fold", "rate", "score", "percent",
}  # fmt: skip
# "acc.2": the second of several.
NUMBERED = re.compile(r"[A-Za-z]\.\d+$")
PARTS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|@")


@dataclass(frozen=True)
class Meaning:
    """What a label says. ``metric`` is "" where it names none, "other" where it names another one or several."""

    metric: str = ""
    k: int = 1
    side: str = ""
    kind: str = ""


NOTHING = Meaning()


@lru_cache(maxsize=8192)
def parts_of(word: str) -> tuple[str, ...]:
    """The words in an identifier, lower case: "eval/accuracy_top1" -> eval, accuracy, top, 1."""
    if word.lower() in MODEL or word.lower() in OTHER:
        return (word.lower(),)
    return tuple(_joined([m.lower() for m in PARTS.findall(word)]))


def _joined(parts: list[str]) -> list[str]:
    out: list[str] = []
    for part in parts:
        if part == "1" and out and out[-1] == "f":
            out[-1] = "f1"
        else:
            out.append(part)
    return out


def meaning_of(words: Sequence[str]) -> Meaning:
    """What the words before (or after) a number say together."""
    return _meaning(tuple(words)) if words else NOTHING


@lru_cache(maxsize=8192)
def _meaning(words: tuple[str, ...]) -> Meaning:
    parts = [p for word in words for p in parts_of(word)]
    metric, k = _metric(parts)
    if metric and any(NUMBERED.search(word) for word in words):
        metric = "other"
    return Meaning(metric, k, side_of(parts), _kind(parts, metric))


def side_of(parts: Sequence[str]) -> str:
    """Whose images: "train", "val", "test", or "" where it is not said."""
    seen = set(parts)
    return "train" if seen & TRAIN else "val" if seen & VAL else "test" if seen & TEST else ""


def _metric(parts: list[str]) -> tuple[str, int]:
    found: set[tuple[str, int]] = set()
    for i, part in enumerate(parts):
        k = _k_after(parts, i)
        if part in ACCURACY:
            # "top-1 accuracy", "accuracy/top1": one metric, named by both words.
            if k is not None or not any(p in WITH_K and _k_after(parts, j) is not None for j, p in enumerate(parts)):
                found.add(("accuracy", k if k is not None else 1))
        elif part in WITH_K:
            if k is not None:
                found.add(("accuracy", k))
            elif part != "top":
                found.add(("other", 1))
        elif part in LOSS or (part == "entropy" and "cross" in parts):
            found.add(("loss", 1))
    if not found:
        return "", 1
    if len(found) > 1 or set(parts) & OTHER or (set(parts) & AVERAGE and set(parts) & CLASS):
        return "other", 1
    metric, k = found.pop()
    return (metric, 1) if metric != "accuracy" or k == 1 else ("top_k", k)


def _k_after(parts: list[str], i: int) -> int | None:
    """The k right after a word: "@5", "5", "01"."""
    rest = parts[i + 1 : i + 3]
    if rest and rest[0] == "@":
        rest = rest[1:]
    return int(rest[0]) if rest and rest[0].isdigit() and len(rest[0]) <= 3 and int(rest[0]) > 0 else None


def _kind(parts: list[str], metric: str) -> str:
    seen = set(parts)
    if seen & MODEL:
        return "model"
    if seen & BEST:
        return "best"
    if seen & {"overall"}:
        return ""
    if seen & CLASS or (metric == "accuracy" and _names_a_class(parts)):
        return "class"
    if seen & AVERAGE:
        return "average"
    return "running" if seen & RUNNING else ""


def _names_a_class(parts: list[str]) -> bool:
    """ "accuracy of plane": a noun after "of" or "for" that is none of the words for the whole."""
    place = next((i for i, p in enumerate(parts) if p in ACCURACY), len(parts))
    rest = parts[place + 1 :]
    if not rest or rest[0] not in ("of", "for"):
        return False
    return not all(p in WHOLE | TRAIN | VAL | TEST | COUNTED or p.isdigit() for p in rest[1:])

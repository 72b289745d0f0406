"""EVA503 on what programs of many kinds print: sound programs are left alone, the same ones with a wrong formula are not."""

# ruff: noqa: E501
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.checks.cases import EPOCHS, TRAIN, healthy, samples, train_pass, val_pass
from valgap.checks.evaluation.miscomputed_metric import CHECK
from valgap.record.printed import Spoken, numbers_of
from valgap.types import Case, Clear, Finding, Pass

COUNT, SIZE, RUNS = 90, 16, 3
# Right answers of the full batches (of 80 images) and of the last, smaller one (of 10), epoch by epoch.
RIGHT = ((45, 2), (55, 4), (61, 5))
LAST_RIGHT = 10


@dataclass(frozen=True)
class Shown:
    """The figures of one epoch, as shares."""

    epoch: int
    acc: float
    top5: float = 0.9611
    loss: float = 0.8123
    train: float = 0.6543
    train_loss: float = 0.9331
    best: float = 0.0


def validation(index: int, epoch: int, right: tuple[int, int]) -> Pass:
    """90 images in batches of 16, the last one of 10 and worse than the others."""
    table = replace(samples(np.arange(TRAIN, TRAIN + COUNT), 1.0), batch=np.arange(COUNT, dtype=np.int32) // SIZE)
    for first, size, good in ((0, 80, right[0]), (80, 10, right[1])):
        wrong = np.random.default_rng(index).permutation(size)[good:] + first
        table.prediction[wrong] = (table.target[wrong] + 1) % 4
    return val_pass(index, epoch, np.arange(TRAIN, TRAIN + COUNT), samples=table)


def case_of(extra_pass: Callable[[int], Pass] | None = None) -> Case:
    """Epochs of training and validation (and another pass behind each, where asked)."""
    passes: list[Pass] = []
    for epoch, right in enumerate(RIGHT):
        passes.append(train_pass(len(passes), epoch, np.arange(TRAIN)))
        passes.append(validation(len(passes), epoch + 1, right))
        if extra_pass is not None:
            passes.append(extra_pass(len(passes)))
    case = healthy(passes=tuple(passes), states=())
    loaders = {**case.run.loaders, 1: replace(case.run.loaders[1], batch_size=SIZE, length=6)}
    return Case(replace(case.run, loaders=loaders))


def true_accuracy(one: Pass) -> float:
    return one.samples.accuracy


def batch_means(one: Pass) -> float:
    batch = one.samples.batch
    right = one.samples.prediction == one.samples.target
    return float(np.mean([right[batch == b].mean() for b in np.unique(batch)]))


def padded(one: Pass) -> float:
    return float((one.samples.prediction == one.samples.target).sum() / (6 * SIZE))


def of_train(one: Pass) -> float:
    return float((one.samples.prediction == one.samples.target).sum() / TRAIN)


FORMULAS = {"batch means": batch_means, "batch size": padded, "training set": of_train}


def outcome(case: Case, write: Callable[[Shown], str], formula: Callable[[Pass], float], after: int = 0) -> object:
    """What EVA503 says of a program that prints ``write`` after each validation (``after`` passes later)."""
    best, spoken = 0.0, []
    for one in case.run.of_phase("validation"):
        if one.dataset != 1 or one.model != 0:
            continue
        best = max(best, one.samples.accuracy)
        train = case.run.passes[one.index - 1].samples.accuracy
        text = write(Shown(one.epoch, formula(one), best=best, train=train))
        spoken += [Spoken(line, one.index + after) for line in text.split("\n")]
    return CHECK.detect(Case(replace(case.run, printed=numbers_of(spoken))))


def p(value: float, digits: int = 3) -> str:
    return f"{100 * value:.{digits}f}"


FORMATS: dict[str, Callable[[Shown], str]] = {
    "timm": lambda s: f"Test: [   4/4]  Time: 0.131 (0.217)  Loss:   {s.loss:6.4f} ({s.loss:6.4f})  Acc@1: {20.0:7.3f} ({p(s.acc):>7})  Acc@5: {100.0:7.3f} ({p(s.top5):>7})",
    "torchvision meter": lambda s: f"Test:   [4/5]  eta: 0:00:00  loss: 1.1 (1.2)  acc1: 20.0000 ({p(s.acc, 4)})  acc5: 99.0000 ({p(s.top5, 4)})  time: 0.4410  data: 0.3001  max mem: 311",
    "torchvision end": lambda s: f"Test: Total time: 0:00:01\nTest:  Acc@1 {p(s.acc)} Acc@5 {p(s.top5)}",
    "imagenet meter": lambda s: f"Test: [4/5]\tTime  0.101 ( 0.140)\tLoss 1.0312e+00 (1.2207e+00)\tAcc@1  20.00 ( {p(s.acc, 2)})\tAcc@5 100.00 ( {p(s.top5, 2)})",
    "imagenet end": lambda s: f" *   Acc@1 {p(s.acc)} Acc@5 {p(s.top5)}",
    "deit": lambda s: f'{{"train_lr": 0.0005, "train_loss": {s.train_loss}, "test_loss": {s.loss}, "test_acc1": {p(s.acc, 4)}, "test_acc5": {p(s.top5)}, "epoch": {s.epoch}, "n_parameters": 5717416}}',
    "transfer tutorial": lambda s: f"Epoch {s.epoch}/24\n----------\ntrain Loss: {s.train_loss:.4f} Acc: {s.train:.4f}\nval Loss: {s.loss:.4f} Acc: {s.acc:.4f}",
    "cifar10 tutorial": lambda s: f"Accuracy of the network on the 90 test images: {p(s.acc, 1)} %",
    "tqdm postfix": lambda s: f"val: 100%|██████████| 5/5 [00:01<00:00,  4.21it/s, loss={s.loss:.4f}, acc={s.acc:.4f}]",
    "tqdm words": lambda s: f"Testing: Acc: {p(s.acc, 2)}% Loss: {s.loss:.4f}: 100%|██████████| 5/5 [00:03<00:00,  2.10it/s]",
    "bar with counts": lambda s: f" [=========================>]  Step: 41ms | Tot: 2s115ms | Loss: {s.loss:.3f} | Acc: {p(s.acc)}% ({round(90 * s.acc)}/90) 5/5 ",
    "keras": lambda s: f"\x1b[1m10/10\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m\x1b[37m\x1b[0m \x1b[1m1s\x1b[0m 103ms/step - accuracy: {s.train:.4f} - loss: {s.train_loss:.4f} - val_accuracy: {s.acc:.4f} - val_loss: {s.loss:.4f}",
    "lightning bar": lambda s: f"Epoch {s.epoch}: 100%|██████████| 10/10 [00:01<00:00,  5.20it/s, v_num=3, train_loss={s.train_loss:.4f}, val_loss={s.loss:.4f}, val_acc={s.acc:.4f}]",
    "lightning table": lambda s: f"────────────────────────\n     Validate metric           DataLoader 0\n────────────────────────\n        val_acc            {s.acc!r}\n        val_loss           {s.loss!r}",
    "rich": lambda s: f"┏━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━━┓\n┃ Epoch ┃ train loss ┃ val acc (%) ┃\n┡━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━━┩\n│ {s.epoch}     │ {s.train_loss:.2f}       │ {p(s.acc, 2)}        │",
    "fastai": lambda s: f"epoch     train_loss  valid_loss  accuracy  time    \n{s.epoch}         {s.train_loss:.6f}    {s.loss:.6f}    {s.acc:.6f}  00:02     ",
    "skorch": lambda s: f"  epoch    train_loss    valid_acc    valid_loss     dur\n-------  ------------  -----------  ------------  ------\n      {s.epoch}        \x1b[36m{s.train_loss:.4f}\x1b[0m       \x1b[32m{s.acc:.4f}\x1b[0m        {s.loss:.4f}  0.9124",
    "ultralytics": lambda s: f"               classes   top1_acc   top5_acc: 100%|██████████| 2/2 [00:00<00:00,  4.11it/s]\n                   all     {s.acc:.4f}          1",
    "markdown": lambda s: f"| Epoch | Train Loss | Train Acc | Val Loss | Val Acc |\n|-------|-----------:|----------:|---------:|--------:|\n| {s.epoch}     |     {s.train_loss:.4f} |    {p(s.train, 2)}% |   {s.loss:.4f} |  {p(s.acc, 2)}% |",
    "csv": lambda s: f"epoch,train_loss,train_acc,val_loss,val_acc,lr\n{s.epoch},{s.train_loss:.4f},{s.train:.4f},{s.loss:.4f},{s.acc:.4f},0.001",
    "transformers": lambda s: f"{{'eval_loss': {s.loss}, 'eval_accuracy': {s.acc!r}, 'eval_runtime': 1.2031, 'eval_samples_per_second': 39.9, 'epoch': {s.epoch}.0}}",
    "transformers metrics": lambda s: f"***** eval metrics *****\n  epoch                   =        3.0\n  eval_accuracy           =     {s.acc:.4f}\n  eval_loss               =     {s.loss:.4f}\n  eval_runtime            = 0:00:01.20",
    "accelerate": lambda s: f"03/02/2026 11:04:21 - INFO - __main__ - epoch {s.epoch}: {{'accuracy': {s.acc!r}}}",
    "ignite": lambda s: f"2026-03-02 11:04:22,001 CIFAR10-Training INFO: Epoch[{s.epoch}] - Evaluation time (seconds): 0.41 - Test metrics:\n\tAccuracy: {s.acc:.4f}\n\tLoss: {s.loss:.4f}",
    "mmpretrain": lambda s: f"03/02 11:04:22 - mmengine - INFO - Epoch(val) [{s.epoch}][5/5]    accuracy/top1: {p(s.acc, 4)}  accuracy/top5: {p(s.top5, 4)}  data_time: 0.1120  time: 0.2011",
    "logging": lambda s: f"INFO:root:epoch {s.epoch} validation accuracy {s.acc:.4f} lr 0.00100",
    "loguru": lambda s: f"2026-03-02 11:04:22.001 | INFO     | __main__:train:45 - accuracy: {s.acc:.4f} loss: {s.loss:.4f}",
    "wandb": lambda s: f"wandb:    train/acc {s.train:.5f}\nwandb:      val/acc {s.acc:.5f}",
    "nested json": lambda s: f'{{"epoch": {s.epoch}, "train": {{"loss": {s.train_loss}, "acc": {s.train}}}, "val": {{"loss": {s.loss}, "acc": {s.acc}}}}}',
    "two lines": lambda s: f"Epoch: {s.epoch:02} | Epoch Time: 0m 5s\n\tTrain Loss: {s.train_loss:.3f} | Train Acc: {p(s.train, 2)}%\n\t Val. Loss: {s.loss:.3f} |  Val. Acc: {p(s.acc, 2)}%",
    "d2l": lambda s: f"loss {s.train_loss:.3f}, train acc {s.train:.4f}, test acc {s.acc:.4f}\n1203.4 examples/sec on cpu",
    "sentence": lambda s: f"After epoch {s.epoch} the model gets 34 of 90 validation images right, an accuracy of {s.acc:.4f}.",
    "best beside": lambda s: f"val acc: {p(s.acc, 2)}% (best: {p(s.best, 2)}%)",
    "ema beside": lambda s: f"val acc {s.acc:.4f} (ema {s.acc + 0.0123:.4f})",
}  # fmt: skip
each = pytest.mark.parametrize("name", FORMATS)


@each
def test_sound_programs_are_left_alone(name: str) -> None:
    said = outcome(case_of(), FORMATS[name], true_accuracy)
    assert isinstance(said, Clear), said
    assert said.evidence[0].value == RUNS


@each
@pytest.mark.parametrize("formula", FORMULAS)
def test_wrong_formulas_are_found(name: str, formula: str) -> None:
    said = outcome(case_of(), FORMATS[name], FORMULAS[formula])
    assert isinstance(said, Finding) and said.confidence >= 0.8, said
    assert formula in said.summary


@each
def test_integer_division_is_found(name: str) -> None:
    said = outcome(case_of(), FORMATS[name], lambda _: 0.0)
    if name in ("bar with counts", "ema beside"):
        return  # these print other figures of the same answers as well
    assert isinstance(said, Finding), said
    assert "integer division" in said.summary


# Lines of sound programs with numbers that a wrong formula of the pass before would give, or that look like one.
def wrong(s: Shown) -> float:
    """What the mean of batch means is at that epoch."""
    return batch_means(validation(2 * s.epoch - 1, s.epoch, RIGHT[s.epoch - 1]))


SOUND: dict[str, Callable[[Shown], str]] = {
    "one class": lambda s: f"Accuracy for class: plane is {p(wrong(s), 1)} %",
    "zeros of classes": lambda _: "Accuracy for class: plane is 0.0 %\nAccuracy for class: car   is 0.0 %",
    "listed classes": lambda s: f"Per-class accuracy:\n  ant: 0.0000\n  bee: {wrong(s):.4f}\nOverall accuracy: {s.acc:.4f}",
    "table of classes": lambda s: f"class      accuracy\nant        {wrong(s):.4f}\nbee        0.0000",
    "top 5": lambda s: f" *   Acc@1 {p(s.acc)} Acc@5 {p(wrong(s))}",
    "training": lambda s: f"train acc {wrong(s):.4f} val acc {s.acc:.4f}",
    "best": lambda s: f"best acc {wrong(s):.4f}",
    "averaged weights": lambda s: f"Test: EMA Acc@1 {p(wrong(s))} Acc@5 {p(s.top5)}",
    "teacher": lambda s: f"student acc {s.acc:.4f} teacher acc {wrong(s):.4f}",
    "balanced": lambda s: f"val balanced accuracy {wrong(s):.4f} f1 {wrong(s):.4f}",
    "error": lambda s: f"val error {wrong(s):.4f} accuracy gap {wrong(s):.4f}",
    "loss": lambda s: f"val loss {wrong(s):.4f}",
    "unfinished bar": lambda s: f"val:  60%|██████    | 3/5 [00:01<00:00,  4.21it/s, acc={wrong(s):.4f}]",
    "unfinished meter": lambda s: f"Test: [2/5]  Acc@1: 20.000 ({p(wrong(s))})",
    "right beside": lambda s: f"val acc {s.acc:.4f} (mean over batches: accuracy {wrong(s):.4f})",
    "rounded": lambda s: f"val acc {round(100 * wrong(s))}%" if s.epoch == 1 else "",
    "constant": lambda _: "target accuracy 0.9, chance accuracy 0.25",
    "first zeros": lambda s: f"val acc {0.0 if s.epoch < RUNS else s.acc:.4f}",
}


@pytest.mark.parametrize("name", SOUND)
def test_other_numbers_are_left_alone(name: str) -> None:
    said = outcome(case_of(), SOUND[name], true_accuracy)
    assert not isinstance(said, Finding), said


def test_numbers_that_the_training_explains_are_left_alone() -> None:
    case = case_of()
    trained = {one.epoch + 1: batch_means(one) for one in case.run.of_phase("train")}
    assert not isinstance(outcome(case, lambda s: f"accuracy {trained[s.epoch]:.4f}", true_accuracy), Finding)


def test_printed_while_the_pass_runs() -> None:
    case = case_of()
    spoken = [Spoken(f"acc {batch_means(v):.4f}", v.index, running=True) for v in case.run.of_phase("validation")]
    assert not isinstance(CHECK.detect(Case(replace(case.run, printed=numbers_of(spoken)))), Finding)


def test_several_passes_before_a_summary() -> None:
    """Another data set is scored between the validation and the print: the number is told by its place, where one place fits."""
    test_ids = np.arange(TRAIN + COUNT, TRAIN + COUNT + 70)
    case = case_of(lambda index: val_pass(index, index, test_ids, dataset=2))
    line = FORMATS["logging"]
    assert isinstance(outcome(case, line, true_accuracy, after=1), Clear)
    said = outcome(case, line, batch_means, after=1)
    assert isinstance(said, Finding) and "batch means" in said.summary


def test_another_models_pass_before_a_summary() -> None:
    """An averaged copy is validated as well; its right accuracy is no wrong one of the model's own."""
    case = case_of(lambda index: validation(index, index, (70 - index, 7)))
    averaged = {e + 1: one for e, one in enumerate(case.run.passes[2::3])}
    case = Case(
        replace(
            case.run, passes=tuple(replace(q, model=1, phase="other") if q in averaged.values() else q for q in case.run.passes)
        )
    )
    said = outcome(case, lambda s: f"val acc {averaged[s.epoch].samples.accuracy:.4f}", true_accuracy, after=1)
    assert not isinstance(said, Finding)


def test_a_last_batch_alone_and_counts_without_a_reset() -> None:
    case = case_of()
    last = {e + 1: right[1] / LAST_RIGHT for e, right in enumerate(RIGHT)}
    said = outcome(case, lambda s: f"epoch {s.epoch} val acc {last[s.epoch]:.4f}", true_accuracy)
    assert isinstance(said, Finding) and "last batch" in said.summary
    total = {e + 1: sum(map(sum, RIGHT[: e + 1])) / COUNT for e in range(EPOCHS)}
    said = outcome(case, lambda s: f"epoch {s.epoch} val acc {100 * total[s.epoch]:.2f}%", true_accuracy)
    assert isinstance(said, Finding) and "reset" in said.summary


def test_losses_are_told_as_evidence() -> None:
    case = case_of()
    loss = {v.epoch: v.samples.mean_loss for v in case.run.of_phase("validation")}
    said = outcome(case, lambda s: f"val acc {s.acc:.4f} val loss {loss[s.epoch]:.4f}", true_accuracy)
    assert isinstance(said, Clear)
    (fact,) = [e for e in said.evidence if "losses that are the mean over images" in e.name]
    assert (fact.value, fact.n) == (RUNS, RUNS)

"""The cases of benchmarks/faults.py: a program, what is planted in it, which causes are right answers, and where it was met."""

from __future__ import annotations

from dataclasses import dataclass

SIGNS, CLOTHES, INSECTS, CIFAR = "sign_digits_mini", "clothing_mini", "hymenoptera_256", "cifar10n_mini"


@dataclass(frozen=True)
class Case:
    """One program. ``causes`` holds, for each planted fault, the codes that name it (the first is the one expected)."""

    name: str
    data: str
    style: str
    faults: str  # of fault_programs.py, separated by commas; empty: a healthy control
    causes: tuple[tuple[str, ...], ...] = ()
    settings: str = ""  # NAME=VALUE ..., which the healthy twin has as well
    thread: str = ""  # where somebody met it

    def arguments(self, data: str, faults: str | None = None, seed: int = 0) -> list[str]:
        """What fault_programs.py is called with."""
        planted = self.faults if faults is None else faults
        found = [data, "--style", self.style, "--seed", str(seed)]
        found += ["--faults", planted] if planted else []
        return found + (["--set", *self.settings.split()] if self.settings else [])


def one(name: str, data: str, style: str, code: str, settings: str = "", thread: str = "", faults: str = "") -> Case:
    """A case with one planted fault; ``code`` may hold several right answers, separated by a bar."""
    return Case(name, data, style, faults or name, (tuple(code.split("|")),), settings, thread)


def two(first: str, second: str, data: str, style: str, codes: str, settings: str = "") -> Case:
    """A case with two planted faults."""
    causes = tuple(tuple(c.split("|")) for c in codes.split())
    return Case(f"{first}+{second}", data, style, f"{first},{second}", causes, settings)


GITHUB = "https://github.com/"
FAULTY: tuple[Case, ...] = (
    # data
    one("leaked", CLOTHES, "head", "DAT101", thread=GITHUB + "mrdbourke/nutrify/issues/53"),
    one("shifted", CLOTHES, "head", "DAT102", thread=GITHUB + "uzh-rpg/rpg_event_representation_learning/issues/2"),
    one("class_missing", CLOTHES, "head", "DAT102", thread=GITHUB + "huggingface/pytorch-image-models/issues/211"),
    one("flat_val", INSECTS, "head", "DAT111|DAT102|DAT112", thread=GITHUB + "pytorch/examples/issues/550"),
    one("dummy_val_labels", CLOTHES, "head", "DAT111|DAT112|DAT105", thread=GITHUB + "maorash/NeRN/issues/29"),
    one("imbalanced", CLOTHES, "tune", "DAT103"),
    one("wrong_train", INSECTS, "head", "DAT104"),
    one("wrong_val", CLOTHES, "head", "DAT105"),
    one("dark_val", CLOTHES, "head", "DAT106"),
    one("few", CLOTHES, "head", "DAT107"),
    one("copies", CLOTHES, "head", "DAT109|DAT107"),
    one("bordered", CLOTHES, "tune", "DAT110|DAT106"),
    one("sorted_split", INSECTS, "head", "DAT112|DAT111", thread=GITHUB + "keras-team/keras/issues/3894"),
    one("misaligned", CLOTHES, "head", "DAT113|DAT104"),
    # preprocessing
    one("unnormalized_val", CLOTHES, "head", "PRE201", thread=GITHUB + "JeasunLok/ResNet-pytorch/issues/1"),
    one("unnormalized", CLOTHES, "head", "PRE201", thread=GITHUB + "ypwhs/dogs_vs_cats/issues/20"),
    one(
        "by_255_norm", CLOTHES, "head", "PRE201|PRE202",
        thread=GITHUB + "batuhan3526/ResNet50_on_Cifar_100_Without_Transfer_Learning/issues/1",
    ),
    one("twice_normalized_val", CLOTHES, "head", "PRE201|PRE202"),
    one("range255_val", INSECTS, "head", "PRE202|PRE201"),
    one("by_255_val", CLOTHES, "head", "PRE202|PRE201", thread=GITHUB + "mrdbourke/tensorflow-deep-learning/issues/14"),
    one("bgr_val", CLOTHES, "head", "PRE203", thread=GITHUB + "ultralytics/ultralytics/issues/5962"),
    one("augmented_val", CLOTHES, "head", "PRE204", thread=GITHUB + "chenyaofo/image-classification-codebase/issues/4"),
    one("strongly_augmented_val", SIGNS, "tune", "PRE204"),
    one("small_val", CLOTHES, "head", "PRE205", thread=GITHUB + "pytorch/vision/issues/5958"),
    one("plain", CIFAR, "scratch", "PRE206", settings="epochs=12", thread=GITHUB + "apache/mxnet/issues/2282"),
    one("tiny_crops", CLOTHES, "head", "PRE207"),
    one("scrambled", CLOTHES, "head", "PRE208"),
    # model
    one("random_weights", CLOTHES, "head", "MOD301", thread=GITHUB + "huawei-noah/Efficient-AI-Backbones/issues/202"),
    one("drift", CLOTHES, "head", "MOD302", thread=GITHUB + "lightly-ai/lightly/issues/1438"),
    one("missing_head", SIGNS, "tune", "MOD303"),
    one("hot", SIGNS, "tune", "MOD304|TRN401", thread=GITHUB + "NielsRogge/Transformers-Tutorials/issues/297"),
    Case("frozen_far", SIGNS, "head", "", (("MOD305",),), "epochs=4 size=112"),
    one("softmax", CLOTHES, "head", "MOD306", thread=GITHUB + "doronharitan/human_activity_recognition_LRCN/issues/4"),
    one("relu", CIFAR, "scratch", "MOD306", thread=GITHUB + "martinwicke/tf-dev-summit-tensorboard-tutorial/issues/3"),
    one("thousand", CLOTHES, "head", "MOD307"),
    one("tiny_batch", INSECTS, "tune", "MOD308", settings="epochs=2"),
    one("dropout", CLOTHES, "head", "MOD309", settings="rate=0.001"),
    one("shared_folds", CLOTHES, "head", "MOD310", settings="epochs=2", thread=GITHUB + "antmarakis/Machine-Learning/issues/3"),
    one("slow_average", CLOTHES, "tune", "MOD311", thread=GITHUB + "MzeroMiko/VMamba/issues/263"),
    # training
    one(
        "high_rate", CIFAR, "scratch", "TRN401",
        thread="https://discuss.pytorch.org/t/sudden-increase-in-training-accuracy-for-resnet-50-binary-classification/72280",
    ),
    one("low_rate", CLOTHES, "head", "TRN402"),
    one("one_epoch", CLOTHES, "head", "TRN403"),
    one("no_regularization", CIFAR, "scratch", "TRN405|PRE206", settings="epochs=12"),
    one("decay", CIFAR, "scratch", "TRN406"),
    one("no_zero", CLOTHES, "head", "TRN407"),
    one("unshuffled", SIGNS, "tune", "TRN408", thread=GITHUB + "microsoft/nni/pull/4696"),
    one("overflow", CLOTHES, "head", "TRN409", thread=GITHUB + "NVIDIA/apex/issues/43"),
    one("small_batch_high_rate", CLOTHES, "head", "TRN410|TRN401"),
    one("slow_sgd", CLOTHES, "head", "TRN411|TRN402"),
    one("statistics_from_val", INSECTS, "tune", "TRN412|EVA501", thread=GITHUB + "microsoft/robustdg/issues/30"),
    one("steps_on_val", CLOTHES, "head", "TRN412"),
    one("two_steps", CLOTHES, "head", "TRN413"),
    one("never_step", CLOTHES, "head", "TRN413|MOD303"),
    one("steps_per_batch", CLOTHES, "head", "TRN414", thread=GITHUB + "pytorch/tutorials/pull/640"),
    one("onecycle_per_epoch", CLOTHES, "head", "TRN414", settings="epochs=4"),
    # evaluation
    one("train_mode", CLOTHES, "head", "EVA501", thread=GITHUB + "PaulCCCCCCH/Robustar_implementation/pull/165"),
    one("one_by_one", CLOTHES, "head", "EVA501", thread=GITHUB + "huyvnphan/PyTorch_CIFAR10/issues/4"),
    one("eval_training", CIFAR, "scratch", "EVA502"),
    one("batch_means", CLOTHES, "head", "EVA503", thread=GITHUB + "mitmul/chainer-cifar10/issues/1"),
    one("integer_accuracy", CLOTHES, "head", "EVA503", thread=GITHUB + "prakashjayy/pytorch_classifiers/issues/5"),
    one(
        "overconfident", CIFAR, "scratch", "EVA505|PRE206", "epochs=12", GITHUB + "keras-team/keras/issues/7866", faults="plain"
    ),
    one("reference", CIFAR, "scratch", "EVA506", settings="epochs=10 rate=0.05", thread=GITHUB + "pytorch/tutorials/pull/188"),
    one("fifteen_val", CLOTHES, "head", "EVA507"),
    one("train_as_val", CLOTHES, "head", "EVA508", thread=GITHUB + "luxonis/luxonis-train/pull/213"),
    one("other_order", CLOTHES, "head", "EVA509", thread=GITHUB + "keras-team/keras/issues/10014"),
    # two causes
    two("shifted", "unnormalized_val", CLOTHES, "head", "DAT102 PRE201"),
    two("drift", "unnormalized_val", CLOTHES, "head", "MOD302 PRE201"),
    two("softmax", "shifted", CLOTHES, "head", "MOD306 DAT102"),
    two("drift", "bgr_val", INSECTS, "head", "MOD302 PRE203"),
    two("leaked", "augmented_val", CLOTHES, "head", "DAT101 PRE204"),
    two("low_rate", "unnormalized_val", CLOTHES, "head", "TRN402 PRE201"),
    two("hot", "class_missing", CLOTHES, "tune", "MOD304|TRN401 DAT102"),
    two("train_mode", "small_val", CLOTHES, "head", "EVA501 PRE205"),
    two("no_zero", "batch_means", CLOTHES, "head", "TRN407 EVA503"),
    two("two_steps", "range255_val", CLOTHES, "head", "TRN413 PRE202|PRE201"),
    two("random_weights", "unshuffled", SIGNS, "tune", "MOD301 TRN408"),
)  # fmt: skip

HEALTHY: tuple[Case, ...] = (
    Case("head, clothes", CLOTHES, "head", "", settings="epochs=4"),
    Case("head, clothes, weighted Adam", CLOTHES, "head", "", settings="epochs=4 optimizer=AdamW weight_decay=0.01"),
    Case("head, clothes, SGD", CLOTHES, "head", "", settings="epochs=4 optimizer=SGD rate=0.003"),
    Case("head, clothes, cosine", CLOTHES, "head", "", settings="epochs=4 schedule=cosine rate=0.005"),
    Case("head, clothes, Dropout and smoothing", CLOTHES, "head", "", settings="epochs=4 dropout=0.2 smoothing=0.1"),
    Case("head, insects", INSECTS, "head", "", settings="epochs=4"),
    Case("head, insects, small batches", INSECTS, "head", "", settings="epochs=4 batch=8 rate=0.001"),
    Case("head, insects, one cycle", INSECTS, "head", "", settings="epochs=4 schedule=onecycle rate=0.002"),
    Case("tune, signs", SIGNS, "tune", "", settings="epochs=4"),
    Case("tune, signs, best kept", SIGNS, "tune", "", settings="epochs=4 best=copy"),
    Case("tune, clothes", CLOTHES, "tune", ""),
    Case("tune, insects, shuffled validation", INSECTS, "tune", "", settings="shuffle_val=1 epochs=3"),
    Case("scratch, CIFAR", CIFAR, "scratch", "", settings="epochs=12"),
    Case("scratch, CIFAR, SGD cosine", CIFAR, "scratch", "", settings="epochs=12 optimizer=SGD rate=0.05 schedule=cosine"),
    Case("folds, insects", INSECTS, "head", "", settings="folds=2 epochs=3"),
)

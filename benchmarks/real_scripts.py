"""The shelf: other people's training scripts, how each is started here, what its model is, what is planted, and how we read it.

No script is part of this project. Each is looked for in the folder that the user names, under `folder`, which holds the files of
the repository `address` at `commit`. Arguments, the working folder and environment variables are all that is chosen here.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Spoil = Callable[[Path], None]


@dataclass(frozen=True)
class Fault:
    """What is planted, and the codes of which one must be named first."""

    name: str
    codes: tuple[str, ...]
    extra: str = ""  # arguments after the script's; the last of two counts
    spoil: Spoil | None = None  # of the data, before the run
    path: str = ""  # another script, where the fault is its author's
    images: bool = False  # what names it is a look at the image files, as `valgap diagnose` takes it


@dataclass(frozen=True)
class Script:
    """One script and its start."""

    name: str
    address: str
    commit: str
    path: str  # in SCRIPTS
    arguments: str
    layouts: tuple[str, ...]
    accuracy: str  # pattern whose last match in the output holds the last validation accuracy
    model: tuple[str, int]  # class and number of parameters of what learns
    percent: bool = True
    floor: bool = False  # printed rounded down
    also: str = ""  # pattern of another validation that is as good: EMA's
    cwd: str = "."
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_after: tuple[str, int] | None = None  # Ctrl-C when the pattern was printed so many times
    terminal: bool = False  # reads the size of its terminal
    leave_out: str = ""  # of a notebook: the lines that it says to comment out
    starts: Mapping[str, str] = field(default_factory=dict)  # further starts: kind -> arguments added
    paths: bool = True  # whether the images are files of their own
    classes: int = 6
    faults: tuple[Fault, ...] = ()
    readings: Mapping[str, str] = field(default_factory=dict)  # code -> "true: why" or "false: why", of a sound run


# -- what is planted in data -------------------------------------------------------------------------


def without_class(folder: str) -> Spoil:
    """The folder of the second class is missing there."""
    return lambda base: shutil.rmtree(sorted(f for f in (base / folder).iterdir() if f.is_dir())[1])


def renamed(folder: str) -> Spoil:
    """The folders of two classes have each other's name there."""

    def spoil(base: Path) -> None:
        first, second = sorted(f for f in (base / folder).iterdir() if f.is_dir())[:2]
        first.rename(first.with_name("_"))
        second.rename(first)
        first.with_name("_").rename(second)

    return spoil


def scattered(folder: str) -> Spoil:
    """Images lie in folders without regard to what they show."""

    def spoil(base: Path) -> None:
        files = sorted((base / folder).rglob("*.jpg"))
        names = [f.parent.name for f in files]
        for i, j in enumerate(np.random.default_rng(3).permutation(len(files))):
            target = base / folder / names[j] / f"{i:04d}_{files[i].name}"
            files[i].rename(target)

    return spoil


def idx_labels(file: str, change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    """Labels of an IDX file are changed."""

    def spoil(base: Path) -> None:
        path = base / "data" / "MNIST" / "raw" / file
        content = path.read_bytes()
        path.write_bytes(content[:8] + change(np.frombuffer(content[8:], np.uint8)).astype(np.uint8).tobytes())

    return spoil


def npz_labels(change: Callable[[np.ndarray], np.ndarray], key: str = "y_test") -> Spoil:
    """Labels of mnist.npz are changed."""

    def spoil(base: Path) -> None:
        path = base / "keras" / "datasets" / "mnist.npz"
        arrays = dict(np.load(path))
        arrays[key] = change(arrays[key])
        np.savez(path, **arrays)

    return spoil


def scrambled_test_batch(base: Path) -> None:
    """CIFAR's test images hold each pixel's colours together, not one colour after the other."""
    path = base / "data" / "cifar-10-batches-py" / "test_batch"
    batch = pickle.loads(path.read_bytes())  # our own file
    batch["data"] = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).reshape(len(batch["data"]), -1)
    path.write_bytes(pickle.dumps(batch))


def doubled(folder: str) -> Spoil:
    """Every image lies there twice, under two names of its class."""

    def spoil(base: Path) -> None:
        for file in sorted((base / folder).glob("*.jpg")):
            name, _, number = file.stem.rpartition("_")
            shutil.copy(file, file.with_name(f"{name}_9{number}.jpg"))

    return spoil


def moved(labels: np.ndarray) -> np.ndarray:
    """Every label is that of the next class."""
    return (labels.astype(np.int64) + 1) % (int(labels.max()) + 1)


def at_random(labels: np.ndarray) -> np.ndarray:
    """Every label is drawn anew."""
    return np.random.default_rng(5).integers(0, int(labels.max()) + 1, len(labels)).astype(labels.dtype)


SHIFTED = ("DAT102", "DAT111")
RATE = ("TRN401", "TRN409")
LABELS = ("DAT113", "DAT104", "DAT105")

# What is so for every run of the shelf, whatever the script.
COMMON = {
    "EVA507": "true: at most 100 validation images",
    "DAT107": "true: 15 to 20 training images a class",
    "MOD301": "true: no pretrained weights, or stand-ins that are random",
}

SCRIPTS: tuple[Script, ...] = (
    Script(
        "pytorch/examples mnist",
        "pytorch/examples",
        "77f55b912142",
        "pytorch-examples/mnist/main.py",
        "--epochs 4 --no-accel",
        ("mnist",),
        r"Accuracy: \d+/\d+ \((\d+)%\)",
        ("Net", 1_199_882),
        cwd="data",
        paths=False,
        classes=10,
        faults=(
            Fault("rate 60", RATE, extra="--lr 60"),
            Fault("test labels moved by one", SHIFTED, spoil=idx_labels("t10k-labels-idx1-ubyte", moved)),
        ),
    ),
    Script(
        "pytorch/examples mnist_hogwild",
        "pytorch/examples",
        "77f55b912142",
        "pytorch-examples/mnist_hogwild/main.py",
        "--epochs 4 --lr 0.05",
        ("mnist",),
        r"Accuracy: \d+/\d+ \((\d+)%\)",
        ("Net", 21_840),
        cwd="data",
        paths=False,
        classes=10,
        faults=(Fault("rate 50", RATE, extra="--lr 50"),),
    ),
    Script(
        "pytorch/examples imagenet",
        "pytorch/examples",
        "77f55b912142",
        "pytorch-examples/imagenet/main.py",
        "{base} -a shufflenet_v2_x0_5 --epochs 2 -b 15 -j 0 --lr 0.05 -p 3 --seed 3 --no-accel",
        ("folders",),
        r"\*\s+Acc@1 ([\d.]+)",
        ("ShuffleNetV2", 1_366_792),
        starts={
            "spawn": "--multiprocessing-distributed --dist-backend gloo --world-size 1 --rank 0 --dist-url tcp://127.0.0.1:{port}",
            "torchrun": "--dist-backend gloo --dist-url env://",
        },
        readings={
            "MOD307": "true: 1,000 outputs for 6 classes, by default",
            "TRN415": "true: on a CPU it wraps no model, and two processes train apart",
        },
        faults=(
            Fault("class folder missing in val", SHIFTED, spoil=without_class("val")),
            Fault("rate 500", RATE, extra="--lr 500"),
        ),
    ),
    Script(
        "timm train.py",
        "huggingface/pytorch-image-models",
        "aa4b5850c154",
        "pytorch-image-models/train.py",
        "--data-dir {base} --model resnet18 --input-size 3 64 64 --num-classes 6 --epochs 2 -b 15 --lr 0.02 --warmup-epochs 0"
        " --scale 0.5 1 --device cpu --workers 0 --output out --experiment e --log-interval 5",
        ("folders",),
        r"Test: .*Acc@1:\s*\S+ \(\s*([\d.]+)\)",
        ("ResNet", 11_179_590),
        # No torchrun: its DistributedDataParallel is given a device number, which torch refuses on a CPU.
        faults=(
            Fault("class folder missing in val", SHIFTED, spoil=without_class("val")),
            Fault("rate 200", RATE, extra="--lr 200"),
        ),
    ),
    Script(
        "torchvision references",
        "pytorch/vision",
        "428a54c96e82",
        "vision/references/classification/train.py",
        "--data-path {base} --model resnet18 --device cpu -b 15 --epochs 2 -j 0 --lr 0.02 --train-crop-size 64"
        " --val-resize-size 72"
        " --val-crop-size 64 --output-dir out --print-freq 5 --model-ema --model-ema-steps 1 --model-ema-decay 0.99",
        ("folders",),
        r"Test:\s+Acc@1 ([\d.]+)",
        ("ResNet", 11_179_590),
        also=r"Test: EMA Acc@1 ([\d.]+)",
        faults=(Fault("class folder missing in val", SHIFTED, spoil=without_class("val")),),
    ),
    Script(
        "transformers run_image_classification",
        "huggingface/transformers",
        "542e65fae2fe",
        "transformers/examples/pytorch/image-classification/run_image_classification.py",
        "--train_dir {base}/train --validation_dir {base}/val --model_name_or_path {weights}/tiny-vit --ignore_mismatched_sizes"
        " --output_dir out --do_train --do_eval --num_train_epochs 2 --per_device_train_batch_size 15 --learning_rate 1e-3"
        " --eval_strategy epoch --logging_steps 5 --save_strategy no --report_to none --seed 1 --use_cpu"
        " --remove_unused_columns False"
        " --label_column_name label",
        ("folders",),
        r"eval_accuracy\s+=\s+([\d.]+)",
        ("ViTForImageClassification", 117_510),
        percent=False,
        starts={"torchrun": "--ddp_backend gloo"},
        faults=(
            Fault("training images in the wrong folders", LABELS, spoil=scattered("train"), images=True),
            Fault("two val folders have each other's name", (*SHIFTED, "DAT105", "DAT113"), spoil=renamed("val"), images=True),
        ),
    ),
    Script(
        "transformers run_image_classification_no_trainer",
        "huggingface/transformers",
        "542e65fae2fe",
        "transformers/examples/pytorch/image-classification/run_image_classification_no_trainer.py",
        "--dataset_name {base}/set --model_name_or_path {weights}/tiny-vit --ignore_mismatched_sizes"
        " --output_dir out --num_train_epochs 2 --per_device_train_batch_size 15 --per_device_eval_batch_size 15"
        " --learning_rate 1e-3 --seed 1 --label_column_name label",
        ("named_folders",),
        r"epoch \d+: \{'accuracy': ([\d.]+)\}",
        ("ViTForImageClassification", 117_510),
        percent=False,
        environment={"ACCELERATE_USE_CPU": "true"},
        starts={"torchrun": ""},
        faults=(Fault("rate 5", RATE, extra="--learning_rate 5"),),
    ),
    Script(
        "transfer_learning_tutorial",
        "PyTorchKorea/tutorials-kr (its code as upstream's)",
        "84b7db6e020c",
        "tutorials-kr/beginner_source/transfer_learning_tutorial.py",
        "",
        ("hymenoptera",),
        r"val Loss: \S+ Acc: ([\d.]+)",
        ("ResNet", 11_177_538),
        percent=False,
        classes=2,
        stop_after=(r"Epoch (?:[3-9]|1\d)/", 1),
        faults=(
            Fault("class folder missing in val", (*SHIFTED, "DAT112"), spoil=without_class("data/hymenoptera_data/val")),
            Fault(
                "schedule by epochs stepped every batch (upstream of 2019)",
                ("TRN414",),
                path="tutorials/beginner_source/transfer_learning_tutorial.py",
            ),
        ),
    ),
    Script(
        "finetuning_torchvision_models_tutorial",
        "pytorch/tutorials",
        "c322d1c0f9c9",
        "tutorials/beginner_source/finetuning_torchvision_models_tutorial.py",
        "",
        ("hymenoptera",),
        r"val Loss: \S+ Acc: ([\d.]+)",
        ("SqueezeNet", 736_450),
        percent=False,
        classes=2,
        stop_after=(r"Epoch (?:[3-9]|1\d)/", 1),
        faults=(Fault("class folder missing in val", (*SHIFTED, "DAT112"), spoil=without_class("data/hymenoptera_data/val")),),
    ),
    Script(
        "cifar10_tutorial",
        "PyTorchKorea/tutorials-kr (its code as upstream's)",
        "84b7db6e020c",
        "tutorials-kr/beginner_source/blitz/cifar10_tutorial.py",
        "",
        ("cifar10",),
        r"test images: (\d+) %",
        ("Net", 62_006),
        floor=True,
        paths=False,
        classes=10,
        faults=(Fault("test images stored row by row with their colours", ("PRE208",), spoil=scrambled_test_batch),),
    ),
    Script(
        "Lightning computer_vision_fine_tuning",
        "Lightning-AI/pytorch-lightning",
        "7f0c3436cd3f",
        "pytorch-lightning/examples/pytorch/domain_templates/computer_vision_fine_tuning.py",
        "fit --trainer.max_epochs 2 --trainer.accelerator cpu --trainer.devices 1 --trainer.logger false"
        " --trainer.enable_checkpointing false"
        " --finetuning.milestones [1,2] --data.batch_size 10",
        ("archive",),
        r"val_acc[=:]\s*([\d.]+)",
        ("TransferLearningModel", 24_040_833),
        percent=False,
        classes=2,
        starts={"subprocesses": "--trainer.devices 2 --trainer.strategy ddp"},
        faults=(Fault("rate 30", RATE, extra="--model.lr 30"),),
        readings={
            "TRN415": "true: DistributedDataParallel averages nothing of layers that are unfrozen after it was made; "
            "from the first milestone on the processes hold other weights"
        },
    ),
    Script(
        "accelerate cv_example",
        "huggingface/accelerate",
        "16cb6eb80dd9",
        "accelerate/examples/cv_example.py",
        "--data_dir images --cpu",
        ("pets",),
        r"epoch \d+: ([\d.]+)",
        ("ResNet", 23_539_558),
        starts={"torchrun": ""},
        environment={"ACCELERATE_USE_CPU": "true"},
        readings={"MOD302": "true: frozen by requires_grad alone, model.train() moves the statistics of BatchNorm"},
        faults=(Fault("every image twice, so that train and val share them", ("DAT101",), spoil=doubled("images"), images=True),),
    ),
    Script(
        "accelerate complete_cv_example",
        "huggingface/accelerate",
        "16cb6eb80dd9",
        "accelerate/examples/complete_cv_example.py",
        "--data_dir images --cpu --checkpointing_steps epoch --output_dir out",
        ("pets",),
        r"epoch \d+: ([\d.]+)",
        ("ResNet", 23_539_558),
        starts={"torchrun": ""},
        environment={"ACCELERATE_USE_CPU": "true"},
        readings={"MOD302": "true: frozen by requires_grad alone, model.train() moves the statistics of BatchNorm"},
        faults=(Fault("every image twice, so that train and val share them", ("DAT101",), spoil=doubled("images"), images=True),),
    ),
    Script(
        "ignite cifar10",
        "pytorch/ignite",
        "de08e799cfb5",
        "ignite/examples/cifar10/main.py",
        "run --data_path {base}/data --output_path out --batch_size 40 --num_workers 0 --num_epochs 2 --num_warmup_epochs 1"
        " --validate_every 1 --learning_rate 0.02",
        ("cifar10",),
        r"Test metrics:\s+Accuracy: ([\d.]+)",
        ("ResNet", 11_181_642),
        percent=False,
        paths=False,
        classes=10,
        starts={"torchrun": "--backend gloo", "spawn": "--backend gloo --nproc_per_node 2"},
        faults=(Fault("rate 100", RATE, extra="--learning_rate 100"),),
    ),
    Script(
        "ignite mnist",
        "pytorch/ignite",
        "de08e799cfb5",
        "ignite/examples/mnist/mnist.py",
        "--epochs 4 --lr 0.1",
        ("mnist",),
        r"Validation Results .*accuracy: ([\d.]+)",
        ("Net", 21_840),
        percent=False,
        cwd="data",
        paths=False,
        classes=10,
        faults=(Fault("rate 50", RATE, extra="--lr 50"),),
    ),
    Script(
        "skorch (its notebook's program, ours)",
        "this project",
        "",
        "@real_skorch.py",
        "{base} 2",
        ("folders",),
        r"(?m)^\s+\d+\s+\S+\s+([\d.]+)",
        ("Pretrained", 11_179_590),
        percent=False,
        readings={"MOD302": "true: frozen by requires_grad alone, model.train() moves the statistics of BatchNorm"},
        faults=(Fault("class folder missing in val", SHIFTED, spoil=without_class("val")),),
    ),
    Script(
        "fastai fine_tune (ten lines of ours)",
        "this project",
        "",
        "@real_fine_tune.py",
        "{base} 2",
        ("folders",),
        r"(?m)\s\d+\s+[\d.]+\s+[\d.]+\s+([\d.]+)\s+\d\d:\d\d",
        ("Sequential", 11_706_944),
        percent=False,
        faults=(Fault("rate 30", RATE, extra="30"),),
    ),
    Script(
        "ultralytics yolo classify train",
        "ultralytics/ultralytics (package)",
        "8.4.190",
        "@yolo",
        "classify train model=yolov8n-cls.yaml data={base} epochs=2 imgsz=64 batch=16 device=cpu"
        " workers=0 project={base}/out name=run"
        " plots=False seed=1 pretrained=False",
        ("folders",),
        r"\ball\s+([\d.]+)\s+[\d.]+",
        ("ClassificationModel", 1_445_974),
        percent=False,
        faults=(Fault("training images in the wrong folders", LABELS, spoil=scattered("train"), images=True),),
    ),
    Script(
        "keras demo_mnist_convnet (torch)",
        "keras-team/keras",
        "3422977a5e38",
        "keras/examples/demo_mnist_convnet.py",
        "",
        ("mnist",),
        r"Test accuracy: ([\d.]+)",
        ("Sequential", 34_828),  # two of them are the state of a random generator
        percent=False,
        paths=False,
        classes=10,
        environment={"KERAS_BACKEND": "torch"},
        faults=(Fault("test labels moved by one", SHIFTED, spoil=npz_labels(moved)),),
    ),
    Script(
        "keras demo_custom_torch_workflow",
        "keras-team/keras",
        "3422977a5e38",
        "keras/examples/demo_custom_torch_workflow.py",
        "",
        ("mnist",),
        r"(?!)",
        ("Sequential", 34_828),  # two of them are the state of a random generator
        percent=False,
        paths=False,
        classes=10,
        faults=(Fault("training labels at random", ("TRN401", *LABELS), spoil=npz_labels(at_random, "y_train")),),
    ),
    Script(
        "weiaicunzai/pytorch-cifar100",
        "weiaicunzai/pytorch-cifar100",
        "11d8418f415b",
        "pytorch-cifar100/train.py",
        "-net squeezenet -b 50",
        ("cifar100",),
        r"Accuracy: ([\d.]+)",
        ("SqueezeNet", 781_156),
        percent=False,
        paths=False,
        classes=100,
        stop_after=(r"Test set: Epoch", 2),
        faults=(Fault("rate 100", RATE, extra="-lr 100"),),
    ),
    Script(
        "kuangliu/pytorch-cifar",
        "kuangliu/pytorch-cifar",
        "49b7aa97b0c1",
        "pytorch-cifar/main.py",
        "--lr 0.02",
        ("cifar10",),
        r"Acc: ([\d.]+)%[^\r\n]*\r?\n",
        ("SimpleDLA", 15_142_970),
        paths=False,
        classes=10,
        stop_after=(r"Epoch: 1", 1),
        terminal=True,
        faults=(Fault("rate 100", RATE, extra="--lr 100"),),
    ),
)

START_UP = Script("start-up", "this project", "", "@real_empty.py", "", (), r"(?!)", ("Linear", 10))

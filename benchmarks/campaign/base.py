"""Sound programs: a style, a data set, a network, settings and a seed."""

from __future__ import annotations

from dataclasses import dataclass

from campaign.style import Style

WEIGHTS = 'torch.load(os.path.join($root, "..", "weights", "efficientnet_lite0.pth"), map_location="cpu")'
HALF = ("[0.5, 0.5, 0.5]", "[0.5, 0.5, 0.5]")
USUAL = ("[0.49, 0.48, 0.45]", "[0.25, 0.24, 0.26]")


@dataclass(frozen=True)
class Network:
    """How a network is written: classes of its own, lines that build it, its last layer, what is trained, and its traits."""

    defs: str
    build: str
    head: str
    width: str
    trained: str
    traits: frozenset[str]
    values: tuple[str, str] = USUAL
    imports: str = ""


LITE0 = f"""$model = timm.create_model("tf_efficientnet_lite0")
state = {WEIGHTS}
$model.load_state_dict(dict(zip($model.state_dict(), state.values())))
"""
BLOCKS = """nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(2)"""
HEAD = "nn.Linear({}, $C)"
PRETRAINED = frozenset({"pretrained", "batchnorm"})
SCRATCH = frozenset({"scratch", "batchnorm", "trained layers"})
NETWORKS = {
    "frozen": Network(
        "",
        LITE0 + "for p in $model.parameters():\n    p.requires_grad = False\n$model.classifier = nn.Linear(1280, $C)",
        "$model.classifier",
        "1280",
        "$model.classifier.parameters()",
        PRETRAINED | {"frozen", "evaluating"},
        HALF,
        "import timm",
    ),
    "features": Network(
        """class FeatureClassifier(nn.Module):
    def __init__(self, backbone, classes):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(1280, classes)

    def train(self, mode=True):
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x):
        with torch.no_grad():
            f = self.backbone(x)
        return self.head(f)
""",
        LITE0.replace('lite0")', 'lite0", num_classes=0)').replace("$model", "backbone")
        + "$model = FeatureClassifier(backbone, $C)",
        "$model.head",
        "1280",
        "$model.head.parameters()",
        PRETRAINED | {"frozen"},
        HALF,
        "import timm",
    ),
    "last": Network(
        "",
        LITE0
        + """$model.requires_grad_(False)
$model.classifier = nn.Linear(1280, $C)
for part in ($model.blocks[5:], $model.conv_head, $model.bn2):
    part.requires_grad_(True)


def keep_frozen(mode=True, model=$model):
    nn.Module.train(model, mode)
    for part in (model.conv_stem, model.bn1, model.blocks[:5]):
        part.eval()
    return model


$model.train = keep_frozen""",
        "$model.classifier",
        "1280",
        "[p for p in $model.parameters() if p.requires_grad]",
        PRETRAINED | {"trained layers"},
        HALF,
        "import timm",
    ),
    "sequential": Network(
        "",
        f"$model = nn.Sequential(\n    {BLOCKS}, nn.Flatten(),\n    nn.Linear(256, $C))",
        "$model[-1]",
        "256",
        "$model.parameters()",
        SCRATCH,
    ),
    "cnn": Network(
        """class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.fc = nn.Linear(64 * 4, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.bn3(self.conv3(x)))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 2), 1))
""",
        "$model = Net($C)",
        "$model.fc",
        "256",
        "$model.parameters()",
        SCRATCH,
    ),
    "resnet18": Network(
        "",
        "$model = models.resnet18(weights=None, num_classes=$C)",
        "$model.fc",
        "512",
        "$model.parameters()",
        SCRATCH,
    ),
}


@dataclass(frozen=True)
class Setup:
    """A data set, a network and settings that go together: they reach about what longer training reaches."""

    data: str
    network: str
    size: int
    epochs: int
    batch: int
    optimizer: str
    lr: str
    schedule: str = "none"


ADAM = "$opt = torch.optim.Adam($trained, lr=$lr)"
ADAMW = "$opt = torch.optim.AdamW($trained, lr=$lr, weight_decay=0.01)"
SGD = "$opt = torch.optim.SGD($trained, lr=$lr, momentum=0.9, weight_decay=1e-4)"
COSINE = ("$sched = torch.optim.lr_scheduler.CosineAnnealingLR($opt, T_max=$epochs)", "$sched.step()")
SCHEDULES = {"none": ("", ""), "cosine": COSINE}
SETUPS = (
    Setup("clothing", "frozen", 64, 4, 20, ADAM, "0.002"),
    Setup("clothing", "features", 72, 3, 16, ADAMW, "0.002", "cosine"),
    Setup("clothing", "last", 64, 3, 20, ADAM, "0.001"),
    Setup("bees", "features", 80, 4, 16, SGD, "0.002"),
    Setup("bees", "frozen", 72, 4, 16, ADAM, "0.001"),
    Setup("bees", "last", 80, 3, 16, ADAMW, "0.001", "cosine"),
    Setup("digits", "frozen", 64, 5, 16, ADAM, "0.002"),
    Setup("digits", "cnn", 32, 16, 20, ADAM, "0.002", "cosine"),
    Setup("digits", "sequential", 32, 12, 25, SGD, "0.03", "cosine"),
    Setup("cifar", "cnn", 32, 10, 32, ADAM, "0.002", "cosine"),
    Setup("cifar", "sequential", 32, 8, 50, SGD, "0.05", "cosine"),
    Setup("cifar", "features", 48, 2, 20, ADAM, "0.0005"),
    Setup("digits", "resnet18", 32, 5, 20, ADAM, "0.001", "cosine"),
)
BEST_EPOCH = {
    "before_epochs": "best_acc, best_state = 0.0, None",
    "remember": "if $acc > best_acc:\n    best_acc, best_state = $acc, copy.deepcopy($model.state_dict())",
    "finish": "$model.load_state_dict(best_state)\n$again",
}


@dataclass(frozen=True)
class Base:
    """A sound program."""

    style: Style
    setup: Setup
    best: bool
    seed: int

    @property
    def name(self) -> str:
        """What it is known by, such as plain-03-best-s2."""
        return f"{self.style.name}-{SETUPS.index(self.setup):02d}-{'best' if self.best else 'last'}-s{self.seed}"

    @property
    def network(self) -> Network:
        """Its network."""
        return NETWORKS[self.setup.network]

    def settings(self, seed: int) -> dict[str, str]:
        """What its $names stand for, beside the variables of its style."""
        s, net = self.setup, self.network
        numbers = {"size": s.size, "epochs": s.epochs, "batch": s.batch, "lr": s.lr, "seed": seed}
        words = {"head": net.head, "width": net.width, "trained": net.trained, "mean": net.values[0], "std": net.values[1]}
        return {**{k: str(v) for k, v in numbers.items()}, **words}

    def slots(self) -> dict[str, str]:
        """The text of each slot of the sound program."""
        slots, net = self.style.slots, self.network
        if self.setup.data == "digits":
            slots["flip"] = ""
        slots["net_defs"], slots["net"] = net.defs and "\n\n" + net.defs.rstrip("\n"), net.build
        slots["imports"] = "\n".join(filter(None, (slots["imports"], net.imports)))
        slots["optimizer"] = self.setup.optimizer
        slots["scheduler"], slots["epoch_end"] = SCHEDULES[self.setup.schedule]
        if "evaluating" in net.traits:
            slots["train_mode"] = "$model.eval()"
        if self.best:
            slots["imports"] += "\nimport copy"
            for slot, text in BEST_EPOCH.items():
                slots[slot] = text
        return slots

"""The remedy of each cause as a few lines of PyTorch, to be put into a program by hand. Names are the catalogue's."""

from __future__ import annotations

from collections.abc import Mapping

_HOLD_BATCHNORM = """
model.train()
for module in model.modules():  # frozen BatchNorm layers keep the statistics of their weights
    if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not module.weight.requires_grad:
        module.eval()
"""
_EVAL = """
model.eval()
with torch.no_grad():
    for images, labels in val_loader:
        ...
"""
_ONE_MAP = """
classes = train_dataset.class_to_idx  # one map for both
val_dataset.samples = [(path, classes[Path(path).parent.name]) for path, _ in val_dataset.samples]
val_dataset.targets = [target for _, target in val_dataset.samples]
"""
_SPLIT = """
from sklearn.model_selection import train_test_split

train_index, val_index = train_test_split(range(len(targets)), test_size=0.2, stratify=targets, random_state=0)
"""
_SAME_NORMALIZE = """
normalize = transforms.Normalize(mean, std)  # those of the pretrained weights
train_transform = transforms.Compose([..., transforms.ToTensor(), normalize])
val_transform = transforms.Compose([..., transforms.ToTensor(), normalize])
"""
_KEEP_BEST = """
if val_loss < best_loss:
    best_loss, best_state = val_loss, copy.deepcopy(model.state_dict())
...
model.load_state_dict(best_state)  # after the last epoch
"""
_VAL_TRANSFORM = """
val_transform = transforms.Compose([
    transforms.Resize(256), transforms.CenterCrop(224),  # nothing random
    transforms.ToTensor(), transforms.Normalize(mean, std),
])
"""
_GROUPS = """
from sklearn.model_selection import StratifiedGroupKFold

folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(paths, labels, groups=originals)
train_index, val_index = next(folds)  # all copies of one original on one side
"""

_SOURCES: dict[str, str] = {
    "train_val_overlap": _GROUPS,
    "class_index_mismatch": _ONE_MAP,
    "class_imbalance": """
counts = torch.bincount(torch.tensor(train_dataset.targets))
weights = (1.0 / counts)[train_dataset.targets]
sampler = torch.utils.data.WeightedRandomSampler(weights, len(weights))
train_loader = DataLoader(train_dataset, batch_size=32, sampler=sampler)  # in place of shuffle=True
""",
    "wrong_train_labels": """
suspects = set(Path("suspects.txt").read_text().splitlines())  # after you have looked at them: valgap review RUN
keep = [i for i, (path, _) in enumerate(train_dataset.samples) if path not in suspects]
train_dataset = torch.utils.data.Subset(train_dataset, keep)
""",
    "one_class_validation": _SPLIT,
    "unmatched_classes": _ONE_MAP,
    "normalization_mismatch": _SAME_NORMALIZE,
    "double_normalization": _SAME_NORMALIZE,
    "value_range_mismatch": """
transforms.ToTensor()  # 0..255 to 0..1, once and in both phases; images that are floats already: image / 255
""",
    "channel_order_mismatch": """
image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)  # OpenCV reads blue first, the weights expect red first
""",
    "augmented_validation": _VAL_TRANSFORM,
    "geometry_mismatch": _VAL_TRANSFORM,
    "scrambled_pixels": """
image = image.permute(2, 0, 1)  # (H, W, C) to (C, H, W); reshape and view would mix the pixels
""",
    "weights_not_loaded": """
model = torchvision.models.resnet50(weights=torchvision.models.ResNet50_Weights.DEFAULT)
# or, from a file, so that a wrong key is an error:
model.load_state_dict(torch.load(path, weights_only=True), strict=True)
""",
    "batchnorm_drift": _HOLD_BATCHNORM,
    "untrained_parameters": """
model.fc = torch.nn.Linear(model.fc.in_features, num_classes)  # first the layers ...
optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2, momentum=0.9)  # ... then the optimizer
""",
    "squashed_logits": """
logits = model(images)  # no softmax in forward
loss = torch.nn.functional.cross_entropy(logits, labels)  # applies log-softmax itself
probabilities = logits.softmax(1)  # for showing only
""",
    "wrong_head_size": """
model.fc = torch.nn.Linear(model.fc.in_features, len(train_dataset.classes))
""",
    "tiny_batch_batchnorm": _HOLD_BATCHNORM,
    "accumulated_gradients": """
optimizer.zero_grad()  # before each backward
loss.backward()
optimizer.step()
""",
    "unshuffled_training": """
train_loader = DataLoader(train_dataset, batch_size=32, shuffle=True)
""",
    "nonfinite_loss": """
loss.backward()
torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
optimizer.step()
""",
    "training_on_validation": _EVAL,
    "train_mode_at_validation": _EVAL,
    "eval_mode_at_training": """
for epoch in range(epochs):
    model.train()  # the last validation left it in eval mode
    for images, labels in train_loader:
        ...
""",
    "miscomputed_metric": """
right, seen = 0, 0
for images, labels in val_loader:
    right += (model(images).argmax(1) == labels).sum().item()
    seen += len(labels)
accuracy = right / seen  # once, after all batches
""",
    "overtraining": _KEEP_BEST,
    "last_not_best_checkpoint": _KEEP_BEST,
    "shared_initial_state": """
best_state = copy.deepcopy(model.state_dict())  # state_dict() alone goes on changing with the model
""",
    "wrong_schedule": """
for epoch in range(epochs):
    for images, labels in train_loader:
        ...
    scheduler.step()  # once an epoch, unless the schedule was made for steps
""",
    "overconfidence": """
temperature = torch.nn.Parameter(torch.ones(()))
fit = torch.optim.LBFGS([temperature], lr=0.1, max_iter=50)
def closure():
    fit.zero_grad()
    loss = torch.nn.functional.cross_entropy(val_logits / temperature, val_labels)
    loss.backward()
    return loss
fit.step(closure)  # then divide logits by the temperature
""",
}

SNIPPETS: Mapping[str, str] = {name: code.strip("\n") for name, code in _SOURCES.items()}

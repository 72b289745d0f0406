"""skorch's documented way to fine-tune, on folders: the program of its transfer-learning notebook, small and on a processor.

The notebook itself asks for CUDA, and its `fit(dataset, y=None)` fails with the skorch and scikit-learn of today.
"""

import sys

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Checkpoint, Freezer, LRScheduler
from skorch.helper import predefined_split
from torchvision import datasets, models, transforms

torch.manual_seed(360)
normal = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
augmented = [transforms.RandomResizedCrop(64, (0.5, 1.0)), transforms.RandomHorizontalFlip(), transforms.ToTensor(), normal]
train = datasets.ImageFolder(f"{sys.argv[1]}/train", transforms.Compose(augmented))
plain = [transforms.Resize(64), transforms.CenterCrop(64), transforms.ToTensor(), normal]
val = datasets.ImageFolder(f"{sys.argv[1]}/val", transforms.Compose(plain))


class Pretrained(torch.nn.Module):
    """A pretrained network with a new head."""

    def __init__(self, outputs):
        super().__init__()
        self.model = models.resnet18(weights="DEFAULT")
        self.model.fc = torch.nn.Linear(self.model.fc.in_features, outputs)

    def forward(self, x):
        return self.model(x)


callbacks = [
    LRScheduler("StepLR", step_size=7, gamma=0.1),
    Checkpoint(monitor="valid_acc_best"),
    Freezer(lambda name: not name.startswith("model.fc")),
]
net = NeuralNetClassifier(
    Pretrained,
    module__outputs=len(train.classes),
    criterion=torch.nn.CrossEntropyLoss,
    classes=list(range(len(train.classes))),
    lr=float(sys.argv[3]) if len(sys.argv) > 3 else 0.01,
    batch_size=16,
    max_epochs=int(sys.argv[2]),
    optimizer=torch.optim.SGD,
    optimizer__momentum=0.9,
    iterator_train__shuffle=True,
    train_split=predefined_split(val),
    callbacks=callbacks,
)
net.fit(train, y=None)

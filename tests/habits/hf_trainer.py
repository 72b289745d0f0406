"""Hugging Face Trainer with a data set of dicts; the loss is computed inside the model."""

import os
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import datasets, transforms
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments


class Dicts(Dataset):
    def __init__(self, folder):
        t = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])
        self.base = datasets.ImageFolder(folder, t)

    def __len__(self):
        return len(self.base)

    def __getitem__(self, i):
        x, y = self.base[i]
        return {"pixel_values": x, "labels": y}


def accuracy(prediction):
    return {"accuracy": float(np.mean(prediction.predictions.argmax(1) == prediction.label_ids))}


config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
torch.manual_seed(5)
model = ResNetForImageClassification(config)
with tempfile.TemporaryDirectory() as out:
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            out,
            num_train_epochs=2,
            per_device_train_batch_size=8,
            per_device_eval_batch_size=8,
            eval_strategy="epoch",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=5,
        ),
        train_dataset=Dicts(sys.argv[1] + "/train"),
        eval_dataset=Dicts(sys.argv[1] + "/val"),
        compute_metrics=accuracy,
    )
    trainer.train()
for row in trainer.state.log_history:
    if "eval_accuracy" in row:
        print(f"val acc {row['eval_accuracy']:.6f}")
print("weights", sum(p.double().sum().item() for p in model.parameters()))

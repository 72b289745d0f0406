"""Hugging Face Trainer: one callback records the training. Usage: python with_trainer.py DATA [--out RUN], then: valgap diagnose RUN"""

import argparse
import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from torchvision import datasets, transforms
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

from valgap.integrations.transformers import ValgapCallback


def collate(batch):
    return {"pixel_values": torch.stack([image for image, _ in batch]), "labels": torch.tensor([label for _, label in batch])}


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--out")
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    torch.manual_seed(0)
    prepare = transforms.Compose(
        [transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)]
    )
    train, val = (datasets.ImageFolder(f"{args.data}/{split}", prepare) for split in ("train", "val"))
    config = ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=len(train.classes)
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=ResNetForImageClassification(config),
            args=TrainingArguments(
                folder,
                num_train_epochs=args.epochs,
                per_device_train_batch_size=8,
                eval_strategy="epoch",
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
                remove_unused_columns=False,
            ),
            data_collator=collate,
            train_dataset=train,
            eval_dataset=val,
            compute_metrics=accuracy,
            callbacks=[ValgapCallback(out=args.out)],
        )
        trainer.train()
    values = [row["eval_accuracy"] for row in trainer.state.log_history if "eval_accuracy" in row]
    print(f"val acc {values[-1]:.6f}")

"""What image classifiers' programs print, in figures of our own, each with the reading that a person would give it.

An entry is (format, text, readings). A reading is "VALUE METRIC UNIT SIDE KIND":

- METRIC: acc (top-1 accuracy), top (top-k accuracy, k > 1), loss. Every other number of the text must be read as none of these.
- UNIT: % (percent), share, ? (cannot be known from the text), - (a loss).
- SIDE: train, val, test, ? (not said).
- KIND: value, running (of a batch, or so far), average (of a meter), best, class (of one class), model (of another model: averaged, teacher).

``half`` splits the entries by a digest of their text: the reader was written by looking at "tuning" alone.
"""

# ruff: noqa: E501
from __future__ import annotations

import hashlib
from typing import NamedTuple


class Entry(NamedTuple):
    """One printed text and how it reads."""

    format: str
    text: str
    readings: tuple[str, ...]


def half(entry: Entry) -> str:
    """ "tuning" or "held-out", by the text alone."""
    return "tuning" if hashlib.sha256(entry.text.encode()).digest()[0] % 2 == 0 else "held-out"


def _e(format: str, text: str, *readings: str) -> Entry:
    return Entry(format, text, readings)


ENTRIES = (
    # meters of "value (average)"
    _e(
        "timm",
        "Train: 2 [   3/6 ( 57%)]  Loss: 1.71 (1.93)  Time: 0.412s,   38.83/s  (0.503s,   31.80/s)  LR: 5.000e-03  Data: 0.011 (0.094)",
        "1.71 loss - train running",
        "1.93 loss - train average",
    ),
    _e(
        "timm",
        "Test: [   4/4]  Time: 0.131 (0.217)  Loss:   1.402 ( 1.377)  Acc@1:  31.250 ( 37.500)  Acc@5:  81.250 ( 84.722)",
        "1.402 loss - test running",
        "1.377 loss - test average",
        "31.25 acc % test running",
        "37.5 acc % test average",
        "81.25 top % test running",
        "84.722 top % test average",
    ),
    _e(
        "timm",
        "Test (EMA): [   4/4]  Time: 0.120 (0.201)  Loss:   1.512 ( 1.490)  Acc@1:  25.000 ( 29.167)  Acc@5:  75.000 ( 79.861)",
        "1.512 loss - test model",
        "1.49 loss - test model",
        "25 acc % test model",
        "29.167 acc % test model",
        "75 top % test model",
        "79.861 top % test model",
    ),
    _e("timm", "*** Best metric: 41.66666793823242 (epoch 2)"),
    _e(
        "timm",
        "Current checkpoints:\n ('./output/train/x/checkpoint-2.pth.tar', 41.66666793823242)\n ('./output/train/x/checkpoint-1.pth.tar', 37.5)",
    ),
    _e("timm", " * Acc@1 76.130 (23.870) Acc@5 92.862 (7.138)", "76.13 acc % ? value", "92.862 top % ? value"),
    _e(
        "torchvision references",
        "Epoch: [1]  [ 4/13]  eta: 0:00:03  lr: 0.1  img/s: 48.71  loss: 1.2210 (1.4052)  acc1: 50.0000 (41.2500)  acc5: 93.7500 (88.7500)  time: 0.3312  data: 0.0121  max mem: 311",
        "1.221 loss - ? running",
        "1.4052 loss - ? average",
        "50 acc % ? running",
        "41.25 acc % ? average",
        "93.75 top % ? running",
        "88.75 top % ? average",
    ),
    _e(
        "torchvision references",
        "Test:   [0/5]  eta: 0:00:02  loss: 1.1011 (1.1011)  acc1: 62.5000 (62.5000)  acc5: 100.0000 (100.0000)  time: 0.4410  data: 0.3001  max mem: 311\nTest: Total time: 0:00:01\nTest:  Acc@1 58.333 Acc@5 97.917",
        "1.1011 loss - test running",
        "1.1011 loss - test average",
        "62.5 acc % test running",
        "62.5 acc % test average",
        "100 top % test running",
        "100 top % test average",
        "58.333 acc % test value",
        "97.917 top % test value",
    ),
    _e("torchvision references", "Test: EMA Acc@1 12.500 Acc@5 66.667", "12.5 acc % test model", "66.667 top % test model"),
    _e(
        "imagenet example",
        "Epoch: [0][10/63]\tTime  0.512 ( 0.731)\tData  0.010 ( 0.122)\tLoss 6.9302e+00 (7.0411e+00)\tAcc@1   0.00 (  3.41)\tAcc@5   6.25 (  9.66)",
        "6.9302 loss - ? running",
        "7.0411 loss - ? average",
        "0 acc % ? running",
        "3.41 acc % ? average",
        "6.25 top % ? running",
        "9.66 top % ? average",
    ),
    _e(
        "imagenet example",
        "Test: [ 10/125]\tTime  0.101 ( 0.140)\tLoss 1.0312e+00 (1.2207e+00)\tAcc@1  43.75 ( 41.20)\tAcc@5 100.00 ( 92.10)",
        "1.0312 loss - test running",
        "1.2207 loss - test average",
        "43.75 acc % test running",
        "41.2 acc % test average",
        "100 top % test running",
        "92.1 top % test average",
    ),
    _e("imagenet example", " *   Acc@1 43.750 Acc@5 56.250", "43.75 acc % ? value", "56.25 top % ? value"),
    _e("imagenet example", "* Prec@1 0.781 Prec@5 3.906", "0.781 acc % ? value", "3.906 top % ? value"),
    _e(
        "old imagenet",
        "Test: [20/40]\tTime 0.110 (0.131)\tLoss 1.0021 (0.9811)\tPrec@1 71.875 (70.213)\tPrec@5 96.875 (97.004)",
        "1.0021 loss - test running",
        "0.9811 loss - test average",
        "71.875 acc % test running",
        "70.213 acc % test average",
        "96.875 top % test running",
        "97.004 top % test average",
    ),
    _e(
        "swin",
        "[2026-03-02 11:02:07 swin_tiny] (main.py 271): INFO  * Acc@1 62.500 Acc@5 91.667",
        "62.5 acc % ? value",
        "91.667 top % ? value",
    ),
    _e(
        "swin",
        "[2026-03-02 11:02:07 swin_tiny] (main.py 166): INFO Accuracy of the network on the 48 test images: 62.5%",
        "62.5 acc % test value",
    ),
    _e("swin", "[2026-03-02 11:02:07 swin_tiny] (main.py 171): INFO Max accuracy: 64.58%", "64.58 acc % ? best"),
    _e(
        "deit",
        '{"train_lr": 0.0005, "train_loss": 1.73, "test_loss": 1.21, "test_acc1": 58.33, "test_acc5": 95.83, "epoch": 4, "n_parameters": 5717416}',
        "1.73 loss - train value",
        "1.21 loss - test value",
        "58.33 acc % test value",
        "95.83 top % test value",
    ),
    # tutorials
    _e("mnist example", "Train Epoch: 1 [640/60000 (1%)]\tLoss: 1.904512", "1.904512 loss - train value"),
    _e(
        "mnist example",
        "\nTest set: Average loss: 0.0471, Accuracy: 9840/10000 (98%)\n",
        "0.0471 loss - test average",
        "98 acc % test value",
    ),
    _e("mnist_hogwild", "4711\tTrain Epoch: 1 [1280/60000 (2%)]\tLoss: 2.104100", "2.1041 loss - train value"),
    _e(
        "transfer tutorial",
        "Epoch 3/24\n----------\ntrain Loss: 0.4410 Acc: 0.8033\nval Loss: 0.2207 Acc: 0.9216\n",
        "0.441 loss - train value",
        "0.8033 acc share train value",
        "0.2207 loss - val value",
        "0.9216 acc share val value",
    ),
    _e("transfer tutorial", "Training complete in 1m 12s\nBest val Acc: 0.941176", "0.941176 acc share val best"),
    _e("cifar10 tutorial", "[1,  2000] loss: 2.204", "2.204 loss - ? value"),
    _e("cifar10 tutorial", "Accuracy of the network on the 10000 test images: 54 %", "54 acc % test value"),
    _e(
        "cifar10 tutorial",
        "Accuracy for class: plane is 0.0 %\nAccuracy for class: car   is 71.3 %",
        "0 acc % ? class",
        "71.3 acc % ? class",
    ),
    _e("old cifar10 tutorial", "Accuracy of plane : 52 %\nAccuracy of   car : 66 %", "52 acc % ? class", "66 acc % ? class"),
    _e(
        "quickstart tutorial",
        "Test Error: \n Accuracy: 65.6%, Avg loss: 1.071123 \n",
        "65.6 acc % test value",
        "1.071123 loss - test average",
    ),
    _e("quickstart tutorial", "loss: 2.303494  [   64/60000]", "2.303494 loss - ? value"),
    _e("yunjey", "Epoch [2/5], Step [100/600], Loss: 0.1832", "0.1832 loss - ? value"),
    _e("yunjey", "Test Accuracy of the model on the 10000 test images: 97.85 %", "97.85 acc % test value"),
    _e(
        "bentrevett",
        "Epoch: 03 | Epoch Time: 0m 5s\n\tTrain Loss: 0.512 | Train Acc: 80.21%\n\t Val. Loss: 0.602 |  Val. Acc: 78.13%",
        "0.512 loss - train value",
        "80.21 acc % train value",
        "0.602 loss - val value",
        "78.13 acc % val value",
    ),
    _e(
        "d2l",
        "loss 0.312, train acc 0.887, test acc 0.851\n1203.4 examples/sec on cpu",
        "0.312 loss - ? value",
        "0.887 acc share train value",
        "0.851 acc share test value",
    ),
    _e("cs231n", "Checking accuracy on validation set\nGot 412 / 1000 correct (41.20)", "41.2 acc % val value"),
    _e("cs231n", "Got 812 / 1000 with accuracy 81.20", "81.2 acc % ? value"),
    _e(
        "udacity",
        "Epoch: 3 \tTraining Loss: 0.512233 \tValidation Loss: 0.601122",
        "0.512233 loss - train value",
        "0.601122 loss - val value",
    ),
    _e("udacity", "Test Accuracy: 81% (814/1000)", "81 acc % test value"),
    _e(
        "udacity",
        "Test Accuracy of airplane: 72% (72/100)\nTest Accuracy of automobile:  0% ( 0/100)\n\nTest Accuracy (Overall): 70% (7013/10000)",
        "72 acc % test class",
        "0 acc % test class",
        "70 acc % test value",
    ),
    _e(
        "classes",
        "Per-class accuracy:\n  ant: 0.0000\n  bee: 0.9231\nOverall accuracy: 0.5200",
        "0 acc ? ? class",
        "0.9231 acc share ? class",
        "0.52 acc share ? value",
    ),
    _e(
        "classes",
        "class 0 acc 0.0 | class 1 acc 0.75 | class 2 acc 1.0",
        "0 acc ? ? class",
        "0.75 acc share ? class",
        "1 acc ? ? class",
    ),
    # bars
    _e(
        "tqdm",
        "val: 100%|██████████| 5/5 [00:01<00:00,  4.21it/s, loss=0.61, acc=0.78]",
        "0.61 loss - val value",
        "0.78 acc share val value",
    ),
    _e(
        "tqdm",
        "Epoch 2/10 [Train]:  40%|████      | 4/10 [00:02<00:03,  1.93it/s, loss=1.2034, acc=51.56%]",
        "1.2034 loss - train value",
        "51.56 acc % train value",
    ),
    _e(
        "tqdm",
        "Testing: Acc: 71.43% Loss: 0.8812: 100%|██████████| 7/7 [00:03<00:00,  2.10it/s]",
        "71.43 acc % test value",
        "0.8812 loss - test value",
    ),
    _e(
        "tqdm",
        "\rloss 0.90:  50%|#####     | 2/4 [00:00<00:00, 8.0it/s]\rloss 0.82: 100%|##########| 4/4 [00:00<00:00, 8.3it/s]",
        "0.82 loss - ? value",
    ),
    _e(
        "kuangliu",
        " [=========================>]  Step: 41ms | Tot: 2s115ms | Loss: 0.612 | Acc: 79.000% (79/100) 5/5 ",
        "0.612 loss - ? value",
        "79 acc % ? value",
    ),
    _e(
        "keras",
        "\x1b[1m5/5\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m\x1b[37m\x1b[0m \x1b[1m1s\x1b[0m 103ms/step - accuracy: 0.6125 - loss: 1.0122 - val_accuracy: 0.5833 - val_loss: 1.1004",
        "0.6125 acc share train value",
        "1.0122 loss - train value",
        "0.5833 acc share val value",
        "1.1004 loss - val value",
    ),
    _e(
        "keras",
        "Epoch 2/3\n5/5 [==============================] - 1s 110ms/step - loss: 0.9021 - acc: 0.7031 - val_loss: 0.9917 - val_acc: 0.6667",
        "0.9021 loss - train value",
        "0.7031 acc share train value",
        "0.9917 loss - val value",
        "0.6667 acc share val value",
    ),
    _e("keras", "5/5 - 1s - 120ms/step - accuracy: 0.8123 - loss: 0.5012", "0.8123 acc share ? value", "0.5012 loss - ? value"),
    _e(
        "keras",
        "Epoch 4: val_accuracy improved from 0.58333 to 0.62500, saving model to best.keras",
        "0.625 acc share val best",
        "0.58333 acc share val best",
    ),
    _e("keras", "Epoch 5: val_accuracy did not improve from 0.62500", "0.625 acc share val best"),
    _e(
        "lightning",
        "Epoch 1: 100%|██████████| 7/7 [00:01<00:00,  5.20it/s, v_num=3, train_loss=0.812, val_loss=0.901, val_acc=0.667]",
        "0.812 loss - train value",
        "0.901 loss - val value",
        "0.667 acc share val value",
    ),
    _e(
        "lightning",
        "────────────────────────────────────────\n       Test metric             DataLoader 0\n────────────────────────────────────────\n        test_acc            0.7083333134651184\n        test_loss           0.8123410940170288\n────────────────────────────────────────",
        "0.7083333134651184 acc share test value",
        "0.8123410940170288 loss - test value",
    ),
    _e(
        "lightning rich",
        "┏━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━┓\n┃  Validate metric ┃   DataLoader 0   ┃\n┡━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━┩\n│     val_acc      │      0.6875      │\n│     val_loss     │      0.9031      │\n└──────────────────┴──────────────────┘",
        "0.6875 acc share val value",
        "0.9031 loss - val value",
    ),
    # tables
    _e(
        "fastai",
        "epoch     train_loss  valid_loss  accuracy  time    \n0         1.204412    0.812231    0.708333  00:02     \n1         0.902311    0.701239    0.750000  00:02     ",
        "1.204412 loss - train value",
        "0.812231 loss - val value",
        "0.708333 acc share ? value",
        "0.902311 loss - train value",
        "0.701239 loss - val value",
        "0.75 acc share ? value",
    ),
    _e(
        "fastai",
        "epoch     train_loss  valid_loss  error_rate  accuracy  time    \n2         0.304412    0.412231    0.125000    0.875000  00:05     ",
        "0.304412 loss - train value",
        "0.412231 loss - val value",
        "0.875 acc share ? value",
    ),
    _e(
        "skorch",
        "  epoch    train_loss    valid_acc    valid_loss     dur\n-------  ------------  -----------  ------------  ------\n      1        \x1b[36m1.2044\x1b[0m       \x1b[32m0.5417\x1b[0m        \x1b[35m1.1022\x1b[0m  0.9124\n      2        \x1b[36m0.9312\x1b[0m       0.5000        1.1502  0.8923",
        "1.2044 loss - train value",
        "0.5417 acc share val value",
        "1.1022 loss - val value",
        "0.9312 loss - train value",
        "0.5 acc share val value",
        "1.1502 loss - val value",
    ),
    _e(
        "ultralytics",
        "      Epoch    GPU_mem       loss  Instances       Size\n        2/3         0G      1.204          4        224: 100%|██████████| 7/7 [00:03<00:00,  2.01it/s]\n               classes   top1_acc   top5_acc: 100%|██████████| 2/2 [00:00<00:00,  4.11it/s]\n                   all       0.65          1",
        "1.204 loss - ? value",
        "0.65 acc share ? value",
        "1 top ? ? value",
    ),
    _e(
        "ultralytics",
        "\x1b[K               classes   top1_acc   top5_acc: 100% ━━━━━━━━━━━━ 2/2 11.2it/s 0.2s\n                   all      0.475      0.975",
        "0.475 acc share ? value",
        "0.975 top share ? value",
    ),
    _e(
        "markdown",
        "| Epoch | Train Loss | Train Acc | Val Loss | Val Acc |\n|-------|-----------:|----------:|---------:|--------:|\n| 1     |     1.2101 |    51.25% |   1.1002 |  54.17% |",
        "1.2101 loss - train value",
        "51.25 acc % train value",
        "1.1002 loss - val value",
        "54.17 acc % val value",
    ),
    _e(
        "rich",
        "┏━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━━┓\n┃ Epoch ┃ train loss ┃ val acc (%) ┃\n┡━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━━┩\n│ 1     │ 1.31       │ 45.8        │\n│ 2     │ 1.02       │ 58.3        │\n└───────┴────────────┴─────────────┘",
        "1.31 loss - train value",
        "45.8 acc % val value",
        "1.02 loss - train value",
        "58.3 acc % val value",
    ),
    _e(
        "csv",
        "epoch,train_loss,train_acc,val_loss,val_acc,lr\n3,0.7012,0.7400,0.8120,0.7083,0.001",
        "0.7012 loss - train value",
        "0.74 acc share train value",
        "0.812 loss - val value",
        "0.7083 acc share val value",
    ),
    _e(
        "columns",
        "Epoch  Train Loss  Train Acc  Test Loss  Test Acc\n    1      1.4021     0.4101     1.3302    0.4583",
        "1.4021 loss - train value",
        "0.4101 acc share train value",
        "1.3302 loss - test value",
        "0.4583 acc share test value",
    ),
    _e(
        "sklearn",
        "              precision    recall  f1-score   support\n\n         ant       0.80      0.50      0.62        24\n         bee       0.64      0.88      0.74        24\n\n    accuracy                           0.69        48\n   macro avg       0.72      0.69      0.68        48\nweighted avg       0.72      0.69      0.68        48",
        "0.69 acc share ? value",
    ),
    # dicts
    _e(
        "transformers",
        "{'eval_loss': 0.61224, 'eval_accuracy': 0.7708333333333334, 'eval_runtime': 1.2031, 'eval_samples_per_second': 39.9, 'eval_steps_per_second': 4.98, 'epoch': 2.0}",
        "0.61224 loss - val value",
        "0.7708333333333334 acc share val value",
    ),
    _e(
        "transformers",
        "{'loss': 0.9012, 'grad_norm': 3.2014, 'learning_rate': 1.6666e-05, 'epoch': 0.71}",
        "0.9012 loss - ? value",
    ),
    _e(
        "transformers",
        "{'train_runtime': 30.21, 'train_samples_per_second': 19.8, 'train_steps_per_second': 0.695, 'train_loss': 0.7719, 'epoch': 3.0}",
        "0.7719 loss - train value",
    ),
    _e(
        "transformers",
        "***** eval metrics *****\n  epoch                   =        3.0\n  eval_accuracy           =     0.7917\n  eval_loss               =     0.5821\n  eval_runtime            = 0:00:01.20\n  eval_samples_per_second =     39.912",
        "0.7917 acc share val value",
        "0.5821 loss - val value",
    ),
    _e(
        "accelerate",
        "epoch 1: 83.33",
    ),
    _e("accelerate", "epoch 1: {'accuracy': 0.8333333333333334}", "0.8333333333333334 acc share ? value"),
    _e("accelerate", "03/02/2026 11:04:21 - INFO - __main__ - epoch 0: {'accuracy': 0.7083}", "0.7083 acc share ? value"),
    _e(
        "json",
        '{"epoch": 3, "train": {"loss": 0.51, "acc": 0.81}, "val": {"loss": 0.62, "acc": 0.77}}',
        "0.51 loss - train value",
        "0.81 acc share train value",
        "0.62 loss - val value",
        "0.77 acc share val value",
    ),
    _e(
        "json",
        '{"epoch": 3, "accuracy": 0.9, "val_accuracy": 0.7083, "lr": 0.001, "time": "2026-03-02T11:04:21.120Z"}',
        "0.9 acc share train value",
        "0.7083 acc share val value",
    ),
    _e(
        "dict",
        "{'val': {'top1': tensor(58.3333), 'top5': tensor(97.9167)}}",
        "58.3333 acc % val value",
        "97.9167 top % val value",
    ),
    # loggers
    _e("ignite", "2026-03-02 11:04:21,512 ignite.engine.Engine INFO: Engine run complete. Time taken: 00:00:03.122"),
    _e(
        "ignite",
        "Validation Results - Epoch: 3  Avg accuracy: 0.71 Avg loss: 0.83",
        "0.71 acc share val average",
        "0.83 loss - val average",
    ),
    _e(
        "ignite",
        "2026-03-02 11:04:22,001 CIFAR10-Training INFO: Epoch[2] - Evaluation time (seconds): 0.41 - Test metrics:\n\tAccuracy: 0.7291\n\tLoss: 0.8012",
        "0.7291 acc share test value",
        "0.8012 loss - test value",
    ),
    _e(
        "mmpretrain",
        "03/02 11:04:22 - mmengine - INFO - Epoch(val) [3][5/5]    accuracy/top1: 62.5000  accuracy/top5: 97.9167  data_time: 0.1120  time: 0.2011",
        "62.5 acc % val value",
        "97.9167 top % val value",
    ),
    _e(
        "mmpretrain",
        "03/02 11:04:20 - mmengine - INFO - Epoch(train)  [3][10/13]  lr: 1.0000e-03  eta: 0:00:21  time: 0.3312  data_time: 0.0121  memory: 311  loss: 0.9021",
        "0.9021 loss - train value",
    ),
    _e(
        "catalyst",
        "valid (2/3) accuracy01: 0.7083 | accuracy03: 0.9375 | loss: 0.8123",
        "0.7083 acc share val value",
        "0.9375 top share val value",
        "0.8123 loss - val value",
    ),
    _e("logging", "INFO:root:epoch 3 validation accuracy 0.7292 lr 0.00100", "0.7292 acc share val value"),
    _e("logging", "INFO:train:val_acc=0.7292 val_loss=0.8041", "0.7292 acc share val value", "0.8041 loss - val value"),
    _e("logging", "2026-03-02 11:04:22,001 - train - INFO - Epoch 3: accuracy 72.92", "72.92 acc % ? value"),
    _e(
        "loguru",
        "2026-03-02 11:04:22.001 | INFO     | __main__:train:45 - accuracy: 0.7292 loss: 0.8041",
        "0.7292 acc share ? value",
        "0.8041 loss - ? value",
    ),
    _e("glog", "I0302 11:04:22.001233 4711 main.py:120] step 200 eval accuracy = 0.7292", "0.7292 acc share val value"),
    _e(
        "wandb",
        "wandb:    train/acc 0.8110\nwandb:      val/acc 0.7292\nwandb:     val/loss 0.8041",
        "0.811 acc share train value",
        "0.7292 acc share val value",
        "0.8041 loss - val value",
    ),
    _e(
        "mxnet",
        "Epoch[3] Train-accuracy=0.810000\nEpoch[3] Validation-accuracy=0.729167",
        "0.81 acc share train value",
        "0.729167 acc share val value",
    ),
    _e("flax", "eval epoch: 3, loss: 0.8041, accuracy: 72.92", "0.8041 loss - val value", "72.92 acc % val value"),
    # several models, best so far, other metrics
    _e("mean teacher", "student acc 70.83 | teacher acc 75.00", "70.83 acc % ? value", "75 acc % ? model"),
    _e(
        "ema",
        "epoch  9  cutmix loss 1.987  cutmix acc 33.1%  ema val loss 1.456  ema val acc 49.2%",
        "1.987 loss - train value",
        "33.1 acc % train value",
        "1.456 loss - val model",
        "49.2 acc % val model",
    ),
    _e("ema", "val acc 0.7083 (ema 0.7292)", "0.7083 acc share val value", "0.7292 acc share val model"),
    _e("best", "Epoch 7 val_acc=0.7083 best_acc=0.7500", "0.7083 acc share val value", "0.75 acc share val best"),
    _e("best", "val acc: 70.83% (best: 75.00% at epoch 5)", "70.83 acc % val value", "75 acc % val best"),
    _e("other metrics", "val f1 0.71 precision 0.70 recall 0.72 balanced accuracy 0.69 auc 0.88"),
    _e("other metrics", "Top-1 error: 29.17  Top-5 error: 4.17"),
    _e("other metrics", "top-1 accuracy: 70.83%, top-5 accuracy: 97.92%", "70.83 acc % ? value", "97.92 top % ? value"),
    _e("other metrics", "kNN top1: 50.10 linear top1: 61.20", "50.1 acc % ? model", "61.2 acc % ? model"),
    _e("after", "81.25% accuracy on the validation set after 3 epochs", "81.25 acc % val value"),
    _e("after", "accuracy 70.83 % (34 of 48 right)", "70.83 acc % ? value"),
    _e("setup", "torch 2.14.0, torchvision 0.29.1, Python 3.12.4, CUDA 12.8"),
    _e("setup", "lr=0.001, weight_decay=1e-4, momentum=0.9, batch_size=32, label_smoothing=0.1, val_split=0.2"),
    _e("setup", "Loading 200 training images and 48 validation images of 4 classes"),
    _e("setup", "target accuracy 0.9, stop if validation loss rises for 5 epochs"),
    _e(
        "sentence",
        "After epoch 3 the model gets 34 of 48 validation images right, an accuracy of 0.7083.",
        "0.7083 acc share val value",
    ),
    _e("sentence", "Epoch 3 done in 12.1s: train 0.51/81.0%, val 0.80/70.8%"),
    _e("gap", "train acc 0.91 val acc 0.71 gap 0.20", "0.91 acc share train value", "0.71 acc share val value"),
    _e("short", "Ep 3 | tl 0.51 | vl 0.80 | va 0.708"),
    _e(
        "short", "Validation: acc 0.7083, loss 0.8041; lr 1.0e-03; 3.2 s", "0.7083 acc share val value", "0.8041 loss - val value"
    ),
    # formats met later, in public threads
    _e(
        "spark",
        "2026-03-02 11:04:20 INFO  Optimizer$:152 - [Epoch 2 96/200][Iteration 18][Wall Clock 54.544249084s] Top1Accuracy is Accuracy(correct: 34, count: 48, accuracy: 0.7083)",
        "0.7083 acc share ? value",
    ),
    _e(
        "autogluon",
        "INFO:ImageEstimator:[Epoch 0] Current best top-1: 0.708300 vs previous -inf, saved to ./best.pkl",
        "0.7083 acc share ? best",
    ),
    _e(
        "autogluon",
        "INFO:ImageEstimator:Epoch[1] Batch [49]\tSpeed: 141.902223 samples/sec\taccuracy=0.611562 lr=0.010000",
        "0.611562 acc share ? value",
    ),
    _e("autogluon", "INFO:ImageEstimator:[Epoch 1] training: accuracy=0.668898", "0.668898 acc share train value"),
    _e(
        "tensorflow",
        "I0302 11:04:20.948817 47836397217664 tf_logging.py:115] 2026-03-02 11:04:20.948735: Step 270: Validation accuracy = 70.8% (N=48)",
        "70.8 acc % val value",
    ),
    _e(
        "ultralytics",
        "results_dict: {'metrics/accuracy_top1': 0.36000001430511475, 'metrics/accuracy_top5': 1.0, 'fitness': 0.6800000071525574}",
        "0.36000001430511475 acc share ? value",
        "1 top ? ? value",
    ),
    _e(
        "glog",
        "I0302 11:04:20.818868 140547172456256 train.py:23] epoch 10 best test acc: 0.7120, train loss: 1.3633; train acc: 0.5100 val acc: 0.5200 test acc: 0.5300",
        "0.712 acc share test best",
        "1.3633 loss - train value",
        "0.51 acc share train value",
        "0.52 acc share val value",
        "0.53 acc share test value",
    ),
    _e(
        "mmcls",
        '{"mode": "val", "epoch": 7, "iter": 10, "lr": 0.24261, "accuracy_top-1": 54.66667, "accuracy_top-5": 99.0}',
        "54.66667 acc % val value",
        "99 top % val value",
    ),
    _e(
        "mmcls",
        "[>>>>>>>>>>>>>>>>>>>>>] 50/50, 163.1 task/s, elapsed: 0s, ETA:     0s2026-03-02 11:04:22,901 - mmcls - INFO - Epoch(val) [1][2]\taccuracy_top-1: 22.0000, accuracy_top-3: 38.0000",
        "22 acc % val value",
        "38 top % val value",
    ),
    _e(
        "mmselfsup",
        "2026-03-02 11:04:22,948 - openselfsup - INFO - Epoch [2][40/50]  lr: 1.000e-04, eta: 0:00:11, time: 0.073, loss.1: 5.5691, acc.1: 9.6953, loss.2: 4.0403, acc.2: 26.8594, loss: 15.5076",
        "15.5076 loss - ? value",
    ),
    _e("mmselfsup", "2026-03-02 11:04:22,748 - openselfsup - INFO - head1_top1: 0.934", "0.934 acc share ? model"),
    _e("several heads", "ss_accuracy: 0.31 0.32 0.35 class_accuracy: 0.5 0.6 0.7 best_accuracy 0.81", "0.81 acc share ? best"),
    _e("history", "val_accs = [0.51, 0.62, 0.7]"),
    _e("history", "Loss [1, 100](epoch, minibatch):  9.65963740825653", "9.65963740825653 loss - ? value"),
    _e(
        "acnet",
        "2026-03-02 11:04:22,240 train INFO: val at epoch 10, top1=78.26000, top5=98.56000, loss=0.697072",
        "78.26 acc % val value",
        "98.56 top % val value",
        "0.697072 loss - val value",
    ),
    _e(
        "catalyst",
        "0/2 * Epoch 0 (valid): _base/lr=0.0010 | _timers/_fps=5766.3016 | accuracy01=33.5938 | accuracy03=55.4688 | loss=2.1173",
        "33.5938 acc % val value",
        "55.4688 top % val value",
        "2.1173 loss - val value",
    ),
    _e(
        "camel",
        "Epoch: 0001  TrAcc: 0.416 ValAcc: 0.420 TrPrec: 0.407 ValPrec: 0.426 TrF1: 0.409 ValF1: 0.413 TrTopK: 0.869 ValTopK: 0.878 TrLoss: 1.226 ValLoss: 1.225",
        "0.416 acc share train value",
        "0.42 acc share val value",
        "1.226 loss - train value",
        "1.225 loss - val value",
    ),
    _e(
        "timm csv",
        "epoch,train_loss,eval_loss,eval_top1,eval_top5\n5,4.47,4.0431,9.9100,29.9000",
        "4.47 loss - train value",
        "4.0431 loss - val value",
        "9.91 acc % val value",
        "29.9 top % val value",
    ),
    _e(
        "convnext",
        '{"train_lr": 7.8e-05, "train_loss": 3.195, "test_loss": 0.93, "test_acc1": 58.83, "test_acc1_ema": 57.3, "epoch": 25}',
        "3.195 loss - train value",
        "0.93 loss - test value",
        "58.83 acc % test value",
        "57.3 acc % test model",
    ),
    _e(
        "vmamba",
        "[2026-03-02 11:04:35 vssm1] (main.py 186): INFO Accuracy of the network ema on the 48 test images: 67.2%",
        "67.2 acc % test model",
    ),
    _e("bare side", " 3  loss 1.234  val 45.2%", "1.234 loss - ? value", "45.2 acc % val value"),
    _e("bare side", "validation 10% done"),
)

"""How often re-runs confirm what is not there: small sound programs, as if a cause were suspected; writes results/proof_sound.md.

python benchmarks/proof_sound.py [--tries 40] [--minutes 9]

Each program trains a small network on images that are drawn for it alone, each of which it has eight times: half of them are as
good as all. Validation is drawn like training. So neither too few images (DAT107, by half of them) nor another normalisation
(PRE201, validation brought to the mean of training, as the check would do it) costs anything. Both are suspected for certain,
and tried in one diagnosis. A row a program goes to results/proof_sound.jsonl at once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from proof_power import read_rows
from threads import run

from valgap.checks import CATALOGUE
from valgap.checks.preprocessing.normalization_mismatch import measured_between, renormalize
from valgap.experiments.prove import prove
from valgap.record.reader import read_record
from valgap.stats import wilson_interval
from valgap.types import Diagnosis, Finding, Intervention, Judged, RunRecord

HERE = Path(__file__).resolve().parent
ROWS = HERE / "results" / "proof_sound.jsonl"
TABLE = HERE / "results" / "proof_sound.md"
BUDGET_S = 30.0
PROGRAM = """import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

seed = int(sys.argv[1])
made = torch.Generator().manual_seed(seed)
torch.manual_seed(seed)
patterns = torch.randn(4, 3, 4, 4, generator=made)
normalize = transforms.Normalize([0.5] * 3, [0.25] * 3)


class Images(Dataset):
    def __init__(self, count, copies):
        self.targets = (torch.arange(count) % 4).tolist() * copies
        noise = torch.randn(count, 3, 12, 12, generator=made)
        light = 0.5 + 0.1 * F.interpolate(patterns, 12, mode="bilinear")[self.targets[:count]] + 0.25 * noise
        self.images = light.clamp(0, 1).repeat(copies, 1, 1, 1)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return normalize(self.images[i]), self.targets[i]


train, val = DataLoader(Images(40, 8), 16, shuffle=True), DataLoader(Images(120, 1), 60)
model = nn.Sequential(
    nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(),
    nn.Linear(144, 4),
)
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
for epoch in range(3):
    model.train()
    for images, labels in train:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        right = sum((model(images).argmax(1) == labels).sum().item() for images, labels in val)
    print(f"epoch {epoch} val acc {right / 120:.4f}")
"""


def suspected(recorded: RunRecord) -> tuple[Judged, ...]:
    """Both causes, as if their checks were certain."""
    known = {c.code: c for c in CATALOGUE}
    train, val = recorded.last_train, recorded.last_validation
    assert train is not None and val is not None and train.inputs is not None and val.inputs is not None
    identity = np.zeros(len(train.inputs.mean)), np.ones(len(train.inputs.mean))
    moved: Intervention = renormalize(measured_between(train.inputs, val.inputs, 1.0), identity, "validation")
    finding = Finding("suspected for the bench", 10.0, 0.9, (), "")
    return Judged(known["DAT107"], finding), Judged(replace(known["PRE201"], treat=lambda case, found: moved), finding)


def tried(seed: int) -> dict[str, Any]:
    """What re-runs say of one program."""
    where = Path(tempfile.mkdtemp())  # forks of this process would remove a TemporaryDirectory when they end
    try:
        (where / "train.py").write_text(PROGRAM)
        status, _, err, _ = run(["-m", "valgap", "run", "--closing", "0", "--out", "r", "train.py", str(seed)], "warm", where)
        if status:
            return {"seed": seed, "error": err.strip().splitlines()[-1:]}
        recorded = read_record(str(where / "r"))
        begun = time.process_time()
        found = prove(Diagnosis(recorded, suspected(recorded), None, None, None), BUDGET_S)
        facts = found.experiments
        causes = {
            j.check.code: {
                "verdict": j.verdict,
                "points": [round(v, 2) for v in (j.effect.value, j.effect.low, j.effect.high)] if j.effect else None,
                "seeds": j.effect.seeds if j.effect else 0,
                "reason": j.reason,
            }
            for j in found.judged
        }
        val = recorded.last_validation
        return {
            "seed": seed,
            "budget_s": BUDGET_S,
            "accuracy": val.samples.accuracy if val is not None else None,
            "causes": causes,
            "arms": facts.arms if facts is not None else 0,
            "fidelity": facts.fidelity if facts is not None else "",
            "cpu_s": round(time.process_time() - begun, 1),
        }
    finally:
        shutil.rmtree(where)


def write_table() -> None:
    """The report: of each cause how often it was confirmed."""
    rows = [r for r in read_rows(ROWS) if "causes" in r]
    budgets = " or ".join(f"{b:.0f}" for b in sorted({r.get("budget_s", 45.0) for r in rows}))
    mean = np.mean([r["accuracy"] for r in rows])
    made = "Made by `make bench-proof-sound`: small sound programs, tried as if a cause were suspected,"
    text = ["# Nothing to find", "", f"{made} {budgets} s of re-runs each (mean validation accuracy {mean:.0%}).", ""]
    heads = ["tried", "programs judged", "confirmed", "95 % (Wilson)", "refuted", "0 within its 95 % interval", "seeds, mean"]
    text += ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    for code in ("DAT107", "PRE201"):
        found = [r["causes"][code] for r in rows if r["causes"][code]["points"]]
        hits = sum(c["verdict"] == "confirmed" for c in found)
        low, high = wilson_interval(hits, len(found))
        refuted = sum(c["verdict"] == "refuted" for c in found)
        covered = sum(c["points"][1] <= 0 <= c["points"][2] for c in found)
        seeds = np.mean([c["seeds"] for c in found])
        text.append(
            f"| {code} | {len(found)} | {hits} | {low:.1%} .. {high:.1%} | {refuted} | {covered} of {len(found)} | {seeds:.1f} |"
        )
    left = len(read_rows(ROWS)) - len(rows)
    text += ["", f"{left} programs failed." if left else "No program failed.", ""]
    TABLE.write_text("\n".join(text), encoding="utf-8")


def main() -> None:
    """Try programs until the time is up, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=9)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    end, done = time.monotonic() + 60 * given.minutes, {r["seed"] for r in read_rows(ROWS)}
    for seed in range(given.tries):
        if seed in done or time.monotonic() > end:
            continue
        row = tried(seed)
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        told = {k: (c["verdict"], c["points"], c["seeds"]) for k, c in row.get("causes", {}).items()}
        print(seed, row.get("accuracy"), told or row, row.get("fidelity", "")[:60], flush=True)
    write_table()


if __name__ == "__main__":
    main()

"""What a record keeps so that two runs can be held side by side: fingerprints of a few batches, and the program's own text."""

from __future__ import annotations

from dataclasses import dataclass

from valgap.types.arrays import FloatArray, IntArray

# What is taken of a batch. "random": the state of torch's random numbers as it begins; "statistics": BatchNorm's running ones
# after it; "gradient" and "update": the norm of each parameter's, at its optimizer step, where that was measured.
QUANTITIES = ("random", "input", "target", "logits", "gradient", "update", "statistics")
FEW_VALUES = 32


@dataclass(frozen=True)
class TracedBatches:
    """Fingerprints of some batches of one pass, a row for each quantity of a batch. All arrays of R rows."""

    pass_index: int  # position in RunRecord.passes
    batch: IntArray  # (R,) number of the batch within the pass, from 0
    quantity: IntArray  # (R,) position in QUANTITIES
    half: IntArray  # (R,) 1 where it has numbers of 16 bits
    checksum: IntArray  # (R,) int64: equal tensors, equal numbers
    mean: FloatArray  # (R,)
    norm: FloatArray  # (R,) L2
    few: FloatArray  # (R, FEW_VALUES) numbers of it at even distances; nan where it has fewer

    def rows_of(self, batch: int) -> dict[str, int]:
        """The row of each quantity of a batch."""
        return {QUANTITIES[q]: i for i, q in enumerate(self.quantity.tolist()) if self.batch[i] == batch}


@dataclass(frozen=True)
class SourceFile:
    """A file of the program's own code as it was when it ran."""

    path: str  # below the script's folder; the script itself by its name
    digest: str  # SHA-256
    text: str | None  # None where it was too long to be kept
    entry: bool = False  # whether it is the script itself

"""The sequential test by simulation: how often chance alone is confirmed, how often intervals miss, how soon effects are found.

python benchmarks/proof_errors.py [--tries 400]
"""

import argparse

import numpy as np

from valgap.experiments.contest import LOOKS
from valgap.experiments.verdicts import Compared, judge_effect, measure

MOST = 8  # seeds


def arms(draw: np.random.Generator, images: int, luck: float, gain: float, spread: float) -> Compared:
    """Answers of images of unlike difficulty; ``luck`` moves a whole seed, ``spread`` what the change does to single images."""
    ability = draw.normal(1.0, 1.5, images)
    # Pairs of images are moved in opposite directions, so that nothing is gained on the whole where ``gain`` is 0.
    own = spread * np.repeat(draw.normal(size=(images + 1) // 2), 2)[:images] * np.where(np.arange(images) % 2, 1, -1)
    ability[1::2] = ability[: len(ability[1::2]) * 2 : 2]
    z = [ability + more + luck * draw.normal(size=(MOST, 1)) + draw.normal(size=(MOST, images)) for more in (0.0, gain + own)]
    loss = [np.log1p(np.exp(-v)) for v in z]
    return Compared(((z[0] > 0) * 1.0, (z[1] > 0) * 1.0), (loss[0], loss[1]))


def looks(given: Compared, tried: int) -> tuple[bool, int, float]:
    """(confirmed in either direction, seeds at the end, half of the interval's width there) at the looks that are taken."""
    assert given.loss is not None
    for look, seeds in enumerate((s for s in LOOKS if s <= MOST), 1):
        before = max(seeds, 3)
        part = Compared((given.right[0][:before], given.right[1][:seeds]), (given.loss[0][:before], given.loss[1][:seeds]))
        effect = measure(part, tried, look)
        half = (effect.high - effect.low) / 2
        if any(judge_effect(effect, sign).verdict == "confirmed" for sign in (1.0, -1.0)):
            return True, seeds, half
    return False, MOST, half


def main() -> None:
    """Print a line for each kind of program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tries", type=int, default=400)
    args = parser.parse_args()
    print("| images | luck of a seed | gain | tries | confirmed | seeds, mean | half width, points |\n" + "|---" * 7 + "|")
    for images in (60, 150, 500):
        for luck in (0.0, 0.2, 0.5):
            for gain in (0.0, 0.5, 1.0):
                draw = np.random.default_rng(0)
                tries = args.tries if gain == 0.0 else max(20, args.tries // 10)
                rows = [looks(arms(draw, images, luck, gain, 0.0), 1) for _ in range(tries)]
                sure, seeds, half = (np.mean(column) for column in zip(*rows, strict=True))
                print(f"| {images} | {luck} | {gain} | {tries} | {sure:.3f} | {seeds:.1f} | {half:.1f} |", flush=True)


if __name__ == "__main__":
    main()

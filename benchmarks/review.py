"""Whether `valgap review` stays fluent among thousands of suspects, in a headless Chromium; writes results/review.md.

python benchmarks/review.py [--suspects 5000] [--size 640x480] [--folder .bench-review]

Needs Chromium and its driver.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from valgap.review import Decisions, ReviewServer, Suspect
from valgap.review.neighbours import with_neighbours
from valgap.types import ImageRows, LabelErrors

INTRODUCTION = """Made by `make bench-review`, in a headless Chromium of 1920 x 1080 pixels. Suspects are JPEG files, each another
picture, of ten classes. Times are those that a person waits: from the key to the second frame that is drawn after what it asked
for is done; written down: the server's answer, which comes after the disk's, is there as well."""
TABLE = Path(__file__).resolve().parent / "results" / "review.md"
CLASSES = tuple(f"class {c}" for c in range(10))
# Presses a key again and again: until what it asked for is drawn, and written down, or all pictures are there.
PRESS = """
const [key, times, until, pause, done] = arguments;
const frame = () => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)));
const wait = (ms) => new Promise((go) => setTimeout(go, ms));
const there = () => [...document.querySelectorAll(state.grid ? '#cells img[src]' : '#picture')].every(
  (i) => i.closest('[hidden]') || (i.complete && i.naturalWidth));
(async () => {
  const spent = [];
  await state.busy;  // of what was measured before
  await wait(500);
  for (let n = 0; n < times; n++) {
    const begun = performance.now();
    document.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
    if (until === 'written') await state.busy;
    await frame();
    while (until === 'pictures' && !there()) await wait(2);
    spent.push(performance.now() - begun);
    await wait(pause);
  }
  done(spent);
})();
"""


class Measured:
    """Features of random images in place of measured ones: what neighbours cost does not depend on them."""

    pairs = ()

    def __init__(self, names: tuple[str, ...]) -> None:
        rng, n = np.random.default_rng(0), len(names)
        labels = np.arange(n) % len(CLASSES)
        self.rows = ImageRows(names, names, labels, np.zeros(n, bool), CLASSES)
        self.embeddings = rng.normal(size=(n, 1280)).astype(np.float32)
        self.label_errors = LabelErrors(np.full(n, 0.01), labels, 0.1, 0.1, (0.0, 1.0), (0.0, 1.0))


def pictures(folder: Path, n: int, width: int, height: int) -> list[Path]:
    """Files of as many pictures, made where they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, files = np.random.default_rng(1), [folder / f"{i}.jpg" for i in range(n)]
    grain = rng.integers(0, 40, (height, width, 3), np.uint8)
    for file in files:
        coarse = Image.fromarray(rng.integers(0, 215, (12, 16, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        if not file.exists():
            Image.fromarray(np.clip(np.asarray(coarse), 0, 215) + grain).save(file, quality=90)
    return files


def main() -> None:
    """Make the files, press the keys, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suspects", type=int, default=5_000)
    parser.add_argument("--others", type=int, default=15_000, help="further images of the data set, among them the sure ones")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--folder", type=Path, default=Path(".bench-review"))
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    files = pictures(given.folder.resolve() / given.size, given.suspects, width, height)
    names = tuple(str(files[i % len(files)]) + (f" {i}" if i >= len(files) else "") for i in range(given.suspects + given.others))
    images = Measured(names)
    suspects = [
        Suspect(str(f), f, "DAT104", "wrong_train_labels", "train", CLASSES[i % 10], CLASSES[(i + 1 + i // 10 % 9) % 10], "", 0.9)
        for i, f in enumerate(files)
    ]
    begun = time.perf_counter()
    suspects = with_neighbours(suspects, images)  # type: ignore[arg-type]
    spent = time.perf_counter() - begun
    decisions = given.folder / "decisions.csv"
    decisions.unlink(missing_ok=True)
    known = [name.split(" ")[0] for name in names]
    server = ReviewServer(suspects, CLASSES, Decisions(decisions), 0, known)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    lines = [
        (f"neighbours of all {given.suspects} found among {len(names)} images, before the page is served", spent * 1e3, None, 1)
    ]
    lines += asked(server)
    server.shutdown()
    written = len(Decisions(decisions))
    head = [
        "# Going through thousands of suspects", "", INTRODUCTION, "",
        f"{given.suspects} suspects of {given.size} pixels; {written} decided at the end, as the page says.", "",
        "| what | median ms | longest ms | n |", "|---|---|---|---|",
    ]  # fmt: skip
    body = [f"| {what} | {median:.0f} | {'-' if most is None else f'{most:.0f}'} | {n} |" for what, median, most, n in lines]
    TABLE.write_text("\n".join([*head, *body, ""]))
    print(TABLE.read_text())


def asked(server: ReviewServer) -> list[tuple[str, float, float | None, int]]:
    """(what, median ms, longest ms, times) of each thing that is done on the page."""
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1920,1080"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(300)
    lines: list[tuple[str, float, float | None, int]] = []

    def press(what: str, key: str, times: int, until: str = "drawn", pause_ms: int = 0) -> None:
        spent: list[float] = driver.execute_async_script(PRESS, key, times, until, pause_ms)
        lines.append((what, statistics.median(spent), max(spent), times))

    try:
        begun = time.perf_counter()
        driver.get(server.address)
        while not driver.execute_script("return document.getElementById('picture').naturalWidth > 0"):
            time.sleep(0.01)
        lines.append(("the page opened, its first picture there", 1e3 * (time.perf_counter() - begun), None, 1))
        press("one by one: keep, and the next is shown", "k", 100)
        press("one by one: the same, until it is written down", "k", 50, "written", 300)
        press("one by one: the next, its picture there", "ArrowRight", 20, "pictures", 300)
        press("grid opened", "g", 1)
        seen: Any = driver.execute_script("return [shown().length, grid.per]")
        press("grid: to the next suspect", "ArrowRight", 60)
        press("grid: one taken out or in", " ", 60)
        press(f"grid: up to {seen[1]} dropped, and the next page shown, without a pause", "d", 20)
        press("grid: the same, a second for each page", "d", 20, "drawn", 1000)
        press("grid: the same, until they are written down", "d", 20, "written", 1000)
        press("grid: as many undone, and their page shown", "z", 20, "written", 300)
        press("grid: next page, without a pause", "n", 30)
        press("grid: next page, all of its pictures there, two seconds for each", "n", 20, "pictures", 2000)
    finally:
        driver.quit()
    return lines


if __name__ == "__main__":
    main()

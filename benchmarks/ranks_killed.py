"""Two gloo ranks, one of them killed (kill -9) at random moments: is what is left readable, merged, and told?

    python benchmarks/ranks_killed.py [MOMENTS]

Each moment is one program of two forked processes, tests/ranks/program.py, of about two seconds. Rank 0 or 1 is killed by lot.
A record counts as right when it can be read, when it says which rank was killed and what became of the other one, when
every pass that the other rank had written is there, and when it is not told sound. Needs about 3 s of one core a moment.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.processes import ForkedPopen
from valgap.record.reader import read_record

PROGRAM = Path(__file__).parents[1] / "tests" / "ranks" / "program.py"
LONGEST_S = 2.0


def main() -> None:
    """Print what came of every moment, and how many were right."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("moments", nargs="?", type=int, default=50)
    lot = random.Random(0)
    outcomes: Counter[str] = Counter()
    for _ in range(arguments.parse_args().moments):
        rank, seconds = lot.randrange(2), lot.random() * LONGEST_S
        with tempfile.TemporaryDirectory() as folder:
            outcome = killed(Path(folder), rank, seconds)
        outcomes[outcome] += 1
        print(f"rank {rank} after {seconds:.2f} s: {outcome}", flush=True)
    print(dict(outcomes))


def killed(folder: Path, rank: int, seconds: float) -> str:
    """What became of one program whose rank was killed so many seconds after it had joined the group."""
    command = [sys.executable, "-m", "valgap", "run", "--closing", "0", "--out", str(folder / "r"), str(PROGRAM), "pair", "0.1"]
    with (folder / "output").open("wb") as output, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        process = ForkedPopen(command, output, env={**os.environ, "PORT": port}, cwd=folder)
    pid = pid_of(folder / "r" / "parts", rank)
    time.sleep(seconds)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return "it had ended already"
    process.wait(300)
    try:
        record = read_record(folder / "r")
    except Exception as error:
        return f"WRONG: not readable ({type(error).__name__}: {error})"
    ranks = {r.rank: r for r in record.ranks}
    other = ranks.get(1 - rank)
    if ranks.get(rank) is None or other is None:
        return "WRONG: a rank is missing"
    if ranks[rank].exit_status is not None:
        return "its part was whole already"
    if other.exit_status == 0:
        return "right: the other rank had ended" if f"rank {rank} was killed" in str(record.stopped) else "WRONG: not told"
    if f"rank {rank} was killed" not in str(record.stopped) or not other.error:
        return f"WRONG: not told which ({record.stopped})"
    if any(p.merged < 0 for p in other.passes) or not record.unseen:
        return "WRONG: passes are missing, or it is told sound"
    return "right"


def pid_of(parts: Path, rank: int) -> int:
    """The process with this rank, once its part is there."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        for file in parts.glob("*.jsonl"):
            if f'"rank":{rank}' in file.read_text().partition('"t":"pass_begin"')[0]:
                return int(file.stem.split("-")[1])
        time.sleep(0.01)
    raise TimeoutError("no such rank came")


if __name__ == "__main__":
    main()

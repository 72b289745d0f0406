"""Approximate neighbours against exact ones: which library, how many it misses, from what size on it pays.

    python benchmarks/neighbours.py --work FOLDER [--rows 10000,100000,1000000] [--minutes 9]

FOLDER is that of `check_size.py`, whose tables hold the features: of 10,000 real photographs (crops), and of the synthetic rows.
Rows are taken as `valgap check` takes them: around the mean, in the 96 directions in which they spread most, of length 1.
Recall: of the six true nearest of a row, the share found (all rows of the real photographs, 2,000 random ones of larger sets).
Libraries that are not there are left out. Each measurement is kept: a killed
call goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
K, ASKED = 6, 2_000


def exact(small: np.ndarray) -> np.ndarray:
    from valgap.features.pairs import nearest_exact

    return nearest_exact(small, K)


def usearch(small: np.ndarray) -> np.ndarray:
    from valgap.features.large.near import by_index

    return by_index(small, K, lambda done, total: None)


def faiss_hnsw(small: np.ndarray) -> np.ndarray:
    import faiss

    faiss.omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    index = faiss.IndexHNSWFlat(small.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = 128, 128
    index.add(small)
    return without_own(index.search(small, K + 1)[1])


def faiss_ivf(small: np.ndarray) -> np.ndarray:
    import faiss

    faiss.omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    lists = int(4 * len(small) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(small.shape[1]), small.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.train(small[:: max(1, len(small) // (40 * lists))])
    index.add(small)
    index.nprobe = max(8, lists // 16)
    return without_own(index.search(small, K + 1)[1])


def hnswlib(small: np.ndarray) -> np.ndarray:
    import hnswlib as library

    index = library.Index("ip", small.shape[1])
    index.init_index(len(small), ef_construction=128, M=16)
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    index.add_items(small, num_threads=threads)
    index.set_ef(128)
    return without_own(index.knn_query(small, K + 1, num_threads=threads)[0].astype(np.int64))


def without_own(keys: np.ndarray) -> np.ndarray:
    other = keys != np.arange(len(keys))[:, None]
    other[other.all(1), -1] = False
    return keys[other].reshape(len(keys), K)


WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exact": exact, "usearch": usearch, "faiss HNSW": faiss_hnsw, "faiss IVF": faiss_ivf, "hnswlib": hnswlib,
}  # fmt: skip


def projected(features: np.ndarray) -> np.ndarray:
    """As `features/large/near.py` does."""
    from valgap.features.pairs import SEARCH_DIMENSIONS, principal_directions, unit_rows

    centred = features - features.mean(0)
    directions = principal_directions(unit_rows(centred[:: max(1, len(centred) // 4000)]), SEARCH_DIMENSIONS)
    out = [unit_rows(unit_rows(centred[i : i + 8192]) @ directions) for i in range(0, len(centred), 8192)]
    return np.concatenate(out)


def real_rows(work: Path) -> np.ndarray:
    """(n, 96) of the crops."""
    from valgap.features import rows_of_path
    from valgap.features.backbone import backbone_key
    from valgap.features.large.table import LookTable

    os.environ["VALGAP_CACHE"] = str(work / "cache-rows")
    table = LookTable(rows_of_path(work / "real-10000").paths, backbone_key())
    return projected(np.asarray(table.take("features", np.arange(len(table.paths)), slice(0, 1280)), np.float32))


def synthetic_rows(work: Path, count: int) -> np.ndarray:
    """(count, 96) of the synthetic rows, evenly taken."""
    from valgap.features import rows_of_path
    from valgap.features.backbone import backbone_key
    from valgap.features.large.table import LookTable

    os.environ["VALGAP_CACHE"] = str(work / "cache-rows")
    folder = max(work.glob("rows-*"), key=lambda f: int(f.name.split("-")[1]))
    table = LookTable(rows_of_path(folder).paths, backbone_key())
    places = np.linspace(0, len(table.paths) - 1, count).astype(np.int64)
    kept = np.empty((count, 1280), np.float16)
    for start in range(0, count, 8192):
        kept[start : start + 8192] = table.take("features", places[start : start + 8192], slice(0, 1280))
    return projected(kept.astype(np.float32)) if count <= 200_000 else by_parts(kept)


def by_parts(kept: np.ndarray) -> np.ndarray:
    """The same of so many rows that they are not held as float32 at once."""
    from valgap.features.pairs import SEARCH_DIMENSIONS, principal_directions, unit_rows

    mean = np.mean([kept[i : i + 8192].astype(np.float32).mean(0) for i in range(0, len(kept), 8192)], axis=0)
    directions = principal_directions(unit_rows(kept[:: len(kept) // 4000].astype(np.float32) - mean), SEARCH_DIMENSIONS)
    parts = [kept[i : i + 8192].astype(np.float32) - mean for i in range(0, len(kept), 8192)]
    return np.concatenate([unit_rows(unit_rows(p) @ directions) for p in parts])


def truth(small: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(n, K) the true nearest of the asked rows."""
    out = []
    for start in range(0, len(asked), 64):
        own = asked[start : start + 64]
        likeness = small[own] @ small.T
        likeness[np.arange(len(own)), own] = -np.inf
        out.append(np.argpartition(-likeness, K - 1, axis=1)[:, :K])
    return np.concatenate(out)


def recall(found: np.ndarray, true: np.ndarray) -> float:
    return sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), true.tolist(), strict=True)) / true.size


def main() -> None:
    """Measure what is open; print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".bench-check-size"))
    parser.add_argument("--rows", default="20000,50000,100000,200000", help="synthetic ones")
    parser.add_argument("--ways", default=",".join(WAYS), help="separated by commas")
    parser.add_argument("--minutes", type=float, default=9.0)
    args = parser.parse_args()
    until = time.monotonic() + 60 * args.minutes
    work, file = args.work.absolute(), args.work.absolute() / "neighbours.json"
    known: dict[str, list[float]] = json.loads(file.read_text()) if file.exists() else {}
    for size in (0, *(int(n) for n in args.rows.split(",") if n)):
        open_ = [w for w in args.ways.split(",") if f"{size} {w}" not in known]
        small = None
        for way in open_:
            if time.monotonic() > until:
                print("not all is done: call it again")
                return
            if way == "exact" and size > 200_000:
                continue
            if small is None:
                small = synthetic_rows(work, size) if size else real_rows(work)
                asked = np.arange(len(small)) if not size else np.random.default_rng(0).choice(len(small), ASKED, replace=False)
                true = truth(small, asked)
            begun = time.perf_counter()
            try:
                found = WAYS[way](small)
            except ImportError:
                continue
            known[f"{size} {way}"] = [len(small), time.perf_counter() - begun, recall(found[asked], true)]
            file.write_text(json.dumps(known))
            print(size, way, known[f"{size} {way}"], flush=True)
    rows = []
    for key, (n, seconds, share) in known.items():
        which = "real" if key.startswith("0 ") else "synthetic"
        rows.append(f"| {int(n):,} {which} | {key.partition(' ')[2]} | {seconds:.1f} | {share:.4f} |")
    head = "| rows | way | seconds | recall |\n|---|---|---|---|"
    print(head, *rows, sep="\n")
    command = "Made by `make bench-neighbours` after `make bench-check-size`; one thread."
    text = __doc__.partition("FOLDER is")[2].strip()
    (RESULTS / "neighbours.md").write_text(
        f"# Neighbours by an index\n\nFOLDER is {text}\n\n{head}\n" + "\n".join(rows) + f"\n\n{command}\n"
    )


if __name__ == "__main__":
    main()

"""`write`: fills the caches with rows that follow from their names. `read`: fails where they give anything else than that."""

import hashlib
import sys
from pathlib import Path

import numpy as np

from valgap.engine.decoded import Pictures
from valgap.engine.store import FeatureStore, Space
from valgap.features.cache import LookCache
from valgap.features.looking import THUMB_SIDE, Look

COUNT, TOGETHER = 4_000, 20
SHAPES = {"a": ((1280,), "f4"), "b": ((7, 7, 16), "f2"), "looks": ((2784,), "f2")}
LAST = b"one more, 16 byt"


def digest(number):
    return hashlib.blake2b(b"%d" % number, digest_size=16).digest()


def values(number, name):
    shape, kind = SHAPES[name]
    return np.random.default_rng(number).random(shape).astype(kind)


def thumb(number):
    return np.random.default_rng(number).integers(0, 256, (THUMB_SIDE, THUMB_SIDE, 3)).astype(np.uint8)


def look(number):
    facts = ({"bytes": float(number)}, {"format": "JPEG"}, ("alpha",))
    return Look(digest(number), None, digest(number), *facts, thumb(number)), values(number, "looks")


def picture(path):
    return np.full((400, 300, 3), len(path.name), np.uint8)


space = FeatureStore().space("trust", "trial")
looks = LookCache("trust")
files = sorted(Path("photos").rglob("*.*"))
pictures = Pictures(files, picture, "trust", 360_000, FeatureStore())


def write():
    for start in range(0, COUNT, TOGETHER):
        rows = range(start, start + TOGETHER)
        space.append([digest(n) for n in rows], {name: np.stack([values(n, name) for n in rows]) for name in ("a", "b")})
        looks.put([look(n) for n in rows])
        pictures[start // TOGETHER % len(files)]


def read():
    digests = [digest(n) for n in range(COUNT)]
    places = Space(space.folder).places(digests)
    there = np.flatnonzero(places >= 0)
    for name in ("a", "b") if len(there) else ():
        column = space.column(name)
        for n in there.tolist():
            assert (column[places[n]] == values(n, name)).all(), f"features {name} {n}"
    known = looks.get(digests)
    for n, one in enumerate(digests):
        if one in known:
            found, features = known[one]
            assert (features == values(n, "looks")).all() and (found.thumb == thumb(n)).all(), f"look {n}"
            assert found.numbers["bytes"] == n, f"look {n}"
    for i, file in enumerate(files):
        assert (pictures[i] == picture(file)).all(), f"picture {i}"
    space.append([LAST], {name: values(0, name)[None] for name in ("a", "b")})
    assert Space(space.folder).places([LAST])[0] >= 0, "nothing can be added"


write() if sys.argv[1] == "write" else read()

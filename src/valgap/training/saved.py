"""What a killed training needs to go on from its last whole epoch, to the same bits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from valgap.errors import RecordError

if TYPE_CHECKING:
    from valgap.training.fit import Fit

PLACE = "place.json"


class FitStore:
    """A folder that holds the last whole epoch. ``place.json`` names the file that counts, and is replaced in one step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, fit: Fit) -> None:
        """Write the state after an epoch. A full disk ends keeping, not training."""
        epoch = fit.rows[-1].epoch
        tensors = {f"now/{k}": v for k, v in fit.learned().items()}
        for k, v in (fit.mean or {}).items():
            tensors[f"mean/{k}"] = v
        for number, state, logits in fit.best:
            tensors |= {f"best/{number}/{k}": v for k, v in state.items()}
            tensors[f"logits/{number}"] = torch.from_numpy(logits)
        tensors |= _optimizer_tensors(fit.optimizer)
        file = self.folder / f"epoch-{epoch}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, str(file))
            place = {"file": file.name, "best": [b[0] for b in fit.best], **fit.facts()}
            write_whole(self.folder / PLACE, json.dumps(place))
            for old in self.folder.glob("epoch-*.safetensors"):
                if old.name != file.name:
                    old.unlink()
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                file.unlink(missing_ok=True)  # its room is the checkpoint's
            why = error.strerror if isinstance(error, OSError) else error
            fit.watch.say(f"{self.folder} cannot be written ({why}): this run cannot be resumed")
            fit.store = None

    def read(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
        """(place, tensors) of the last whole epoch; None where there is none.

        Raises:
            RecordError: what is there is not as `keep` wrote it.
        """
        if not (self.folder / PLACE).exists():
            return None
        with damage_is_said(self.folder):
            place: dict[str, Any] = json.loads((self.folder / PLACE).read_text(encoding="utf-8"))
            return place, load_file(str(self.folder / place["file"]))


def write_whole(file: Path, text: str) -> None:
    """Write a file in one step: whoever is killed meanwhile leaves the one of before, or none. Raises OSError."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


@contextmanager
def damage_is_said(folder: Path) -> Iterator[None]:
    """What goes wrong within is the user's error: the state of a training that was cut off is not as we wrote it."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError, SafetensorError) as error:
        raise RecordError(
            f"{folder} holds a state that cannot be gone on from ({type(error).__name__}: {error}): train anew, without --resume"
        ) from error


def below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"optimizer/{i}/{k}": v for i, one in state.items() for k, v in one.items() if isinstance(v, torch.Tensor)}


def put_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """The optimizer's state, as it was kept."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in below(tensors, "optimizer/").items():
        number, _, key = name.partition("/")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

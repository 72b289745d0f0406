"""What a training was asked to do, kept beside it so that it can be resumed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from valgap.errors import RecordError
from valgap.recipe import Recipe
from valgap.training.saved import write_whole

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Settings:
    """The arguments of `valgap.train`."""

    data: Path
    backbone: str
    weights: str
    recipe: Recipe
    size: int | None
    seed: int
    workers: int | None
    test: Path | None
    crop: float | None = None  # share of an image that is seen; None: what the weights expect

    def keep(self, out: Path) -> None:
        """Write them below ``out``."""
        body = {
            "data": str(self.data.resolve()),
            "backbone": self.backbone,
            "weights": self.weights,
            "recipe": self.recipe.model_dump(),
            "size": self.size,
            "crop": self.crop,
            "seed": self.seed,
            "workers": self.workers,
            "test": str(self.test.resolve()) if self.test is not None else None,
        }
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / SETTINGS, json.dumps(body, indent=1))

    @classmethod
    def read(cls, out: Path) -> Settings:
        """What `keep` wrote. Raises RecordError where there is nothing to resume."""
        try:
            body = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
            test = Path(body["test"]) if body["test"] else None
            recipe = Recipe(**body["recipe"])
            return cls(
                data=Path(body["data"]),
                backbone=body["backbone"],
                weights=body["weights"],
                recipe=recipe,
                size=body["size"],
                seed=body["seed"],
                workers=body["workers"],
                test=test,
                crop=body.get("crop"),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{out} holds no training that could be resumed (no readable {SETTINGS})") from error

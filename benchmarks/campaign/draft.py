"""A sound program that is being changed: what the kinds of fault need to write in any style."""

from __future__ import annotations

import random
import re
from typing import Any

from campaign.base import Base

SIDES = ("train", "val")


class NotHereError(Exception):
    """This kind of fault has no place in this program."""


class Draft:
    """The slots of a program, with ways to change them."""

    def __init__(self, base: Base, rng: random.Random) -> None:
        self.base = base
        self.rng = rng
        self.sound = base.slots()
        self.slots = dict(self.sound)
        self.files: tuple[str, dict[str, Any]] | None = None

    def needs(self, *traits: str) -> None:
        """Raises NotHereError where the network has not all of these traits."""
        if not set(traits) <= self.base.network.traits:
            raise NotHereError

    def put(self, slot: str, text: str) -> None:
        """That slot is now this text."""
        if slot not in self.slots:
            raise NotHereError
        self.slots[slot] = text

    def after(self, slot: str, text: str) -> None:
        """That text follows in the slot."""
        self.put(slot, "\n".join(filter(None, (self.slots.get(slot), text))))

    def before(self, slot: str, text: str) -> None:
        """That text comes first in the slot."""
        self.put(slot, "\n".join(filter(None, (text, self.slots.get(slot)))))

    def sub(self, slot: str, pattern: str, text: str) -> None:
        """What matches in the slot is replaced; it must be there."""
        changed, times = re.subn(pattern, lambda _: text, self.slots.get(slot, ""))
        if not times:
            raise NotHereError
        self.slots[slot] = changed

    def need_import(self, name: str) -> None:
        """`import NAME` stands in the program."""
        if f"import {name}" not in self.slots["imports"].split("\n"):
            self.after("imports", f"import {name}")

    def relabel(self, side: str, expression: str) -> None:
        """The label of each item is that expression of its place i and its label y."""
        self._way(f"relabel.{side}", expression)

    def keep(self, side: str, condition: str) -> None:
        """Only items with that condition of i and y stay."""
        self._way(f"keep.{side}", condition)

    def _way(self, key: str, expression: str) -> None:
        way = self.base.style.way(key)
        assert way is not None
        self.after(way[0], way[1].replace("$e", expression))

    def read(self, sides: tuple[str, ...], **expressions: str) -> str:
        """Images of these sides are read as one of the expressions says ($v is the image); the level that was chosen.

        Levels: pil (RGB), array (uint8, H x W x C), float (normalised, ... x C x H x W, of an image or a batch).
        """
        levels = {
            way: e
            for level, e in expressions.items()
            for way in (("tensor", "batch") if level == "float" else (level,))
            if self.base.style.way(f"read.train.{way}")
        }
        if not levels:
            raise NotHereError
        level = self.rng.choice(sorted(levels))
        for side in sides:
            slot, text, value = self.base.style.way(f"read.{side}.{level}") or ("", "", "")
            self.after(slot, text.replace("$e", levels[level].replace("$v", value)))
        return level

    def draw(self, sampler: str) -> None:
        """The training items come in the order of that sampler (any iterable of indices); L in it are their labels."""
        slot, old, new = self.base.style.way("draw") or ("", "", "")
        self.sub(slot, re.escape(old), new.replace("$e", re.sub(r"\bL\b", lambda _: "$labels", sampler)))

    def before_head(self, name: str, forward: str, init: str = "") -> None:
        """A module that changes the features f stands before the last layer."""
        self._module(name, forward, init, "nn.Sequential($layer, $head)")

    def after_head(self, name: str, forward: str) -> None:
        """A module that changes the logits f stands behind the last layer."""
        self._module(name, forward, "", "nn.Sequential($head, $layer)")

    def _module(self, name: str, forward: str, init: str, whole: str) -> None:
        body = "\n".join("        " + line for line in forward.split("\n"))
        made = "    def __init__(self):\n        super().__init__()\n        " + init + "\n\n" if init else ""
        text = f"class {name}(nn.Module):\n{made}    def forward(self, f):\n{body}"
        self.after("net_defs", "\n\n" + text)
        self.after("after_net", "$head = " + whole.replace("$layer", f"{name}()"))

    def forward(self, change: str, sides: tuple[str, ...] = SIDES) -> None:
        """The logits z are changed after the model's call, in training, validation or both."""
        if "train" in sides:
            self.after("forward", "$out = " + re.sub(r"\bz\b", lambda _: "$out", change))
        if "val" in sides:
            self.after("val_forward", "$vout = " + re.sub(r"\bz\b", lambda _: "$vout", change))

    def loss(self, expression: str) -> None:
        """The loss is that expression of the logits z and targets t."""
        expression = re.sub(r"\bz\b", lambda _: "$out", expression)
        self.put("loss", "$loss = " + re.sub(r"\bt\b", lambda _: "$y", expression))

    def after_backward(self, text: str) -> None:
        """That text stands between backward and the optimizer's step."""
        self._around_step(text, before=True)

    def after_step(self, text: str) -> None:
        """That text follows the optimizer's step."""
        self._around_step(text, before=False)

    def _around_step(self, text: str, before: bool) -> None:
        lines = self.slots["step"].split("\n")
        place = next(i for i, line in enumerate(lines) if line.endswith(".step()"))
        lines.insert(place if before else place + 1, text)
        self.put("step", "\n".join(lines))

    def count_line(self, which: str, text: str) -> None:
        """The line that adds to `correct`, `total` or `lsum` is that text."""
        target = self.base.style.words[which]
        lines = self.slots["count"].split("\n")
        self.put("count", "\n".join(text if line.startswith(f"{target} += ") else line for line in lines))

    def changed(self) -> set[str]:
        """The slots that differ from the sound program's."""
        return {slot for slot, text in self.slots.items() if text != self.sound[slot]}

    def text(self, seed: int | None = None) -> str:
        """The program."""
        seed = self.base.seed if seed is None else seed
        return self.base.style.render(self.slots, self.base.settings(seed))

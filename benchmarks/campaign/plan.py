"""The programs of the campaign, in the order in which they are run: the same list on every machine."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Any

from campaign.base import SETUPS, Base
from campaign.draft import Draft, NotHereError
from campaign.kind import APART, HALVES, Kind, half_of
from campaign.kinds import FAULTS, HABITS, NEIGHBOURS
from campaign.style import Style, styles

BASES_A_STYLE = 13
OF_A_KIND = 3
OF_A_HABIT = 5
PAIRS = 40
TRIES = 60


@dataclass(frozen=True)
class Program:
    """One program: what it was made of and what is wrong with it."""

    name: str
    half: str
    kinds: tuple[Kind, ...]
    base: Base
    draft: Draft
    dose: dict[str, Any]

    @property
    def stages(self) -> tuple[str, ...]:
        """Each of these stages is a right answer; none of a healthy program's."""
        return tuple(s for kind in self.kinds if not kind.sound for s in stages_of(kind, self.dose[kind.name]))

    @property
    def codes(self) -> tuple[str, ...]:
        """The catalogue's names of what is wrong, where it has one."""
        return tuple(c for kind in self.kinds if not kind.sound for c in kind.codes)

    @property
    def healthy(self) -> bool:
        """Nothing is wrong with it."""
        return all(k.sound for k in self.kinds)


def stages_of(kind: Kind, dose: dict[str, Any]) -> tuple[str, ...]:
    """The stages of a kind at a dose: of faults of reading, those of the sides that it is on."""
    return tuple(f"read_{side}" for side in dose["sides"]) if "sides" in dose else kind.stages


def bases() -> list[Base]:
    """The sound programs: each style with each setup."""
    found = []
    for style in styles().values():
        rng = random.Random(f"bases {style.name}")
        for k, setup in enumerate(rng.sample(SETUPS, BASES_A_STYLE)):
            found.append(Base(style, setup, can_choose(style) and k % 3 == 1, rng.randrange(1000)))
    return found


def can_choose(style: Style) -> bool:
    return "finish" in style.slots


def programs() -> list[Program]:
    """All programs: sound ones, sound ones with unusual habits, faulty ones, pairs of faults of one half; then the neighbours."""
    all_bases = bases()
    made = [Program(digest(b.name), half_of(b.name), (), b, Draft(b, random.Random(b.name)), {}) for b in all_bases]
    for kind, times in [*((k, OF_A_HABIT) for k in HABITS), *((k, OF_A_KIND) for k in FAULTS)]:
        made += [p for n in range(times) if (p := attempt(f"{kind.name} {n}", (kind,), all_bases)) is not None]
    for n in range(PAIRS):
        half = HALVES[n % 2]
        rng = random.Random(f"pair {n}")
        two = rng.sample([k for k in FAULTS if half_of(k.name) == half], 2)
        if two[0].stages != two[1].stages and (p := attempt(f"pair {n}", tuple(two), all_bases)) is not None:
            made.append(p)
    unique = {p.name: p for p in made}
    apart = [attempt(f"neighbour {k.name}", (k,), all_bases, APART) for k in NEIGHBOURS]
    return [*sorted(unique.values(), key=lambda p: p.name), *(p for p in apart if p is not None)]


def attempt(label: str, kinds: tuple[Kind, ...], among: list[Base], half: str | None = None) -> Program | None:
    """A program with these kinds, of the first sound program (in an order of its own) in which they have a place."""
    rng = random.Random(label)
    for base in rng.sample(among, min(TRIES, len(among))):
        draft = Draft(base, rng)
        try:
            dose = {kind.name: kind.apply(draft) for kind in kinds}
        except NotHereError:
            continue
        return Program(digest(label), half or half_of(kinds[0].name), kinds, base, draft, dose)
    return None


def digest(label: str) -> str:
    """A name that tells nothing of what is in the program."""
    return hashlib.sha256(label.encode()).hexdigest()[:8]

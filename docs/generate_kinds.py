"""Write src/valgap/features/kinds.json: which of ImageNet's 1,000 concepts are of one kind, from WordNet's hypernyms.

python docs/generate_kinds.py DATA.NOUN

DATA.NOUN is the file data.noun of WordNet 3.0 (Debian: package wordnet-base), whose offsets ImageNet's names of classes are.
The kind of a concept is what stands two steps above it: a bee is a hymenopterous insect is an *insect*, a running shoe is a
shoe is *footwear*. Kinds with fewer than 5 or more than 150 concepts say nothing and are left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from timm.data import ImageNetInfo

FILE = Path(__file__).resolve().parents[1] / "src" / "valgap" / "features" / "kinds.json"
STEPS_UP = 2
FEWEST, MOST = 5, 150
NOTICE = (
    "Derived from WordNet 3.0, Copyright 2006 by Princeton University. All rights reserved. Permission to use, copy, modify and "
    "distribute it for any purpose and without fee is granted; it is provided as is, without warranty. "
    "https://wordnet.princeton.edu/license-and-commercial-use"
)


def main(noun_file: Path) -> None:
    """Write the file."""
    above, words = hypernyms(noun_file)
    info = ImageNetInfo()
    chains = [chain(info.index_to_label_name(i)[1:], above) for i in range(info.num_classes())]
    kinds: dict[str, list[int]] = {}
    of: list[str | None] = []
    for one in chains:
        top = one[STEPS_UP] if len(one) > STEPS_UP else one[-1]
        members = [i for i, other in enumerate(chains) if top in other]
        if FEWEST <= len(members) <= MOST:
            kinds[words[top].replace("_", " ")] = members
        of.append(words[top].replace("_", " ") if FEWEST <= len(members) <= MOST else None)
    names = [info.index_to_description(i).split(",")[0] for i in range(info.num_classes())]
    body = {"notice": NOTICE, "names": names, "kind": of, "members": dict(sorted(kinds.items()))}
    FILE.write_text(json.dumps(body, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def hypernyms(noun_file: Path) -> tuple[dict[str, str | None], dict[str, str]]:
    """(first hypernym of each synset, its first word), by offset."""
    above: dict[str, str | None] = {}
    words: dict[str, str] = {}
    for line in noun_file.read_text(encoding="latin-1").splitlines():
        if line.startswith("  "):  # the licence
            continue
        field = line.split("|")[0].split()
        pointers = 4 + 2 * int(field[3], 16)
        links = [field[pointers + 1 + 4 * k :][:2] for k in range(int(field[pointers]))]
        above[field[0]] = next((offset for sign, offset in links if sign in ("@", "@i")), None)
        words[field[0]] = field[4]
    return above, words


def chain(offset: str, above: dict[str, str | None]) -> list[str]:
    """The synset and what stands above it, upwards."""
    found = [offset]
    while (up := above[found[-1]]) is not None:
        found.append(up)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What `pip install .` takes beside torch and torchvision, by package, from the files of this environment; prints a table.

python benchmarks/install_size.py [--extra NAME]
"""

from __future__ import annotations

import argparse
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

GIVEN = ("torch", "torchvision")


def needed(name: str, extras: frozenset[str] = frozenset(), found: set[str] | None = None) -> set[str]:
    """The distribution and all that it requires here."""
    found = set() if found is None else found
    try:
        required = metadata.distribution(name).requires or []
    except metadata.PackageNotFoundError:
        return found
    found.add(canonicalize_name(name))
    for one in map(Requirement, required):
        wanted = one.marker is None or any(one.marker.evaluate({"extra": e}) for e in (extras or {""}))
        if wanted and (canonicalize_name(one.name) not in found or one.extras):
            needed(one.name, frozenset(one.extras), found)
    return found


def megabytes(name: str) -> float:
    """Of the files of a distribution."""
    files = [Path(str(f.locate())) for f in metadata.distribution(name).files or []]
    return sum(f.stat().st_size for f in files if f.is_file()) / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra", action="append", default=[], help="an extra that is installed as well")
    extras = frozenset(parser.parse_args().extra)
    own = needed("valgap", extras) - set().union(*map(needed, GIVEN)) - {"valgap"}
    sizes = sorted(((megabytes(name), name) for name in own), reverse=True)
    for size, name in sizes:
        print(f"{size:7.1f} MB  {name}")
    print(f"{sum(size for size, _ in sizes):7.1f} MB  beyond {' and '.join(GIVEN)} and what they need")


if __name__ == "__main__":
    main()

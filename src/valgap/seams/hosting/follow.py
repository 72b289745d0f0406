"""Run as a file in processes that a recorded program starts: ``follow.py ORIGIN SCRIPT [ARGS]`` or ``-m MODULE [ARGS]``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the program as Python would, recorded where it calls a model; returns only where there is none."""
    home = __file__.rsplit("/valgap/", 1)[0]
    here = sys.path.pop(0)  # this file's folder
    sys.path.append(home)
    try:
        from valgap.errors import ScriptError
        from valgap.seams.hosting.children import run_command
    finally:
        sys.path.remove(home)
        sys.path.insert(0, here)
    try:
        run_command(sys.argv[1], sys.argv[2:])
    except ScriptError as error:
        print(f"{sys.executable}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""All commands: a module for each group, shown in `valgap --help` in this order."""

from valgap.cli.app import app, main

# isort: off
from valgap.cli import runs, before, watching, causes, models, repair, serving, upkeep

__all__ = ["app", "before", "causes", "main", "models", "repair", "runs", "serving", "upkeep", "watching"]

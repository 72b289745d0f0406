"""Remedies as code: a snippet for each cause, and edits of the user's own script where the place is found."""

from valgap.edits.snippets import SNIPPETS

__all__ = ["SNIPPETS"]

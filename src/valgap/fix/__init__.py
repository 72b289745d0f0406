"""From findings and decisions to a fixed run: a manifest, edits, a retraining in a sandbox, before and after."""

from valgap.fix.program import FixResult, code_of_remedies, fix

__all__ = ["FixResult", "code_of_remedies", "fix"]

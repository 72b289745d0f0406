"""Controlled re-runs: arms, budget, verdicts, ledger. Imports nothing: an arm begins without torch and numpy."""

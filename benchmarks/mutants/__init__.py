"""Mutants of valgap's own code, and which tests notice them (benchmarks/mutants.py)."""

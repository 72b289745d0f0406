"""A generator of small training programs, each with a fault at a known stage, beside its sound twin."""

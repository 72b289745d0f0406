"""Hostile inputs of every kind that a command reads, from seeds."""

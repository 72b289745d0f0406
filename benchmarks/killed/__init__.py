"""Commands that are killed (kill -9) at random moments, and ended in other ways: what is left, and whether all goes on."""

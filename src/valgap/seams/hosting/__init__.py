"""A stranger's program, run as Python would run it: from its start and its children to how it ends."""

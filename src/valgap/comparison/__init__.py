"""A good run beside a bad one: where they part, what explains it, and whether it makes the difference."""

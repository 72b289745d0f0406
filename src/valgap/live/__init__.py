"""A program watched while it runs: warnings as soon as a cause shows, and a view of its record as it grows."""

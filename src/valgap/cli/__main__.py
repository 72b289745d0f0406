"""`python -m valgap.cli`."""

from valgap.cli import main

main()

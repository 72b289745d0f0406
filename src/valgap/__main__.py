"""`python -m valgap` is `valgap`; `torchrun -m valgap train` trains on several GPUs."""

from valgap.cli import main

main()

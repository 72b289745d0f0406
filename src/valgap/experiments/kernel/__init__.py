"""What the kernel keeps a re-run from: Python's own functions can be gone around by C code and child programs, the kernel cannot."""

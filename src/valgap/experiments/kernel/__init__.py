"""What the kernel keeps a re-run from. C code and child programs go around Python's functions; around the kernel they do not."""

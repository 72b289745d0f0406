"""`valgap.watch` as a callback of Lightning, Hugging Face Trainer and fastai. Each module needs its own library."""

"""From what the seams tell to the record: batches at work, passes, steps, kept images."""

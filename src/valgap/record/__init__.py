"""The run directory: an append-only file of events, written by the recorder and read as a RunRecord.

``writer`` and ``encoding`` load before the recorded program does, so they import neither numpy nor torch.
"""
